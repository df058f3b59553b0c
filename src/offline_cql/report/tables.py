"""The tables of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from offline_cql.ope.actions import (
    ActionComparison,
    Comparison,
    ContinuousComparison,
    Region,
    Spread,
)
from offline_cql.ope.estimate import Estimate
from offline_cql.render.numbers import (
    MISSING,
    format_difference,
    format_interval,
    format_number,
    format_share,
    format_spread,
    format_values,
)
from offline_cql.render.table import Table
from offline_cql.report.aggregate import Aggregate
from offline_cql.report.model_selection import GridPoint, Selection
from offline_cql.report.run import NOT_SET, Array, Run, SkippedFolder, differences
from offline_cql.report.summary import Task

MAX_ACTIONS = 12
ESTIMATE = "fitted Q evaluation: discounted return [95% interval], in reward units"
DATA_RETURN = "mean discounted return of the logged episodes, in reward units"
SCORE = "0 is the reference for random actions, 100 the reference policy"


def chosen_actions(selection: Selection) -> list[Table]:
    """Return the tables of what the recommended policy does; none without a comparison."""
    if (chosen := selection.chosen) is None:
        return []
    offline = next(run.offline for run in selection.runs if run.name == chosen.run)
    comparison = offline.actions.get(chosen.updates)
    return [] if comparison is None else action_tables(comparison)


def action_tables(comparison: Comparison, states: str = "validation states") -> list[Table]:
    """Return the table of the actions, and that of the regions that differ most.

    states: what the states are called.
    """
    if isinstance(comparison, ContinuousComparison):
        return _continuous_tables(comparison, states)
    return _discrete_tables(comparison, states)


def _continuous_tables(comparison: ContinuousComparison, states: str) -> list[Table]:
    further = f", the first {MAX_ACTIONS}" if len(comparison.dimensions) > MAX_ACTIONS else ""
    rows = []
    for dimension in comparison.dimensions[:MAX_ACTIONS]:
        rows.append((dimension.name, "data", *_spread_cells(dimension.logged), ""))
        difference = format_number(dimension.difference)
        rows.append(("", "policy", *_spread_cells(dimension.chosen), difference))
    spreads = Table(
        title=f"Actions in {comparison.states:,} {states}{further}",
        columns=("action", "of", "mean ± std", "90% in", "difference"),
        rows=rows,
        align="llr",
        hints={
            "mean ± std": "standard deviation over states; the policy's actions are deterministic",
            "difference": "mean |policy - data|",
        },
    )
    regions = Table(
        title="Where policy and data differ",
        columns=("states", "share", "distance", "largest shift"),
        rows=[
            (
                " and ".join(region.conditions) or "all",
                format_share(region.share),
                format_number(region.distance),
                f"{region.dimension}: {format_difference(region.shift)}",
            )
            for region in comparison.regions
        ],
        align="lrrl",
        hints={"distance": "mean |policy - data|, in standard deviations of the data's actions"},
    )
    return [spreads, regions]


def _spread_cells(spread: Spread) -> tuple[str, str]:
    low, high = format_values(spread.low, spread.high, width=spread.std)
    return format_spread(spread.mean, spread.std), f"{low} … {high}"


def _discrete_tables(comparison: ActionComparison, states: str) -> list[Table]:
    actions = sorted(comparison.actions, key=lambda a: -abs(a.chosen - a.logged))
    further = f", the first {MAX_ACTIONS}" if len(actions) > MAX_ACTIONS else ""
    title = (
        f"Actions in {comparison.states:,} {states}{further}: "
        f"{format_share(comparison.agreement)} equal the logged ones"
    )
    shares = Table(
        title=title,
        columns=("action", "data", "policy"),
        rows=[
            (a.name, format_share(a.logged), format_share(a.chosen)) for a in actions[:MAX_ACTIONS]
        ],
    )
    regions = Table(
        title="Where policy and data differ",
        columns=("states", "share", "equal", "most frequent difference"),
        rows=[_region_row(region) for region in comparison.regions if region.logged is not None],
        align="lrrl",
    )
    return [shares, regions] if regions.rows else [shares]


def _region_row(region: Region) -> tuple[str, ...]:
    share = format_share(region.pair_share)
    return (
        " and ".join(region.conditions) or "all",
        format_share(region.share),
        format_share(region.agreement),
        f"{region.chosen} instead of {region.logged} ({share})",
    )


def recommendations(selections: Mapping[str, Selection]) -> Table:
    """Return one row per grid with its recommendation."""
    rows = []
    for name, selection in selections.items():
        chosen, behavior = selection.chosen, selection.behavior
        if chosen is None or behavior is None:
            rows.append((name, "no recommendation", *[MISSING] * 5))
            continue
        rows.append(
            (
                *(name, "ship" if selection.ship else "do not ship", f"{chosen.alpha:g}"),
                *(f"{chosen.updates:,}", str(chosen.seed)),
                estimate_text(chosen.estimate),
                *format_values(behavior.value, width=chosen.estimate.width),
            )
        )
    return Table(
        title="Recommendation",
        columns=("task", "verdict", "alpha", "updates", "seed", "estimate", "data"),
        rows=rows,
        align="llr",
        hints={"estimate": ESTIMATE, "data": DATA_RETURN},
    )


def grid_points(selection: Selection, name: str) -> Table:
    """Return one row per alpha and checkpoint of a grid with the values that the rule uses."""
    rows = [
        (
            *(f"{point.alpha:g}", f"{point.updates:,}", str(len(point.candidates))),
            *format_values(point.value, point.low, width=2 * (point.value - point.low)),
            _above_best(point),
            _result(selection, point),
        )
        for point in selection.points
    ]
    return Table(
        title=f"{name}: alphas and checkpoints",
        columns=("alpha", "updates", "runs", "estimate", "lower bound", "above data", "result"),
        rows=rows,
        align="rrrrrrl",
        hints={
            "estimate": "fitted Q evaluation: discounted return, mean over runs, in reward units",
            "lower bound": "lower end of the 95% interval, mean over runs, in reward units",
            "above data": "share of validation states valued above every return in the data; "
            "the largest of the runs",
        },
    )


def _above_best(point: GridPoint) -> str:
    shares = [each.above_best for each in point.candidates if each.above_best is not None]
    return format_share(max(shares)) if shares else MISSING


def _result(selection: Selection, point: GridPoint) -> str:
    if point == selection.point:
        return "recommended"
    if point.too_small:
        return f"too small: {point.too_small[0]}"
    if point.incomplete:
        return point.incomplete
    return "close to behavior cloning" if point.alpha in selection.too_large else ""


def scores(aggregates: Sequence[Aggregate]) -> Table:
    """Return the normalized scores of the last policies: a column per task, then over all tasks."""
    tasks = sorted({name for aggregate in aggregates for name in aggregate.scores})
    rows = []
    for aggregate in aggregates:
        cells = [_mean_and_std(aggregate.scores.get(name)) for name in tasks]
        rows.append((aggregate.method, *cells, _interval(aggregate.mean), _interval(aggregate.iqm)))
    return Table(
        title="Normalized scores of the last policies",
        columns=("method", *tasks, "mean [95%]", "IQM [95%]"),
        rows=rows,
        hints=dict.fromkeys(tasks, f"mean ± standard deviation over seeds; {SCORE}")
        | {"IQM [95%]": "interquartile mean: the mean of the middle half of the runs"},
    )


def _mean_and_std(values: Array | None) -> str:
    if values is None or not len(values):
        return MISSING
    if len(values) == 1:
        return format_number(values[0])
    return format_spread(values.mean(), values.std(ddof=1))


def _interval(interval: tuple[float, float, float] | None) -> str:
    return MISSING if interval is None else format_interval(*interval)


def settings_by_run(runs: Sequence[Run]) -> dict[str, str]:
    """Return by run name, as typed, the settings that not all runs of its task share."""
    return {
        name: " ".join(f"{key}={value}" for key, value in settings.items() if value != NOT_SET)
        for name, settings in differences(runs).items()
    }


def run_table(
    runs: Sequence[Run],
    names: Mapping[str, str],
    settings: Mapping[str, str],
    links: Mapping[str, str] | None = None,
    *,
    title: str = "Runs",
) -> Table:
    """Return one row per run. names, settings: the cells' text by run name."""
    rows = []
    for run in runs:
        estimate = run.offline.estimates.get(run.updates)
        rows.append(
            (
                *(names[run.name], settings[run.name], run.status),
                *(str(run.seed), f"{run.updates:,}", format_number(run.simulated.return_mean)),
                format_number(run.simulated.normalized_score),
                MISSING if estimate is None else estimate_text(estimate),
            )
        )
    return Table(
        title=title,
        columns=(
            *("run", "settings", "status", "seed", "updates", "return", "score"),
            "last estimate",
        ),
        rows=rows,
        align="lllr",
        hints={
            "return": "mean undiscounted return of the last evaluation, in reward units",
            "score": f"normalized score of the last evaluation; {SCORE}",
            "last estimate": ESTIMATE,
        },
        links=links or {},
    )


def method_table(task: Task) -> Table:
    """Return one row per method of a task, with means over its finished runs."""
    rows = []
    for method, runs in task.by_method().items():
        returns = [run.simulated.return_mean for run in runs]
        scores = [run.simulated.normalized_score for run in runs]
        bounds = [e.low for run in runs if (e := run.offline.estimates.get(run.updates))]
        means = (_mean_of_known(values) for values in (returns, scores, bounds))
        rows.append((method, str(len(runs)), *means))
    return Table(
        title=f"{task.name} · mean ± standard deviation over runs",
        columns=("method", "runs", "return", "score", "lower bound"),
        rows=rows,
        hints={"lower bound": "of the last estimate: lower end of its 95% interval"},
    )


def _mean_of_known(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation over the runs that have a value."""
    return _mean_and_std(np.array([value for value in values if value is not None]))


def estimate_text(estimate: Estimate) -> str:
    """Return value and interval."""
    return format_interval(estimate.value, estimate.low, estimate.high)


def skipped_folders(folders: Sequence[SkippedFolder]) -> Table:
    """Return one row per folder that cannot be reported, with the reason."""
    rows = [(each.name, each.reason) for each in folders]
    return Table(title="Left out", columns=("folder", "reason"), rows=rows, align="l")
