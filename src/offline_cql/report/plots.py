"""The plots of a report: curves over updates, the effect of alpha, estimates, scores over tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.ope.estimate import UNSEEN
from offline_cql.render.colors import AXIS, CHOSEN, HIGH_ZONE, LOW_ZONE
from offline_cql.render.svg import (
    BASELINE_STYLE,
    LINE_HEIGHT,
    WIDTH,
    Plot,
    add_legend,
    draw_line,
    draw_reference,
    legend_height,
    series_styles,
    set_log_scale,
    set_update_axis,
    set_wide_scale,
    wrap_label,
)
from offline_cql.report.aggregate import Aggregate
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Array, Run, simulated_returns, validation_rows
from offline_cql.report.statistics import band, profile_band, rank_correlation
from offline_cql.report.summary import Task

MAX_IN_LEGEND = 12
THRESHOLDS = 61
BAR_HEIGHT = 0.24  # inches
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
Value = Callable[[Run], float | None]
Bands = Callable[[Array], tuple[Array, Array, Array]]
Styles = dict[str, dict[str, Any]]


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


def _task_plot(task: Task, name: str, draw: Callable[[Any], None], **texts: Any) -> Plot:
    """Return a plot of one pair of axes, which `draw` fills, with the methods below it."""
    methods = list(task.by_method())
    listed = 1 < len(methods) <= MAX_IN_LEGEND

    def draw_figure(figure: Figure) -> None:
        draw(figure.subplots())
        if listed:
            add_legend(figure)

    size = (WIDTH, 2.9 + (legend_height(methods) if listed else 0.0))
    return Plot(stem=f"{task.stem}-{name}", draw=draw_figure, size=size, **texts)


def _styles(alphas: Mapping[str, float | None]) -> Styles:
    """Return color, marker and line style by method; methods without an alpha are gray."""
    with_alpha = [method for method, alpha in alphas.items() if alpha is not None]
    return {method: BASELINE_STYLE for method in alphas} | series_styles(with_alpha)


def method_styles(task: Task) -> Styles:
    """Return the style of each method of a task."""
    return _styles({method: runs[0].alpha for method, runs in task.by_method().items()})


def _mean_returns(run: Run) -> dict[int, float]:
    return {updates: float(returns.mean()) for updates, returns in simulated_returns(run).items()}


def _returns(task: Task, bands: Bands) -> Plot:
    def draw(axes: Any) -> None:
        draw_curves(axes, task, _mean_returns, bands)
        draw_behavior_return(axes, task.finished)
        axes.set_ylabel("return [reward]")

    return _task_plot(
        task,
        "returns",
        draw,
        title="Return in the simulator",
        caption="Mean over runs with its 95% bootstrap interval. Dashed: the return of the data. "
        "The recommendation does not use these returns.",
        metrics=("evaluation/return_mean",),
    )


def _curve(task: Task, column: str, share_limit: float, bands: Bands) -> Plot:
    title, label, caption = CURVES[column]

    def draw(axes: Any) -> None:
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

    name = column.partition("/")[2]
    metrics = (column, RETURN_TO_GO) if column == Q_LOGGED else (column,)
    return _task_plot(task, name, draw, title=title, caption=caption, metrics=metrics)


def _bounds(task: Task, bands: Bands) -> Plot:
    def lower_bounds(run: Run) -> dict[int, float]:
        return {updates: each.low for updates, each in run.offline.estimates.items()}

    def draw(axes: Any) -> None:
        draw_curves(axes, task, lower_bounds, bands)
        set_wide_scale(axes, np.concatenate([line.get_ydata() for line in axes.lines]))
        for selection in task.selections.values():
            if selection.behavior is not None:
                draw_reference(axes, selection.behavior.value)
            if selection.point is not None:
                position = ([selection.point.updates], [selection.point.low])
                axes.plot(*position, "*", color=CHOSEN, markersize=11, label="recommended")
        axes.set_ylabel("lower bound of the return")

    return _task_plot(
        task,
        "bounds",
        draw,
        title="Estimated return, lower bound",
        caption="Lower 95% bound of fitted Q evaluation (discounted), mean over runs. Dashed: the "
        "discounted return of the data. Star: the recommended point. Rejected points are shown. "
        f"Assumed: {UNSEEN}.",
    )


# --- The effect of alpha ------------------------------------------------------------------------


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

    def draw(axes: Any) -> None:
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

    rank = rank_correlation(np.array([each.value for each in estimates]), means)
    order = "all of one value" if rank is None else f"Spearman's rank correlation {rank:.2f}"
    return _task_plot(
        task,
        "estimates",
        draw,
        title="Estimates against simulated returns",
        caption=f"{len(policies)} policies, {order}, 95% intervals. The estimates are discounted "
        f"and the returns are not: compare the order, not the size. Assumed: {UNSEEN}.",
        description=f"{len(policies)} policies, {order}.",
        metrics=("evaluation/return_mean",),
    )


# --- Over tasks ----------------------------------------------------------------------------------


def score_plots(aggregates: Sequence[Aggregate], *, resamples: int, seed: int) -> list[Plot]:
    """Return the plots of methods with several runs, at most MAX_IN_LEGEND of them."""
    compared = [aggregate for aggregate in aggregates if aggregate.iqm is not None][:MAX_IN_LEGEND]
    if not compared:
        return []
    intervals = "95% intervals from a bootstrap within tasks."
    return [
        Plot(
            stem="iqm",
            title="Interquartile mean of normalized scores",
            caption=f"Mean of the middle half of a method's runs; {intervals}",
            size=(WIDTH, 0.9 + sum(map(_row_height, compared))),
            draw=lambda figure: _draw_intervals(figure, compared),
            metrics=("evaluation/normalized_score",),
        ),
        Plot(
            stem="profiles",
            title="Performance profiles",
            caption=f"Share of runs with a score above each threshold; {intervals}",
            size=(WIDTH, 2.9 + legend_height([each.method for each in compared])),
            draw=lambda figure: _draw_profiles(figure, compared, resamples=resamples, seed=seed),
            metrics=("evaluation/normalized_score",),
        ),
    ]


def _draw_intervals(figure: Figure, compared: Sequence[Aggregate]) -> None:
    """Draw a bar per method, with its label above it. The vertical axis is in inches."""
    axes = figure.subplots()
    styles = _styles({aggregate.method: aggregate.alpha for aggregate in compared})
    bottom = 0.0
    for aggregate in compared:
        assert aggregate.iqm is not None
        point, low, high = aggregate.iqm
        color = styles[aggregate.method]["color"]
        top, bottom = bottom, bottom + _row_height(aggregate)
        row = bottom - BAR_HEIGHT / 2
        axes.plot([low, high], [row, row], color=color, linewidth=7, alpha=0.35)
        axes.plot([point, point], [row - 0.07, row + 0.07], color=color, linewidth=2)
        across = axes.get_yaxis_transform()  # x from 0 to 1
        label = _interval_label(aggregate)
        axes.text(0.01, top + 0.03, label, transform=across, va="top", fontsize=8.5)
    axes.set(xlabel="normalized score (runs in parentheses)", ylim=(bottom, 0.0), yticks=[])
    axes.grid(axis="y", visible=False)


def _interval_label(aggregate: Aggregate) -> str:
    return wrap_label(f"{aggregate.method} ({aggregate.runs})")


def _row_height(aggregate: Aggregate) -> float:
    """Return the inches of a bar and its label."""
    return BAR_HEIGHT + LINE_HEIGHT * (_interval_label(aggregate).count("\n") + 1)


def _draw_profiles(
    figure: Figure, compared: Sequence[Aggregate], *, resamples: int, seed: int
) -> None:
    axes = figure.subplots()
    scores = np.concatenate(
        [values for aggregate in compared for values in aggregate.scores.values()]
    )
    margin = 0.02 * float(np.ptp(scores)) or 1.0
    thresholds = np.linspace(scores.min() - margin, scores.max() + margin, THRESHOLDS)
    styles = _styles({aggregate.method: aggregate.alpha for aggregate in compared})
    for aggregate in compared:
        strata = list(aggregate.scores.values())
        profile = profile_band(strata, thresholds, resamples=resamples, seed=seed)
        style = styles[aggregate.method] | {"markevery": 12}
        draw_line(axes, thresholds, profile, label=aggregate.method, **style)
    axes.set(xlabel="normalized score τ", ylabel="share of runs above τ", ylim=(-0.02, 1.02))
    add_legend(figure)
