"""The plots of an audit as SVG elements for an HTML page.

Text stays text, so that the page's font is used and the files are small.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from offline_cql.audit.columns import ColumnStatistics
from offline_cql.audit.distribution import Distribution
from offline_cql.audit.statistics import DatasetStatistics

MAX_DIMENSIONS = 12
MAX_COLUMNS = 40
FILL, LINE, SOFT, GRID = "#4c78a8", "#2b4a6b", "#b9cde3", "#e3e6ea"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a929b",
    "axes.labelcolor": "#444b54",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": "#444b54",
    "ytick.color": "#444b54",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
PLAIN: dict[str, Any] = {"parse_math": False}  # a name that contains $ is not a formula
Draw = Callable[[Figure], None]


def draw_plots(statistics: DatasetStatistics) -> dict[str, str]:
    """Return SVG text by title, in reading order."""
    episodes, rewards = statistics.episodes, statistics.rewards
    drawn: dict[str, tuple[tuple[float, float], Draw]] = {
        "Returns of the episodes": ((5, 2.8), _histogram(episodes.undiscounted, "return")),
        "Lengths of the episodes": ((5, 2.8), _histogram(episodes.length, "steps")),
        "Returns in the order of the log": ((5, 2.8), _returns_over_log(statistics)),
        "Rewards of the steps": ((5, 2.8), _histogram(rewards.step, "reward", log=True)),
    }
    if statistics.identity.discrete:
        rows = min(len(statistics.actions.discrete_actions), MAX_COLUMNS)
        drawn["Actions taken"] = ((5, 0.8 + 0.26 * max(rows, 6)), _discrete_actions(statistics))
    else:
        rows = -(-min(len(statistics.actions.dimensions), MAX_DIMENSIONS) // 3)
        drawn["Actions, from bound to bound"] = ((5, 0.9 + 1.25 * rows), _dimensions(statistics))
    if columns := _varying_columns(statistics):
        height = 0.8 + 0.24 * max(len(columns), 6)
        drawn["Observation columns, in standard deviations"] = ((5, height), _boxes(columns))
    if statistics.neighbors is not None:
        drawn["Spread of actions among similar states"] = ((5, 2.8), _action_spread(statistics))
    return {title: _svg(size, draw) for title, (size, draw) in drawn.items()}


def _svg(size: tuple[float, float], draw: Draw) -> str:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Inside HTML an SVG needs no name spaces, which look like addresses, and no size of its own.
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'<svg ([^>]*?)(?:width|height)="[^"]*" ?', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)(?:width|height)="[^"]*" ?', r"<svg \1", text, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    return re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)


def _histogram(distribution: Distribution, label: str, *, log: bool = False) -> Draw:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.stairs(distribution.counts, distribution.edges, fill=True, color=FILL)
        filled = [count for count in distribution.counts if count]
        if log and max(filled) > 100 * min(filled):
            axes.set_yscale("log")
        axes.axvline(distribution.median, color=LINE, linewidth=1.2, linestyle="--")
        axes.set(xlabel=f"{label} (dashed: median)", ylabel="steps" if log else "episodes")

    return draw


def _returns_over_log(statistics: DatasetStatistics) -> Draw:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        first, mean, low, high = np.array(statistics.episodes.over_log).T
        if len(first) < statistics.episodes.count:
            axes.fill_between(first, low, high, color=SOFT, linewidth=0, label="min to max")
            axes.plot(first, mean, color=LINE, linewidth=1.2, label="mean")
            axes.legend(frameon=False, fontsize=8, loc="upper left")
        else:
            axes.plot(first, mean, ".", color=FILL, markersize=4)
        axes.set(xlabel="episode", ylabel="return")

    return draw


def _discrete_actions(statistics: DatasetStatistics) -> Draw:
    def draw(figure: Figure) -> None:
        actions = statistics.actions.discrete_actions[:MAX_COLUMNS]
        axes = figure.subplots()
        axes.barh(range(len(actions)), [c.count for c in actions], color=FILL)
        axes.set_yticks(range(len(actions)), [c.name[:16] for c in actions], **PLAIN)
        axes.set(xlabel="steps", ylabel="action", ylim=(max(len(actions), 6) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)

    return draw


def _dimensions(statistics: DatasetStatistics) -> Draw:
    def draw(figure: Figure) -> None:
        dimensions = statistics.actions.dimensions[:MAX_DIMENSIONS]
        rows, width = -(-len(dimensions) // 3), min(3, len(dimensions))
        grid = np.atleast_1d(figure.subplots(rows, width, sharex=True, squeeze=False).ravel())
        for axes, dimension in zip(grid, dimensions, strict=False):
            edges = np.linspace(-1, 1, len(dimension.counts) + 1)
            axes.stairs(dimension.counts, edges, fill=True, color=FILL)
            axes.set_title(f"action {dimension.name}"[:18], fontsize=9, **PLAIN)
            axes.set_yticks([])
            axes.set_xticks([-1, 0, 1])
        for axes in grid[len(dimensions) :]:
            axes.set_visible(False)

    return draw


def _varying_columns(statistics: DatasetStatistics) -> list[ColumnStatistics]:
    columns = statistics.observations.columns
    return [column for column in columns if not column.constant][:MAX_COLUMNS]


def _boxes(columns: list[ColumnStatistics]) -> Draw:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, column in enumerate(columns):
            low, left, middle, right, high = (np.array(column.quantiles) - column.mean) / column.std
            axes.plot([low, high], [row, row], color=LINE, linewidth=1)
            axes.barh(row, right - left, left=left, height=0.6, color=SOFT, edgecolor=LINE)
            axes.plot([middle, middle], [row - 0.3, row + 0.3], color=LINE, linewidth=2)
        axes.set_yticks(range(len(columns)), [c.name[:18] for c in columns], fontsize=8, **PLAIN)
        axes.set(xlabel="box: 25 to 75 %, line: 5 to 95 %, of a sample")
        axes.set(ylim=(max(len(columns), 6) - 0.5, -0.7))
        axes.grid(axis="y", visible=False)

    return draw


def _action_spread(statistics: DatasetStatistics) -> Draw:
    def draw(figure: Figure) -> None:
        neighbors = statistics.neighbors
        assert neighbors is not None
        axes = figure.subplots()
        axes.stairs(neighbors.counts, neighbors.edges, fill=True, color=FILL)
        axes.axvline(neighbors.action_spread, color=LINE, linewidth=1.2, linestyle="--")
        axes.set(
            xlabel="0: the state decides the action; 1: it does not matter (dashed: mean)",
            ylabel="states",
        )

    return draw
