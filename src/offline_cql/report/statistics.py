"""Statistics over seeds and tasks, by the definitions of rliable.

Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice". `scores` is one array per
task with one number per run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEVEL = 0.95  # of the intervals
Statistic = Callable[[Array], Array]  # of the runs on the last axis


def iqm(scores: Array) -> Array:
    """Return the interquartile mean over the last axis.

    The lowest and the highest quarter are left out, each rounded down to whole runs.
    """
    size = scores.shape[-1]
    cut = size // 4
    ordered = np.sort(scores, axis=-1)
    result: Array = ordered[..., cut : size - cut].mean(axis=-1)
    return result


def mean(scores: Array) -> Array:
    """Return the mean over the last axis."""
    result: Array = scores.mean(axis=-1)
    return result


def resample(scores: Sequence[Array], resamples: int, generator: np.random.Generator) -> Array:
    """Draw resamples of the stratified bootstrap, [resamples, runs of all tasks].

    Each resample draws, with replacement, as many runs of each task as the task has.
    """
    samples = [task[generator.integers(len(task), size=(resamples, len(task)))] for task in scores]
    return np.concatenate(samples, axis=-1)


def interval(
    scores: Sequence[Array], statistic: Statistic, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Return a statistic of all runs and its 95% percentile interval (stratified bootstrap)."""
    point = float(statistic(np.concatenate(scores)))
    samples = statistic(resample(scores, resamples, np.random.default_rng(seed)))
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return point, float(low), float(high)


def band(curves: Array, *, resamples: int, seed: int) -> tuple[Array, Array, Array]:
    """Return the mean of curves [runs, points] and its 95% bootstrap interval at each point.

    The bounds of a single run are NaN: its spread is unknown.
    """
    center: Array = curves.mean(axis=0)
    if len(curves) < 2:
        unknown = np.full_like(center, np.nan)
        return center, unknown, unknown
    generator = np.random.default_rng(seed)
    samples = curves[generator.integers(len(curves), size=(resamples, len(curves)))].mean(axis=1)
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return center, low, high


def profile(scores: Array, thresholds: Array) -> Array:
    """Return the share of runs (last axis) with a score above each threshold, [..., thresholds]."""
    ordered = np.sort(scores, axis=-1).reshape(-1, scores.shape[-1])
    size = scores.shape[-1]
    above = [size - np.searchsorted(row, thresholds, side="right") for row in ordered]
    shares: Array = np.array(above, np.float64) / size
    return shares.reshape(*scores.shape[:-1], len(thresholds))


def profile_band(
    scores: Sequence[Array], thresholds: Array, *, resamples: int, seed: int
) -> tuple[Array, Array, Array]:
    """Return the performance profile of all runs and its 95% interval at each threshold."""
    center = profile(np.concatenate(scores), thresholds)
    samples = profile(resample(scores, resamples, np.random.default_rng(seed)), thresholds)
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return center, low, high


def rank_correlation(x: Array, y: Array) -> float | None:
    """Return Spearman's rank correlation; None where either is constant.

    Equal values share their mean rank.
    """
    first, second = _ranks(x), _ranks(y)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else None


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    ranks: Array = (last - (counts - 1) / 2)[inverse]
    return ranks
