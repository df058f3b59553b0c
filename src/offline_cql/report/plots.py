"""The plots of one task, first its curves over updates. Draws, reads nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.svg import (
    CLONING_COLOR,
    SOFT,
    Plot,
    colors,
    line,
    logarithmic,
    wide_range,
)
from offline_cql.report.alpha_plot import compared_alphas, role
from offline_cql.report.run import Array, Run, true_returns, validation_rows
from offline_cql.report.statistics import band, rank_correlation
from offline_cql.report.task import Task, behavior_line

SIZE = (5.0, 3.1)
MOST_IN_LEGEND = 12
CURVES = {
    "validation/td_error": (
        "Validation TD error",
        "Where it turns up again, the critics fit the training episodes only.",
    ),
    "validation/action_distance": (
        "Distance of the policy's actions from the data's",
        "Low is close to cloning; far above it the policy has left the data.",
    ),
    "validation/q_logged": (
        "Calibration: Q of logged actions",
        "Dashed: the return that really followed. Far above it, values are overestimated.",
    ),
    "validation/above_best_share": (
        "States valued above all returns in the data",
        "Dashed: the limit above which alpha counts as too small.",
    ),
}
Values = Callable[[Run], dict[int, float]]


def plots(task: Task) -> list[Plot]:
    """Those that the runs have figures for."""
    found = []
    if any(true_returns(run) for run in task.runs):
        found.append(_returns(task))
    if any(selection.pairs for selection in task.selections):
        found.append(_bounds(task))
    found += [
        role(task, k) for k, each in enumerate(task.selections) if compared_alphas(task, each)
    ]
    for column, (title, caption) in CURVES.items():
        if any(validation_rows(run.offline, column) for run in task.runs):
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
        behavior_line(axes, task)
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


def _curve(task: Task, column: str, title: str, caption: str) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves(axes, task, lambda run: validation_rows(run.offline, column))
        values = np.concatenate([x.get_ydata() for x in axes.lines])
        if column == "validation/td_error" and (values > 0).all():
            logarithmic(axes)
        elif not column.endswith("share"):
            wide_range(axes, values)
        if column == "validation/q_logged":
            for run in task.runs[:1]:
                for value in list(validation_rows(run.offline, "validation/return_to_go").values())[
                    :1
                ]:
                    axes.axhline(value, color=SOFT, linewidth=1.2, linestyle="--")
        if column == "validation/above_best_share":
            axes.axhline(task.share_limit, color=SOFT, linewidth=1.2, linestyle="--")
        axes.set_ylabel(column.partition("/")[2].replace("_", " "))

    shown = (column, "validation/return_to_go") if column == "validation/q_logged" else (column,)
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
            if selection.behavior is not None:
                axes.axhline(selection.behavior.value, color=SOFT, linewidth=1.2, linestyle="--")
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
