"""The plots of an audit: distributions of returns, lengths, rewards, observations and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from offline_cql.audit.columns import ColumnStatistics
from offline_cql.audit.distribution import Distribution
from offline_cql.audit.neighbors import NeighborStatistics
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.colors import FILL, INK, SOFT_FILL
from offline_cql.render.numbers import format_number, format_share, format_spread, format_values
from offline_cql.render.svg import WIDTH, Plot, set_log_scale

MAX_DIMENSIONS = 12
MAX_ROWS = 40  # of plots with one row per column or per action
LOG_RATIO = 100  # largest over smallest bin: more needs a logarithmic axis


def audit_plots(statistics: DatasetStatistics) -> list[Plot]:
    """Return the plots that the data have values for, in reading order."""
    episodes, rewards = statistics.episodes, statistics.rewards
    discrete = statistics.identity.discrete
    plots = [
        histogram("returns", "Returns of the episodes", episodes.undiscounted, "return [reward]"),
        histogram("lengths", "Lengths of the episodes", episodes.length, "length [steps]"),
        returns_over_log(statistics),
        histogram("rewards", "Rewards of the steps", rewards.step, "reward", of="steps"),
        discrete_actions(statistics) if discrete else action_dimensions(statistics),
    ]
    columns = [column for column in statistics.observations.columns if not column.constant]
    if columns:
        plots.append(observation_columns(columns[:MAX_ROWS]))
    if statistics.neighbors is not None:
        plots.append(action_spread(statistics.neighbors))
    return plots


def histogram(
    stem: str, title: str, values: Distribution, label: str, *, of: str = "episodes"
) -> Plot:
    """Return the histogram of a distribution of episodes or steps, with its median."""
    smallest, low, median, high, largest = format_values(
        *(values.min, values.q05, values.median, values.q95, values.max), width=values.std
    )
    return Plot(
        stem=stem,
        title=title,
        caption="Dashed: the median.",
        draw=lambda figure: _draw_histogram(figure, values, values.median, xlabel=label, ylabel=of),
        description=f"Histogram. Minimum {smallest}, 5% quantile {low}, median {median}, "
        f"95% quantile {high}, maximum {largest}.",
    )


def action_spread(neighbors: NeighborStatistics) -> Plot:
    """Return the histogram of states by the spread of actions among their neighbors."""
    mean, label = neighbors.action_spread, "spread of actions, relative to all data"
    return Plot(
        stem="spread",
        title="Spread of actions among similar states",
        caption="0: the state decides the action; 1: it does not matter. Dashed: the mean.",
        draw=lambda figure: _draw_histogram(figure, neighbors, mean, xlabel=label, ylabel="states"),
        description=f"Histogram. Mean {format_number(mean)}.",
    )


def _draw_histogram(
    figure: Figure, values: Distribution | NeighborStatistics, center: float, **labels: str
) -> None:
    """Draw counts between edges, and a dashed vertical line that the caption explains."""
    axes = figure.subplots()
    axes.stairs(values.counts, values.edges, fill=True, color=FILL)
    filled = [count for count in values.counts if count]
    if labels["ylabel"] == "steps" and max(filled) > LOG_RATIO * min(filled):
        set_log_scale(axes)
    axes.axvline(center, color=INK, linewidth=1.2, linestyle="--")
    axes.set(**labels)


def returns_over_log(statistics: DatasetStatistics) -> Plot:
    """Return the plot of returns against the number of the episode."""
    first, mean, low, high = np.array(statistics.episodes.over_log).T
    grouped = len(first) < statistics.episodes.count

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if grouped:
            axes.fill_between(first, low, high, color=SOFT_FILL, linewidth=0)
            axes.plot(first, mean, color=INK, label="mean return")
        else:
            axes.plot(first, mean, ".", color=FILL, label="return")
        axes.set(xlabel="episode, in the order of the log", ylabel="return [reward]")

    caption = "A trend or a step means that the behavior policy changed while the data were logged."
    if grouped:
        caption += " Line and band: mean, minimum and maximum of consecutive episodes."
    return Plot(
        stem="returns-over-log", title="Returns in the order of the log", caption=caption, draw=draw
    )


def discrete_actions(statistics: DatasetStatistics) -> Plot:
    """Return the bar plot of how often each action was taken."""
    actions = statistics.actions.discrete_actions
    shown = actions[:MAX_ROWS]

    def draw(figure: Figure) -> None:
        axes = _row_axes(figure, [action.name[:16] for action in shown], top=-0.5)
        axes.barh(range(len(shown)), [action.count for action in shown], color=FILL)
        axes.set(xlabel="steps", ylabel="action")

    caption = "An action that never occurs is never learned."
    if len(shown) < len(actions):
        caption += f" The first {len(shown)} of {len(actions)}."
    counts = ", ".join(f"{action.name}: {action.count:,}" for action in shown)
    return Plot(
        stem="actions",
        title="Actions taken",
        caption=caption,
        draw=draw,
        description=f"Bar plot of steps per action. {counts}.",
        size=(WIDTH, 0.8 + 0.26 * max(len(shown), 6)),
    )


def action_dimensions(statistics: DatasetStatistics) -> Plot:
    """Return a histogram per action dimension, scaled to [-1, 1] between its bounds."""
    dimensions = statistics.actions.dimensions
    shown = dimensions[:MAX_DIMENSIONS]
    rows, width = -(-len(shown) // 3), min(3, len(shown))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, width, sharex=True, squeeze=False).ravel()
        for axes, dimension in zip(grid, shown, strict=False):
            edges = np.linspace(-1, 1, len(dimension.counts) + 1)
            axes.stairs(dimension.counts, edges, fill=True, color=FILL)
            axes.set_title(f"action {dimension.name}"[:18], fontsize=9)
            axes.set(yticks=[], xticks=[-1, 0, 1])
        for axes in grid[len(shown) :]:
            axes.set_visible(False)

    caption = "Steps per interval, from the lower (-1) to the upper action bound (1)."
    if len(shown) < len(dimensions):
        caption += f" The first {len(shown)} of {len(dimensions)} dimensions."
    numbers = "; ".join(
        f"action {d.name}: mean ± standard deviation {format_spread(d.mean, d.std)}, "
        f"{format_share(d.at_bounds)} at the bounds"
        for d in shown
    )
    return Plot(
        stem="actions",
        title="Actions, from bound to bound",
        caption=caption,
        draw=draw,
        description=f"Histograms. {numbers}.",
        size=(WIDTH, 0.9 + 1.25 * rows),
    )


def observation_columns(columns: Sequence[ColumnStatistics]) -> Plot:
    """Return a box plot per observation column, in standard deviations from its mean."""

    def draw(figure: Figure) -> None:
        axes = _row_axes(figure, [column.name[:18] for column in columns], top=-0.7, fontsize=8)
        for row, column in enumerate(columns):
            quantiles = (np.array(column.quantiles) - column.mean) / column.std
            q05, q25, median, q75, q95 = quantiles
            axes.plot([q05, q95], [row, row], color=INK, linewidth=1)
            axes.barh(row, q75 - q25, left=q25, height=0.6, color=SOFT_FILL, edgecolor=INK)
            axes.plot([median, median], [row - 0.3, row + 0.3], color=INK, linewidth=2)
        axes.set(xlabel="standard deviations from the mean")

    return Plot(
        stem="columns",
        title="Observation columns, in standard deviations",
        caption="Box: 25 to 75%, line: 5 to 95%, of a sample. The table below has the numbers.",
        draw=draw,
        size=(WIDTH, 0.8 + 0.24 * max(len(columns), 6)),
    )


def _row_axes(figure: Figure, names: Sequence[str], *, top: float, **style: Any) -> Any:
    """Return axes with one named row per value, from top to bottom; space for at least six."""
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names, **style)
    axes.set(ylim=(max(len(names), 6) - 0.5, top))
    axes.grid(axis="y", visible=False)
    return axes
