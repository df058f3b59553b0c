"""The plots over all tasks: interquartile means and performance profiles of normalized scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.svg import BASELINE_STYLE, WIDTH, Plot, add_legend, draw_line, series_styles
from offline_cql.report.aggregate import Aggregate
from offline_cql.report.statistics import profile_band

THRESHOLDS = 61
MAX_METHODS = 12


def score_plots(aggregates: Sequence[Aggregate], *, resamples: int, seed: int) -> list[Plot]:
    """Return the plots of methods with several runs, at most MAX_METHODS of them."""
    compared = [aggregate for aggregate in aggregates if aggregate.iqm is not None][:MAX_METHODS]
    if not compared:
        return []
    intervals = "95% intervals from a bootstrap within tasks."
    return [
        Plot(
            stem="iqm",
            title="Interquartile mean of normalized scores",
            caption=f"Mean of the middle half of a method's runs; {intervals}",
            size=(WIDTH, 1.1 + 0.3 * len(compared)),
            draw=lambda figure: _draw_intervals(figure, compared),
            metrics=("evaluation/normalized_score",),
        ),
        Plot(
            stem="profiles",
            title="Performance profiles",
            caption=f"Share of runs with a score above each threshold; {intervals}",
            size=(WIDTH, 3.3),
            draw=lambda figure: _draw_profiles(figure, compared, resamples=resamples, seed=seed),
            metrics=("evaluation/normalized_score",),
        ),
    ]


def _styles(compared: Sequence[Aggregate]) -> dict[str, dict[str, Any]]:
    with_alpha = [aggregate.method for aggregate in compared if aggregate.alpha is not None]
    return {aggregate.method: BASELINE_STYLE for aggregate in compared} | series_styles(with_alpha)


def _draw_intervals(figure: Figure, compared: Sequence[Aggregate]) -> None:
    axes = figure.subplots()
    styles = _styles(compared)
    for row, aggregate in enumerate(compared):
        assert aggregate.iqm is not None
        point, low, high = aggregate.iqm
        color = styles[aggregate.method]["color"]
        axes.plot([low, high], [row, row], color=color, linewidth=7, alpha=0.35)
        axes.plot([point, point], [row - 0.22, row + 0.22], color=color, linewidth=2)
    names = [f"{aggregate.method} ({aggregate.runs})" for aggregate in compared]
    axes.set_yticks(range(len(compared)), names)
    axes.set(xlabel="normalized score (runs in parentheses)", ylim=(len(compared) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)


def _draw_profiles(
    figure: Figure, compared: Sequence[Aggregate], *, resamples: int, seed: int
) -> None:
    axes = figure.subplots()
    scores = np.concatenate(
        [values for aggregate in compared for values in aggregate.scores.values()]
    )
    margin = 0.02 * float(np.ptp(scores)) or 1.0
    thresholds = np.linspace(scores.min() - margin, scores.max() + margin, THRESHOLDS)
    styles = _styles(compared)
    for aggregate in compared:
        strata = list(aggregate.scores.values())
        profile = profile_band(strata, thresholds, resamples=resamples, seed=seed)
        style = styles[aggregate.method] | {"markevery": 12}
        draw_line(axes, thresholds, profile, label=aggregate.method, **style)
    axes.set(xlabel="normalized score τ", ylabel="share of runs above τ", ylim=(-0.02, 1.02))
    add_legend(figure)
