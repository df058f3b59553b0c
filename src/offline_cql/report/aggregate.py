"""Methods over all tasks: interquartile means and performance profiles of normalized scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offline_cql.report.run import Array, Run
from offline_cql.report.statistics import interval, iqm, mean


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One method's normalized scores of the last policies: by task, and over all of them.

    iqm, mean: value, low, high; None with fewer than two runs.
    """

    method: str
    scores: Mapping[str, Array]
    iqm: tuple[float, float, float] | None
    mean: tuple[float, float, float] | None

    @property
    def runs(self) -> int:
        return sum(map(len, self.scores.values()))


def aggregates(
    tasks: Mapping[str, Sequence[Run]], methods: Mapping[str, str], *, resamples: int, seed: int
) -> list[Aggregate]:
    """Of every method, in the order of alpha; runs without a normalized score are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    every = [(task, run) for task, runs in tasks.items() for run in runs]
    for task, run in sorted(every, key=lambda x: (x[1].alpha is None, x[1].alpha or 0.0)):
        score = run.simulated.normalized_score
        if score is not None and math.isfinite(score):
            found.setdefault(methods[run.name], {}).setdefault(task, []).append(score)
    result = []
    for method, by_name in found.items():
        scores = {name: np.array(values) for name, values in sorted(by_name.items())}
        strata, several = list(scores.values()), sum(map(len, scores.values())) > 1
        how = {"resamples": resamples, "seed": seed}
        result.append(
            Aggregate(
                method=method,
                scores=scores,
                iqm=interval(strata, iqm, **how) if several else None,
                mean=interval(strata, mean, **how) if several else None,
            )
        )
    return result


def too_few(found: Sequence[Aggregate]) -> str | None:
    """Why there is nothing to sum up, in words; None when there is."""
    if not found:
        return "no run has a normalized score: there is no simulator, or no reference returns"
    if all(each.iqm is None for each in found):
        return "one run a method: intervals need at least two tasks or seeds"
    return None
