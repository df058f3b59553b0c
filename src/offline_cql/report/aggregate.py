"""Methods over all tasks: interquartile means and performance profiles of normalized scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.svg import CLONING_COLOR, INK, Plot, colors
from offline_cql.report.run import CLONING, Array, Run
from offline_cql.report.statistics import interval, iqm, mean, profile_band

THRESHOLDS = 61
MOST_METHODS = 12


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


def plots(found: Sequence[Aggregate], *, resamples: int, seed: int) -> list[Plot]:
    """Of methods with several runs, at most MOST_METHODS of them."""
    shown = [each for each in found if each.iqm is not None][:MOST_METHODS]
    if not shown:
        return []
    spread = "95 % intervals by a bootstrap within tasks."
    return [
        Plot(
            stem="iqm",
            title="Interquartile mean of normalized scores",
            caption=f"The middle half of all runs of a method; {spread}",
            size=(5.0, 1.1 + 0.3 * len(shown)),
            draw=lambda figure: _bars(figure, shown),
            metrics=("evaluation/normalized_score",),
        ),
        Plot(
            stem="profiles",
            title="Performance profiles",
            caption=f"Share of the runs with a score above each threshold; {spread}",
            size=(5.0, 3.3),
            draw=lambda figure: _profiles(figure, shown, resamples=resamples, seed=seed),
            metrics=("evaluation/normalized_score",),
        ),
    ]


def _bars(figure: Figure, shown: Sequence[Aggregate]) -> None:
    axes = figure.subplots()
    for row, each in enumerate(shown):
        assert each.iqm is not None
        point, low, high = each.iqm
        color = CLONING_COLOR if each.method.startswith(CLONING) else INK
        axes.plot([low, high], [row, row], color=color, linewidth=7, alpha=0.35)
        axes.plot([point, point], [row - 0.22, row + 0.22], color=color, linewidth=2)
    names = [f"{each.method} ({each.runs})" for each in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set(xlabel="normalized score (in brackets: runs)", ylim=(len(shown) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)


def _profiles(figure: Figure, shown: Sequence[Aggregate], *, resamples: int, seed: int) -> None:
    axes = figure.subplots()
    every = np.concatenate([scores for each in shown for scores in each.scores.values()])
    margin = 0.02 * float(np.ptp(every)) or 1.0
    thresholds = np.linspace(every.min() - margin, every.max() + margin, THRESHOLDS)
    shades = colors([each.method for each in shown])
    for each in shown:
        strata = list(each.scores.values())
        found = profile_band(strata, thresholds, resamples=resamples, seed=seed)
        cloning = each.method.startswith(CLONING)
        color = CLONING_COLOR if cloning else shades[each.method]
        axes.plot(thresholds, found[0], color=color, linewidth=1.4, label=each.method)
        axes.fill_between(thresholds, found[1], found[2], color=color, alpha=0.12, linewidth=0)
    axes.set(xlabel="normalized score τ", ylabel="share of runs above τ", ylim=(-0.02, 1.02))
    axes.legend(loc="best")
