"""How runs over seeds and tasks are summed up, by the definitions of rliable. Pure NumPy.

Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice". scores: one array a task,
one number a run in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEVEL = 0.95  # of the intervals
Statistic = Callable[[Array], Array]  # of the runs on the last axis


def iqm(scores: Array) -> Array:
    """Interquartile mean over the last axis: without the lowest and the highest quarter, each
    rounded down to whole runs."""
    size = scores.shape[-1]
    cut = size // 4
    ordered = np.sort(scores, axis=-1)
    found: Array = ordered[..., cut : size - cut].mean(axis=-1)
    return found


def mean(scores: Array) -> Array:
    """The mean over the last axis."""
    found: Array = scores.mean(axis=-1)
    return found


def resampled(scores: Sequence[Array], resamples: int, generator: np.random.Generator) -> Array:
    """Stratified bootstrap: in each resample as many runs are drawn of each task as it has, with
    replacement; [resamples, runs of all tasks]."""
    drawn = [
        task[generator.integers(len(task), size=(resamples, len(task)))]
        for task in (np.asarray(each, np.float64) for each in scores)
    ]
    return np.concatenate(drawn, axis=-1)


def interval(
    scores: Sequence[Array], statistic: Statistic, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """The statistic of all runs, and its 95 % percentile interval by the stratified bootstrap."""
    point = float(statistic(np.concatenate([np.asarray(each, np.float64) for each in scores])))
    drawn = statistic(resampled(scores, resamples, np.random.default_rng(seed)))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return point, float(low), float(high)


def band(curves: Array, *, resamples: int, seed: int) -> tuple[Array, Array, Array]:
    """Mean over runs of curves [runs, points], and its 95 % bootstrap interval at each point.

    All NaN bounds for one run: nothing is known about the spread.
    """
    middle: Array = curves.mean(axis=0)
    if len(curves) < 2:
        none = np.full_like(middle, np.nan)
        return middle, none, none
    generator = np.random.default_rng(seed)
    drawn = curves[generator.integers(len(curves), size=(resamples, len(curves)))].mean(axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return middle, low, high


def profile(scores: Array, thresholds: Array) -> Array:
    """Share of the runs (last axis) with a score above each threshold; [..., thresholds]."""
    ordered = np.sort(scores, axis=-1).reshape(-1, scores.shape[-1])
    size = scores.shape[-1]
    above = [size - np.searchsorted(row, thresholds, side="right") for row in ordered]
    shares: Array = np.array(above, np.float64) / size
    return shares.reshape(*scores.shape[:-1], len(thresholds))


def profile_band(
    scores: Sequence[Array], thresholds: Array, *, resamples: int, seed: int
) -> tuple[Array, Array, Array]:
    """The profile of all runs, and its 95 % interval at each threshold."""
    middle = profile(np.concatenate([np.asarray(s, np.float64) for s in scores]), thresholds)
    drawn = profile(resampled(scores, resamples, np.random.default_rng(seed)), thresholds)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return middle, low, high


def rank_correlation(left: Array, right: Array) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing their mean rank; None where either
    is constant."""
    first, second = _ranks(left), _ranks(right)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else None


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts).astype(np.float64)
    found: Array = (last - (counts - 1) / 2)[place]
    return found
