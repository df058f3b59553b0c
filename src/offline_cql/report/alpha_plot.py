"""Return, gap and Q against alpha: the plot that shows when alpha is too small or too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.colors import AXIS, CHOSEN, HIGH_ZONE, LOW_ZONE
from offline_cql.render.svg import (
    WIDTH,
    Plot,
    add_legend,
    draw_reference,
    series_styles,
    set_wide_scale,
)
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run, validation_rows
from offline_cql.report.summary import Task

Value = Callable[[Run], float | None]


def compared_alphas(task: Task, selection: Selection) -> list[float]:
    """Return the alphas of a grid's finished runs; [] where there are fewer than two."""
    alphas = {run.alpha for run in _grid_runs(task, selection) if run.alpha is not None}
    return sorted(alphas) if len(alphas) > 1 else []


def _grid_runs(task: Task, selection: Selection) -> list[Run]:
    names = {run.name for run in selection.runs}
    return [run for run in task.finished if run.name in names]


def alpha_plot(task: Task, selection: Selection, number: int) -> Plot:
    """Return the plot of one grid. number: of the grid in its task, from 0."""
    alphas, runs = compared_alphas(task, selection), _grid_runs(task, selection)
    panels: dict[str, dict[str, Value]] = {
        "return": {"return": lambda run: run.simulated.return_mean},
        "gap": {"gap": _last("validation/gap")},
        "Q": {
            "policy's actions": _last("validation/q_policy"),
            "logged actions": _last("validation/q_logged"),
        },
    }
    panels = {
        label: lines
        for label, lines in panels.items()
        if any(value(run) is not None for value in lines.values() for run in runs)
    }

    def draw(figure: Figure) -> None:
        axes_list = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (title, lines) in zip(axes_list, panels.items(), strict=True):
            for (name, style), value in zip(
                series_styles(list(lines)).items(), lines.values(), strict=True
            ):
                label = name if len(lines) > 1 else None
                _draw_against_alpha(axes, runs, alphas, value, label=label, **style)
            set_wide_scale(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
            _draw_zones(axes, alphas, selection)
            axes.set_ylabel(f"{title} [reward]")
            if title == "return":
                draw_behavior_return(axes, runs)
        axes_list[-1].set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes_list[-1].set_xlabel("alpha")
        if "Q" in panels:
            add_legend(figure)

    return Plot(
        stem=f"{task.stem}-alpha" + (f"-{number + 1}" if number else ""),
        title="The effect of alpha",
        caption=" ".join(
            ["After the last update: a dot per run, the line is the mean.", *_zones(selection)]
        ),
        description=" ".join(_zones(selection)),
        size=(WIDTH, 1.0 + 1.6 * len(panels)),
        draw=draw,
        metrics=("validation/gap", "validation/q_policy", "validation/q_logged"),
    )


def draw_behavior_return(axes: Any, runs: Sequence[Run]) -> None:
    """Draw the mean return of the data as a dashed line where it is known."""
    returns = (run.simulated.behavior_return for run in runs)
    value = next((value for value in returns if value is not None), None)
    if value is not None:
        draw_reference(axes, value)


def _zones(selection: Selection) -> list[str]:
    """Return the meaning of hatched and shaded alphas and of the dotted line."""
    small, large = (
        ", ".join(f"{alpha:g}" for alpha in alphas)
        for alphas in (selection.too_small, selection.too_large)
    )
    texts = []
    if small:
        texts.append(f"Hatched: alpha is too small, values exceed what the data support ({small}).")
    if large:
        texts.append(f"Shaded: the policy acts like behavior cloning ({large}).")
    if selection.point is not None:
        texts.append(f"Dotted line: the recommended alpha ({selection.point.alpha:g}).")
    return texts


def _last(column: str) -> Value:
    return lambda run: next(reversed(validation_rows(run.offline, column).values()), None)


def _draw_against_alpha(
    axes: Any, runs: Sequence[Run], alphas: Sequence[float], value: Value, **style: Any
) -> None:
    points = [
        (alphas.index(run.alpha), y)
        for run in runs
        if run.alpha is not None and (y := value(run)) is not None
    ]
    if not points:
        return
    x, y = np.array(points, np.float64).T
    positions = np.unique(x)
    axes.plot(x, y, style["marker"], color=style["color"], markersize=3, alpha=0.6)
    axes.plot(positions, [y[x == position].mean() for position in positions], **style)


def _draw_zones(axes: Any, alphas: Sequence[float], selection: Selection) -> None:
    for position, alpha in enumerate(alphas):
        span = (position - 0.5, position + 0.5)
        if alpha in selection.too_small:
            axes.axvspan(*span, color=LOW_ZONE, linewidth=0)
            axes.axvspan(*span, facecolor="none", edgecolor=AXIS, hatch="//", linewidth=0)
        elif alpha in selection.too_large:
            axes.axvspan(*span, color=HIGH_ZONE, linewidth=0)
        if selection.point is not None and alpha == selection.point.alpha:
            axes.axvline(position, color=CHOSEN, linewidth=1.2, linestyle=":", zorder=1.5)
    axes.set_xlim(-0.5, len(alphas) - 0.5)
