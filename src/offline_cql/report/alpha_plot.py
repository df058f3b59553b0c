"""Return, gap and Q against alpha: the plot that shows when alpha is too small or too large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.colors import CHOSEN, HIGH_ZONE, LOW_ZONE
from offline_cql.render.svg import WIDTH, Plot, draw_reference, series_styles, set_symlog_scale
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run, validation_rows
from offline_cql.report.summary import Task

Value = Callable[[Run], float | None]


def compared_alphas(task: Task, selection: Selection) -> list[float]:
    """Return the alphas of a grid's finished runs; [] where there are fewer than two."""
    alphas = {run.alpha for run in _grid_runs(task, selection) if run.alpha is not None}
    return sorted(alphas) if len(alphas) > 1 else []


def _grid_runs(task: Task, selection: Selection) -> list[Run]:
    names = {each.run for each in selection.candidates}
    return [run for run in task.finished if run.name in names]


def alpha_plot(task: Task, selection: Selection, number: int) -> Plot:
    """Return the plot of one grid. number: of the grid in its task, from 0."""
    alphas, runs = compared_alphas(task, selection), _grid_runs(task, selection)
    panels: dict[str, dict[str, Value]] = {
        "return": {"return": lambda run: run.simulated.return_mean},
        "gap": {"gap": _last("validation/gap")},
        "Q": {
            "Q of the policy's actions": _last("validation/q_policy"),
            "Q of logged actions": _last("validation/q_logged"),
        },
    }
    panels = {
        label: lines
        for label, lines in panels.items()
        if any(value(run) is not None for value in lines.values() for run in runs)
    }

    def draw(figure: Figure) -> None:
        axes_list = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, lines) in zip(axes_list, panels.items(), strict=True):
            for (name, style), value in zip(
                series_styles(list(lines)).items(), lines.values(), strict=True
            ):
                _draw_against_alpha(axes, runs, alphas, value, label=name, **style)
            _draw_zones(axes, alphas, selection)
            set_symlog_scale(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
            axes.set_ylabel(f"{label} [reward]")
            if len(lines) > 1:
                axes.legend(loc="best")
            if label == "return":
                draw_behavior_return(axes, runs)
        axes_list[-1].set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes_list[-1].set_xlabel("alpha")
        axes_list[0].set_title(zone_legend(selection), fontsize=9)

    return Plot(
        stem=f"{task.stem}-alpha" + (f"-{number + 1}" if number else ""),
        title="The effect of alpha",
        caption="After the last update: a dot per run, the line is the mean. Where alpha is too "
        "small, Q exceeds what the data support; where it is too large, the policy clones the "
        "data.",
        description=zone_legend(selection),
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


def zone_legend(selection: Selection) -> str:
    """Return the meaning of the shaded alphas and of the dotted line."""
    parts = []
    if selection.too_small:
        parts.append("hatched: too small")
    if selection.too_large:
        parts.append("shaded: close to behavior cloning")
    if selection.pair is not None:
        parts.append("dotted: recommended")
    return " · ".join(parts)


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
            axes.axvspan(*span, facecolor=LOW_ZONE, edgecolor=CHOSEN, hatch="//", linewidth=0)
        elif alpha in selection.too_large:
            axes.axvspan(*span, color=HIGH_ZONE, linewidth=0)
        if selection.pair is not None and alpha == selection.pair.alpha:
            axes.axvline(position, color=CHOSEN, linewidth=1.2, linestyle=":")
    axes.set_xlim(-0.5, len(alphas) - 0.5)
