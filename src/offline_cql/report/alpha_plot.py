"""What alpha did to one task's runs: return, gap and Q against alpha. Draws, reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.svg import BAD, DULL, INK, Plot, wide_range
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run, validation_rows
from offline_cql.report.task import Task, behavior_line


def compared_alphas(task: Task, selection: Selection) -> list[float]:
    """Alphas that finished runs of a grid have; [] when there is nothing to compare."""
    names = {each.run for each in selection.candidates}
    found = sorted({r.alpha for r in task.runs if r.alpha is not None and r.name in names})
    return found if len(found) > 1 else []


def role(task: Task, number: int) -> Plot:
    selection = task.selections[number]
    alphas = compared_alphas(task, selection)
    names = {each.run for each in selection.candidates}
    own = [run for run in task.runs if run.name in names]
    panels: list[tuple[str, dict[str, Callable[[Run], float | None]]]] = [
        ("return", {"return": lambda run: run.simulated.return_mean}),
        ("gap", {"gap": _last("validation/gap")}),
        ("Q", {"of π(s)": _last("validation/q_policy"), "of logged": _last("validation/q_logged")}),
    ]
    shown = [p for p in panels if any(f(run) is not None for f in p[1].values() for run in own)]

    def draw(figure: Figure) -> None:
        axes_of = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, lines) in zip(axes_of, shown, strict=True):
            for color, (name, value) in zip((INK, "#d98200"), lines.items(), strict=False):
                _against_alpha(axes, own, alphas, value, color=color, label=name)
            _zones(axes, alphas, selection)
            wide_range(axes, np.concatenate([x.get_ydata() for x in axes.lines]))
            axes.set_ylabel(label)
            if len(lines) > 1:
                axes.legend(loc="best")
            if label == "return":
                behavior_line(axes, task)
        axes_of[-1].set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes_of[-1].set_xlabel("alpha")
        axes_of[0].set_title(_zone_words(selection), fontsize=9, color="#444b54")

    return Plot(
        stem=f"{task.stem}-alpha" + (f"-{number + 1}" if number else ""),
        title="The role of alpha",
        caption="After the last update; a dot a run, the line their mean. Red: too small, values "
        "that nothing in the data supports. Blue: too large, the policy clones the data.",
        size=(5.0, 1.0 + 1.6 * len(shown)),
        draw=draw,
        metrics=("validation/gap", "validation/q_policy", "validation/q_logged"),
    )


def _last(column: str) -> Callable[[Run], float | None]:
    return lambda run: next(reversed(validation_rows(run.offline, column).values()), None)


def _against_alpha(
    axes: Any,
    runs: Sequence[Run],
    alphas: Sequence[float],
    value: Callable[[Run], float | None],
    **style: Any,
) -> None:
    points = [
        (alphas.index(run.alpha), found)
        for run in runs
        if run.alpha is not None and (found := value(run)) is not None
    ]
    if not points:
        return
    x, y = np.array(points, np.float64).T
    places = np.unique(x)
    axes.plot(x, y, ".", color=style["color"], markersize=5, alpha=0.6)
    axes.plot(places, [y[x == place].mean() for place in places], linewidth=1.4, **style)


def _zones(axes: Any, alphas: Sequence[float], selection: Selection) -> None:
    for place, alpha in enumerate(alphas):
        if alpha in selection.too_small:
            axes.axvspan(place - 0.5, place + 0.5, color=BAD, linewidth=0)
        elif alpha in selection.too_large:
            axes.axvspan(place - 0.5, place + 0.5, color=DULL, linewidth=0)
        if selection.pair is not None and alpha == selection.pair.alpha:
            axes.axvline(place, color="#c0392b", linewidth=1.0, linestyle=":")
    axes.set_xlim(-0.5, len(alphas) - 0.5)


def _zone_words(selection: Selection) -> str:
    parts = []
    if selection.too_small:
        parts.append("red: too small")
    if selection.too_large:
        parts.append("blue: close to cloning")
    if selection.pair is not None:
        parts.append("dotted: chosen")
    return " · ".join(parts)
