"""The plots of one task: curves over updates, the role of alpha, estimates. Draws, reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.report.drawing import (
    BAD,
    CLONING_COLOR,
    DULL,
    INK,
    SOFT,
    Plot,
    colors,
    line,
    wide_range,
)
from offline_cql.report.record import Array, Run, held_out_rows, true_returns
from offline_cql.report.selection import Selection
from offline_cql.report.statistics import band, rank_correlation

SIZE = (5.0, 3.1)
MOST_IN_LEGEND = 12
CURVES = {
    "held_out/td_error": (
        "Held-out TD error",
        "Where it turns up again, the critics fit the training episodes only.",
    ),
    "held_out/action_distance": (
        "Distance of the policy's actions from the data's",
        "Low is close to cloning; far above it the policy has left the data.",
    ),
    "held_out/q_logged": (
        "Calibration: Q of logged actions",
        "Dashed: the return that really followed. Far above it, values are overestimated.",
    ),
    "held_out/above_best_share": (
        "States valued above all returns in the data",
        "Dashed: the limit above which alpha counts as too small.",
    ),
}
Values = Callable[[Run], dict[int, float]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs of one task that finished, what sets each apart, and what was selected among them."""

    stem: str
    runs: Sequence[Run]
    methods: dict[str, str]
    selections: Sequence[Selection]
    share_limit: float
    resamples: int
    seed: int

    def by_method(self) -> dict[str, list[Run]]:
        """Cloning last, then by alpha."""
        order = sorted(self.runs, key=lambda r: (r.alpha is None, r.alpha or 0.0, r.name))
        found: dict[str, list[Run]] = {}
        for run in order:
            found.setdefault(self.methods[run.name], []).append(run)
        return found


def plots(task: Task) -> list[Plot]:
    """Those that the runs have figures for."""
    found = []
    if any(true_returns(run) for run in task.runs):
        found.append(_returns(task))
    if any(selection.pairs for selection in task.selections):
        found.append(_bounds(task))
    found += [_role(task, k) for k, each in enumerate(task.selections) if _alphas(task, each)]
    for column, (title, caption) in CURVES.items():
        if any(held_out_rows(run.offline, column) for run in task.runs):
            found.append(_curve(task, column, title, caption))
    if _known(task):
        found.append(_against_truth(task))
    return found


def curves(axes: Any, task: Task, values: Values, *, shade: bool = True) -> None:
    """A line for each method over updates, with its interval over runs."""
    groups = task.by_method()
    shades = colors(list(groups))
    for method, runs in groups.items():
        rows = [found for found in map(values, runs) if found]
        shared = sorted(set.intersection(*map(set, rows))) if rows else []
        if not shared:
            continue
        table = np.array([[row[k] for k in shared] for row in rows])
        found = band(table, resamples=task.resamples, seed=task.seed)
        cloning = runs[0].alpha is None
        style = {"color": CLONING_COLOR, "linestyle": ":"} if cloning else {"color": shades[method]}
        line(axes, np.array(shared, np.float64), found, label=method, **style)
    axes.set_xlabel("updates")
    if 1 < len(groups) <= MOST_IN_LEGEND:
        axes.legend(loc="best", ncols=2 if len(groups) > 4 else 1)


def _mean_returns(run: Run) -> dict[int, float]:
    return {updates: float(found.mean()) for updates, found in true_returns(run).items()}


def _returns(task: Task) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves(axes, task, _mean_returns)
        _behaviour(axes, task)
        axes.set_ylabel("return")

    return Plot(
        stem=f"{task.stem}-returns",
        title="Return in the simulator",
        caption="Mean over runs, 95 % bootstrap interval over them. Dashed: the data's policy. "
        "The selection does not see this.",
        size=SIZE,
        draw=draw,
        metrics=("evaluation/return_mean",),
    )


def _behaviour(axes: Any, task: Task) -> None:
    known = (run.simulated.behaviour_return for run in task.runs)
    value = next((each for each in known if each is not None), None)
    if value is not None:
        axes.axhline(value, color=SOFT, linewidth=1.2, linestyle="--")


def _curve(task: Task, column: str, title: str, caption: str) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves(axes, task, lambda run: held_out_rows(run.offline, column))
        values = np.concatenate([x.get_ydata() for x in axes.lines])
        if column == "held_out/td_error" and (values > 0).all():
            axes.set_yscale("log")
        else:
            wide_range(axes, values)
        if column == "held_out/q_logged":
            for run in task.runs[:1]:
                for value in list(held_out_rows(run.offline, "held_out/return_to_go").values())[:1]:
                    axes.axhline(value, color=SOFT, linewidth=1.2, linestyle="--")
        if column == "held_out/above_best_share":
            axes.axhline(task.share_limit, color=SOFT, linewidth=1.2, linestyle="--")
        axes.set_ylabel(column.partition("/")[2].replace("_", " "))

    shown = (column, "held_out/return_to_go") if column == "held_out/q_logged" else (column,)
    stem = f"{task.stem}-{column.partition('/')[2]}"
    return Plot(stem=stem, title=title, caption=caption, size=SIZE, draw=draw, metrics=shown)


def _bounds(task: Task) -> Plot:
    def lows(run: Run) -> dict[int, float]:
        return {updates: found.low for updates, found in run.offline.estimates.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves(axes, task, lows)
        wide_range(axes, np.concatenate([x.get_ydata() for x in axes.lines]))
        for selection in task.selections:
            if selection.behaviour is not None:
                axes.axhline(selection.behaviour.value, color=SOFT, linewidth=1.2, linestyle="--")
            if selection.pair is not None:
                place = ([selection.pair.updates], [selection.pair.low])
                axes.plot(*place, "*", color="#c0392b", markersize=11, label="chosen")
        axes.set_ylabel("lower bound of the estimate")

    return Plot(
        stem=f"{task.stem}-bounds",
        title="What the policies would earn, at least",
        caption="Lower bound of fitted Q evaluation (discounted), mean over runs. Dashed: what the "
        "data's policy earned. Star: the chosen pair, which is not among those struck out.",
        size=SIZE,
        draw=draw,
    )


# --- The role of alpha ---------------------------------------------------------------------------


def _alphas(task: Task, selection: Selection) -> list[float]:
    """Alphas that finished runs of a grid have; [] when there is nothing to compare."""
    names = {each.run for each in selection.candidates}
    found = sorted({r.alpha for r in task.runs if r.alpha is not None and r.name in names})
    return found if len(found) > 1 else []


def _role(task: Task, number: int) -> Plot:
    selection = task.selections[number]
    alphas = _alphas(task, selection)
    names = {each.run for each in selection.candidates}
    own = [run for run in task.runs if run.name in names]
    panels: list[tuple[str, dict[str, Callable[[Run], float | None]]]] = [
        ("return", {"return": lambda run: run.simulated.return_mean}),
        ("gap", {"gap": _last("held_out/gap")}),
        ("Q", {"of π(s)": _last("held_out/q_policy"), "of logged": _last("held_out/q_logged")}),
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
                _behaviour(axes, task)
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
        metrics=("held_out/gap", "held_out/q_policy", "held_out/q_logged"),
    )


def _last(column: str) -> Callable[[Run], float | None]:
    return lambda run: next(reversed(held_out_rows(run.offline, column).values()), None)


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


# --- Estimates against truth ---------------------------------------------------------------------


def _known(task: Task) -> list[tuple[Run, int, Array]]:
    """Policies with an estimate and simulated episodes at the same update."""
    return [
        (run, updates, returns)
        for run in task.runs
        for updates, returns in true_returns(run).items()
        if updates in run.offline.estimates
    ]


def _against_truth(task: Task) -> Plot:
    known = _known(task)
    truth = np.array([returns.mean() for _, _, returns in known])
    found = [run.offline.estimates[updates] for run, updates, _ in known]
    values = np.array([each.value for each in found])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shades = colors(list(task.by_method()))
        named = set()
        for (run, _, returns), each in zip(known, found, strict=True):
            method = task.methods[run.name]
            label = None if method in named else method
            named.add(method)
            error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
            axes.errorbar(
                returns.mean(),
                each.value,
                xerr=1.96 * error,
                yerr=[[each.value - each.low], [each.high - each.value]],
                fmt="o",
                markersize=4,
                linewidth=0.8,
                color=shades[method],
                label=label,
            )
        wide_range(axes, np.array([x for e in found for x in (e.low, e.value, e.high)]))
        axes.set(xlabel="return in the simulator", ylabel="estimate, discounted")
        if 1 < len(named) <= MOST_IN_LEGEND:
            axes.legend(loc="best")

    rank = rank_correlation(values, truth)
    said = "one value only" if rank is None else f"Spearman's rank correlation {rank:.2f}"
    return Plot(
        stem=f"{task.stem}-estimates",
        title="Estimates against the truth",
        caption=f"{len(known)} policies, {said}, 95 % intervals. The estimate is discounted, the "
        "return is not: compare the order, not the size.",
        size=(5.0, 3.4),
        draw=draw,
        metrics=("evaluation/return_mean",),
    )
