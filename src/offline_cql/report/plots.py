"""The plots of one task: curves over updates, and estimates against simulated returns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.render.colors import CHOSEN
from offline_cql.render.svg import (
    BASELINE_STYLE,
    WIDTH,
    Plot,
    add_legend,
    draw_line,
    draw_reference,
    series_styles,
    set_log_scale,
    set_update_axis,
    set_wide_scale,
)
from offline_cql.report.alpha_plot import alpha_plot, compared_alphas, draw_behavior_return
from offline_cql.report.run import Array, Run, simulated_returns, validation_rows
from offline_cql.report.statistics import band, rank_correlation
from offline_cql.report.summary import Task

LEGEND_COLUMNS = 3
MAX_IN_LEGEND = 12
TD_ERROR, Q_LOGGED = "validation/td_error", "validation/q_logged"
RETURN_TO_GO, SHARE = "validation/return_to_go", "validation/above_best_share"
# By column of validation.csv: title, label of the vertical axis, caption.
CURVES = {
    TD_ERROR: (
        "Validation TD error",
        "TD error [reward²]",
        "An increase means that the critics have begun to overfit the training episodes.",
    ),
    "validation/action_distance": (
        "Distance between the policy's actions and the logged ones",
        "action distance",
        "Low values are close to behavior cloning; at high ones the policy has left the data.",
    ),
    Q_LOGGED: (
        "Calibration: Q of logged actions",
        "Q [reward]",
        "Dashed: the return that followed. Values far above it are overestimates.",
    ),
    SHARE: (
        "States valued above every return in the data",
        "share of states",
        "Dashed: the limit above which alpha counts as too small.",
    ),
}
Values = Callable[[Run], dict[int, float]]
Bands = Callable[[Array], tuple[Array, Array, Array]]


def task_plots(task: Task, *, share_limit: float, resamples: int, seed: int) -> list[Plot]:
    """Return the plots for which the finished runs have data."""
    bands = partial(band, resamples=resamples, seed=seed)
    plots = []
    if any(simulated_returns(run) for run in task.finished):
        plots.append(_returns(task, bands))
    if any(selection.points for selection in task.selections.values()):
        plots.append(_bounds(task, bands))
    for number, selection in enumerate(task.selections.values()):
        if compared_alphas(task, selection):
            plots.append(alpha_plot(task, selection, number))
    plots += [
        _curve(task, column, share_limit, bands)
        for column in CURVES
        if any(validation_rows(run.offline, column) for run in task.finished)
    ]
    if _policies_with_both(task):
        plots.append(_against_returns(task))
    return plots


def draw_curves(axes: Any, task: Task, values: Values, bands: Bands) -> None:
    """Draw a line over updates per method, with its interval over runs."""
    groups = task.by_method()
    styles, evaluated = method_styles(task), set[int]()
    for method, runs in groups.items():
        rows = [row for row in map(values, runs) if row]
        shared = sorted(set.intersection(*map(set, rows))) if rows else []
        if not shared:
            continue
        evaluated.update(shared)
        table = np.array([[row[updates] for updates in shared] for row in rows])
        draw_line(axes, np.array(shared, np.float64), bands(table), label=method, **styles[method])
    set_update_axis(axes, evaluated)


def _legend_rows(task: Task) -> int:
    methods = len(task.by_method())
    return -(-methods // LEGEND_COLUMNS) if 1 < methods <= MAX_IN_LEGEND else 0


def _size(task: Task) -> tuple[float, float]:
    return WIDTH, 2.9 + 0.18 * _legend_rows(task)


def _add_legend(figure: Figure, task: Task) -> None:
    if _legend_rows(task):
        add_legend(figure, columns=LEGEND_COLUMNS)


def method_styles(task: Task) -> dict[str, dict[str, Any]]:
    """Return color, marker and line style by method; methods without an alpha are gray."""
    groups = task.by_method()
    with_alpha = [name for name, runs in groups.items() if runs[0].alpha is not None]
    return {name: BASELINE_STYLE for name in groups} | series_styles(with_alpha)


def _mean_returns(run: Run) -> dict[int, float]:
    return {updates: float(returns.mean()) for updates, returns in simulated_returns(run).items()}


def _returns(task: Task, bands: Bands) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_curves(axes, task, _mean_returns, bands)
        draw_behavior_return(axes, task.finished)
        axes.set_ylabel("return [reward]")
        _add_legend(figure, task)

    return Plot(
        stem=f"{task.stem}-returns",
        title="Return in the simulator",
        caption="Mean over runs with its 95% bootstrap interval. Dashed: the return of the data. "
        "The recommendation does not use these returns.",
        size=_size(task),
        draw=draw,
        metrics=("evaluation/return_mean",),
    )


def _curve(task: Task, column: str, share_limit: float, bands: Bands) -> Plot:
    title, label, caption = CURVES[column]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_curves(axes, task, lambda run: validation_rows(run.offline, column), bands)
        values = np.concatenate([line.get_ydata() for line in axes.lines])
        if column == TD_ERROR and (values > 0).all():
            set_log_scale(axes)
        elif column != SHARE:
            set_wide_scale(axes, values)
        if column == Q_LOGGED:
            for value in list(validation_rows(task.finished[0].offline, RETURN_TO_GO).values())[:1]:
                draw_reference(axes, value)
        if column == SHARE:
            draw_reference(axes, share_limit)
        axes.set_ylabel(label)
        _add_legend(figure, task)

    name = column.partition("/")[2]
    metrics = (column, RETURN_TO_GO) if column == Q_LOGGED else (column,)
    return Plot(
        stem=f"{task.stem}-{name}",
        title=title,
        caption=caption,
        size=_size(task),
        draw=draw,
        metrics=metrics,
    )


def _bounds(task: Task, bands: Bands) -> Plot:
    def lower_bounds(run: Run) -> dict[int, float]:
        return {updates: each.low for updates, each in run.offline.estimates.items()}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_curves(axes, task, lower_bounds, bands)
        set_wide_scale(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
        for selection in task.selections.values():
            if selection.behavior is not None:
                draw_reference(axes, selection.behavior.value)
            if selection.point is not None:
                position = ([selection.point.updates], [selection.point.low])
                axes.plot(*position, "*", color=CHOSEN, markersize=11, label="recommended")
        axes.set_ylabel("lower bound of the return")
        _add_legend(figure, task)

    return Plot(
        stem=f"{task.stem}-bounds",
        title="Estimated return, lower bound",
        caption="Lower 95% bound of fitted Q evaluation (discounted), mean over runs. Dashed: the "
        "discounted return of the data. Star: the recommended point. Rejected points are shown.",
        size=_size(task),
        draw=draw,
    )


# --- Estimates against simulated returns ---------------------------------------------------------


def _policies_with_both(task: Task) -> list[tuple[Run, int, Array]]:
    """Return run, updates and returns of policies with an estimate and simulated episodes."""
    return [
        (run, updates, returns)
        for run in task.finished
        for updates, returns in simulated_returns(run).items()
        if updates in run.offline.estimates
    ]


def _against_returns(task: Task) -> Plot:
    policies = _policies_with_both(task)
    estimates = [run.offline.estimates[updates] for run, updates, _ in policies]
    means = np.array([returns.mean() for _, _, returns in policies])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        styles, labeled = method_styles(task), set()
        for (run, _, returns), estimate in zip(policies, estimates, strict=True):
            method = task.methods[run.name]
            error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
            axes.errorbar(
                returns.mean(),
                estimate.value,
                xerr=1.96 * error,
                yerr=[[estimate.value - estimate.low], [estimate.high - estimate.value]],
                linewidth=0.8,
                label=None if method in labeled else method,
                **styles[method] | {"linestyle": "none"},
            )
            labeled.add(method)
        set_wide_scale(axes, np.array([x for e in estimates for x in (e.low, e.value, e.high)]))
        axes.set(xlabel="return in the simulator", ylabel="estimate (discounted)")
        _add_legend(figure, task)

    rank = rank_correlation(np.array([each.value for each in estimates]), means)
    order = "all of one value" if rank is None else f"Spearman's rank correlation {rank:.2f}"
    return Plot(
        stem=f"{task.stem}-estimates",
        title="Estimates against simulated returns",
        caption=f"{len(policies)} policies, {order}, 95% intervals. The estimates are discounted "
        "and the returns are not: compare the order, not the size.",
        description=f"{len(policies)} policies, {order}.",
        size=_size(task),
        draw=draw,
        metrics=("evaluation/return_mean",),
    )
