"""Summaries of many numbers: quantiles and histograms as plain values. Pure functions."""

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
    """Of numbers in one unit: moments (std of the population), quantiles, and a histogram.

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


def distribution(values: Array) -> Distribution:
    """Of values [n], n > 0, all finite."""
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
    """Of the shares that counts [n] are of their sum, in nats: 0 for one, log n for equal ones."""
    total = counts.sum()
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum())
