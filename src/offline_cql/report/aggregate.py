"""Normalized scores of methods over all tasks: interquartile means and means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offline_cql.report.run import Array, Run
from offline_cql.report.statistics import interval, iqm, mean

Interval = tuple[float, float, float]  # value, low, high


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """A method's normalized scores of the last policies, by task.

    alpha: None for an algorithm without one. iqm, mean: over all tasks; None with fewer than two
    runs.
    """

    method: str
    alpha: float | None
    scores: Mapping[str, Array]
    iqm: Interval | None
    mean: Interval | None

    @property
    def runs(self) -> int:
        """The number of runs."""
        return sum(map(len, self.scores.values()))


def aggregates(
    tasks: Mapping[str, Sequence[Run]], methods: Mapping[str, str], *, resamples: int, seed: int
) -> list[Aggregate]:
    """Return the methods in the order of alpha; runs without a normalized score are left out."""
    scores: dict[str, dict[str, list[float]]] = {}
    alphas: dict[str, float | None] = {}
    runs = [(task, run) for task, group in tasks.items() for run in group]
    for task, run in sorted(runs, key=lambda x: (x[1].alpha is None, x[1].alpha or 0.0)):
        score, method = run.simulated.normalized_score, methods[run.name]
        if score is not None and math.isfinite(score):
            scores.setdefault(method, {}).setdefault(task, []).append(score)
            alphas[method] = run.alpha
    result = []
    for method, by_task in scores.items():
        arrays = {task: np.array(values) for task, values in sorted(by_task.items())}
        strata, several = list(arrays.values()), sum(map(len, arrays.values())) > 1
        intervals = {
            name: interval(strata, statistic, resamples=resamples, seed=seed) if several else None
            for name, statistic in (("iqm", iqm), ("mean", mean))
        }
        result.append(Aggregate(method=method, alpha=alphas[method], scores=arrays, **intervals))
    return result


def too_few(aggregates: Sequence[Aggregate]) -> str | None:
    """Return why there is nothing to aggregate, in words; None when there is."""
    if not aggregates:
        return "No run has a normalized score: there is no simulator, or no reference returns"
    if all(each.iqm is None for each in aggregates):
        return "One run per method: intervals need at least two tasks or seeds"
    return None
