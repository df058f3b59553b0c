"""How a plot looks and how it becomes SVG text for the page and a PNG beside it.

Text stays text in the SVG, so that the page's font is used. matplotlib is imported here alone.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

Array = npt.NDArray[np.float64]

INK, SOFT, GRID = "#2b4a6b", "#8a929b", "#e3e6ea"
CLONING_COLOR, BAD, DULL = "#6b6f76", "#f8dcd6", "#dfe8f3"
DPI = 110
WIDE = 20  # times the middle value: more needs a logarithmic axis
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same page for the same runs
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": "#444b54",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": "#444b54",
    "ytick.color": "#444b54",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """stem: of the PNG's name; metrics: those of docs/metrics.md that it shows."""

    stem: str
    title: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Figure], None]
    metrics: tuple[str, ...] = ()


def rendered(plot: Plot) -> tuple[str, bytes]:
    """SVG text that stands in an HTML page, and a PNG."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=plot.size, dpi=DPI, layout="constrained")
        plot.draw(figure)
        text, image = io.StringIO(), io.BytesIO()
        # Past savefig, which draws everything a second time to find its size.
        FigureCanvasAgg(figure).print_png(image)
        figure.set_layout_engine("none")  # the places are found
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(text)
    return standing_in_html(text.getvalue(), plot.stem), image.getvalue()


def standing_in_html(text: str, prefix: str) -> str:
    """No name spaces, which look like addresses, no size of its own, ids that no other has."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    head, body = text.split(">", 1)
    text = re.sub(r' (?:width|height)="[^"]*"', "", head) + ">" + body
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    return re.sub(r'(url\(#|href="#| id=")([^)"]+)', rf"\g<1>{prefix}-\g<2>", text)


def colors(names: Sequence[str]) -> dict[str, Any]:
    """One color a name, from dark to light in their order."""
    shades = mpl.colormaps["viridis"]
    last = max(len(names) - 1, 1)
    return {name: shades(0.9 * place / last) for place, name in enumerate(names)}


def line(axes: Any, x: Array, found: tuple[Array, Array, Array], **style: Any) -> None:
    """A mean with its band."""
    middle, low, high = found
    axes.plot(x, middle, marker="o", markersize=3, linewidth=1.4, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def logarithmic(axes: Any) -> None:
    """Powers of ten, written out: 0.01, 100."""
    axes.set_yscale("log")
    _plain_labels(axes)


def wide_range(axes: Any, values: Array) -> None:
    """A logarithmic axis, straight about 0, where a few values would flatten the others."""
    size = np.sort(np.abs(values[np.isfinite(values) & (values != 0)]))
    if len(size) > 1 and size[-1] > WIDE * (middle := float(size[len(size) // 2])):
        axes.set_yscale("symlog", linthresh=middle)
        _plain_labels(axes)


def _plain_labels(axes: Any) -> None:
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = sorted(axes.get_ylim())
    few = low > 0 and high < 30 * low  # hardly a power of ten in it
    axes.yaxis.set_minor_formatter("{x:g}" if few else NullFormatter())
