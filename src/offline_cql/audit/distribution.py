"""Summaries of many numbers as plain values: moments, quantiles, histograms, entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 40


@dataclass(frozen=True)
class Distribution:
    """Moments, quantiles and a histogram of numbers in one unit; std is the population's.

    counts [BINS] lie between edges [BINS + 1].
    """

    mean: float
    std: float
    min: float
    q05: float
    q25: float
    median: float
    q75: float
    q95: float
    max: float
    edges: list[float]
    counts: list[int]


def summarize(values: Array) -> Distribution:
    """Return the distribution of `values` [n], n > 0, all finite."""
    numbers = np.asarray(values, np.float64)
    counts, edges = np.histogram(numbers, BINS)
    q05, q25, median, q75, q95 = np.quantile(numbers, QUANTILES).tolist()
    return Distribution(
        mean=float(numbers.mean()),
        std=float(numbers.std()),
        min=float(numbers.min()),
        q05=q05,
        q25=q25,
        median=median,
        q75=q75,
        q95=q95,
        max=float(numbers.max()),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def entropy(counts: Array) -> float:
    """Return −Σ p log p in nats for p = counts / Σ counts: 0 for one outcome, log n for n equal."""
    total = counts.sum()
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum())
