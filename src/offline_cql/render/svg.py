"""Plots as SVG inside a page and as PNG files beside it.

Text remains text in the SVG, so that the page's font is used. Colors become the page's CSS
variables, so that a plot is readable on a light and on a dark page.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from offline_cql.render import colors
from offline_cql.render.numbers import format_number

Array = npt.NDArray[np.float64]

DPI = 110
WIDTH = 4.3  # inches; the page scales a plot to its column
LEGEND_COLUMNS = 3
LEGEND_LETTERS, LEGEND_HANDLE = 62, 8  # letters that fit the width; of the line before a label
LINE_HEIGHT = 0.18  # inches
WIDE = 20  # largest over median absolute value: more needs a logarithmic axis
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # with six colors: 42 distinct combinations
LINE_STYLES = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "offline-cql",  # the same page for the same runs
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": colors.TEXT,
    "text.parse_math": False,  # a name that contains $ is not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": colors.AXIS,
    "axes.labelcolor": colors.TEXT,
    "axes.titlecolor": colors.TEXT,
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": colors.GRID,
    "xtick.color": colors.AXIS,
    "ytick.color": colors.AXIS,
    "xtick.labelcolor": colors.TEXT,
    "ytick.labelcolor": colors.TEXT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.markersize": 4,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 3,  # long enough to show a line style
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot to draw.

    stem: of the PNG's name and of ids, unique on a page. description: the data in words, for
    screen readers; what `describe_lines` finds is appended. size: inches. metrics: names in
    docs/metrics.md that the plot shows.
    """

    stem: str
    title: str
    caption: str
    draw: Callable[[Figure], None]
    description: str = ""
    size: tuple[float, float] = (WIDTH, 3.0)
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RenderedPlot:
    """A plot with its SVG for a page and its PNG file's content."""

    plot: Plot
    svg: Markup
    png: bytes


def render_plot(plot: Plot) -> RenderedPlot:
    """Draw a plot once and return its SVG and PNG."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=plot.size, dpi=DPI, layout="constrained")
        plot.draw(figure)
        text, image = io.StringIO(), io.BytesIO()
        # print_png instead of savefig, which would draw everything twice to find its size.
        FigureCanvasAgg(figure).print_png(image)
        figure.set_layout_engine("none")  # keep the layout that the PNG computed
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(text)
        description = " ".join(filter(None, (plot.description, describe_lines(figure))))
    svg = inline_svg(
        text.getvalue(), plot.stem, title=plot.title, description=description or plot.caption
    )
    return RenderedPlot(plot=plot, svg=svg, png=image.getvalue())


def inline_svg(text: str, stem: str, *, title: str, description: str) -> Markup:
    """Return an SVG file's text as an element of an HTML page.

    Namespaces are removed (they look like external addresses), and the size (the page sets it).
    Ids get the stem as a prefix. Plot colors become CSS variables. Title and description are what
    a screen reader announces.
    """
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # would apply to the whole page
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    head, body = text.split(">", 1)
    head = re.sub(r' (?:width|height|version)="[^"]*"', "", head)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r'(url\(#|href="#| id=")([^)"]+)', rf"\g<1>{stem}-\g<2>", body)
    label = f'role="img" aria-labelledby="{stem}-title {stem}-desc"'
    names = f'<title id="{stem}-title">{escape(title)}</title>'
    names += f'<desc id="{stem}-desc">{escape(description)}</desc>'
    return Markup(f"{head} {label}>\n{names}{_with_css_colors(body)}")


def _with_css_colors(svg: str) -> str:
    names = {light: name for name, (light, _) in colors.PLOT.items()}
    return re.sub(
        r"(fill|stroke): (#[0-9a-f]{6})",
        lambda match: f"{match[1]}: var(--{names[match[2]]})" if match[2] in names else match[0],
        svg,
    )


def describe_lines(figure: Figure) -> str:
    """Return the axes' labels, and the first and last point of each labeled line, in words."""
    parts = []
    for axes in figure.axes:
        labels = {"Horizontal axis": axes.get_xlabel(), "vertical axis": axes.get_ylabel()}
        shown = [f"{name}: {label}" for name, label in labels.items() if label]
        if shown:
            parts.append(", ".join(shown) + ".")
        for line in axes.lines:
            name = str(line.get_label())
            x, y = (np.asarray(values, np.float64) for values in line.get_data())
            if name.startswith("_") or not len(x):
                continue
            ends = [f"{format_number(b)} at {format_number(a)}" for a, b in zip(x, y, strict=True)]
            parts.append(f"{name}: {' to '.join(dict.fromkeys((ends[0], ends[-1])))}.")
    return " ".join(parts)


def series_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return color, marker and line style by name, distinct for up to 42 names."""
    return {
        name: {
            "color": colors.SERIES[number % len(colors.SERIES)][0],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
        }
        for number, name in enumerate(names)
    }


BASELINE_STYLE: dict[str, Any] = {"color": colors.BASELINE, "marker": ".", "linestyle": ":"}


def draw_line(axes: Any, x: Array, band: tuple[Array, Array, Array], **style: Any) -> None:
    """Draw a mean with its interval. band: mean, low, high."""
    mean, low, high = band
    axes.plot(x, mean, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_reference(axes: Any, value: float) -> None:
    """Draw a dashed horizontal line; the caption explains it."""
    axes.axhline(value, color=colors.REFERENCE, linewidth=1.2, linestyle="--")


def add_legend(figure: Figure) -> None:
    """List the labeled lines below the plot, where they cover no data."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if handles:
        names = [wrap_label(name) for name in handles]
        columns = _legend_columns(names)
        figure.legend(list(handles.values()), names, loc="outside lower center", ncols=columns)


def wrap_label(name: str) -> str:
    """Return a label in lines that fit the width of a plot."""
    return textwrap.fill(name, LEGEND_LETTERS - LEGEND_HANDLE, break_on_hyphens=False)


def legend_height(names: Sequence[str]) -> float:
    """Return the inches that `add_legend` needs for these labels."""
    labels = [wrap_label(name) for name in names]
    rows = -(-len(labels) // _legend_columns(labels))
    return LINE_HEIGHT * rows * max(label.count("\n") + 1 for label in labels)


def _legend_columns(labels: Sequence[str]) -> int:
    widest = max(len(line) for label in labels for line in label.split("\n"))
    fitting = LEGEND_LETTERS // (widest + LEGEND_HANDLE)
    return max(1, min(LEGEND_COLUMNS, len(labels), fitting))


def set_update_axis(axes: Any, updates: Collection[float]) -> None:
    """Label the horizontal axis with whole numbers of updates."""
    axes.set_xlabel("updates")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(updates) == 1:
        axes.set_xticks(list(updates))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def set_log_scale(axes: Any) -> None:
    """Make the vertical axis logarithmic, with plain labels: 0.01, 100."""
    axes.set_yscale("log")
    _set_plain_labels(axes)


def set_wide_scale(axes: Any, values: Array) -> None:
    """Make the vertical axis logarithmic where a few of the values would flatten the others.

    The axis stays linear unless the largest absolute value exceeds WIDE times the median one. With
    values that are not positive it is linear near 0.
    """
    sizes = np.sort(np.abs(values[np.isfinite(values) & (values != 0)]))
    if len(sizes) > 1 and sizes[-1] > WIDE * (median := float(sizes[len(sizes) // 2])):
        if values[np.isfinite(values)].min() > 0:
            axes.set_yscale("log")
        else:
            axes.set_yscale("symlog", linthresh=median)
        _set_plain_labels(axes)


def _set_plain_labels(axes: Any) -> None:
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = sorted(axes.get_ylim())
    narrow = low > 0 and high < 30 * low  # contains hardly a power of ten
    axes.yaxis.set_minor_formatter("{x:g}" if narrow else NullFormatter())
