"""The colors of pages and plots, each for a light and a dark page.

A page declares them as CSS variables. A plot is drawn in the light ones; in its SVG they become
references to the variables, so that one SVG is readable on both.
"""

from __future__ import annotations

# Text and links have a contrast of at least 4.5 : 1 on `paper` and `card` (WCAG AA).
PAGE: dict[str, tuple[str, str]] = {
    "paper": ("#f6f7f9", "#101418"),
    "card": ("#ffffff", "#1b1f24"),
    "text": ("#1f2328", "#e8ebee"),
    "soft": ("#57606a", "#a3acb6"),
    "line": ("#d5dae0", "#363c44"),
    "link": ("#1f5fae", "#7cb8ff"),
    "good": ("#1f7a45", "#5fd18f"),
    "bad": ("#b02a1a", "#ff8a75"),
    "warn": ("#8a5a00", "#f0b84a"),
}

# Told apart with normal vision and with protanopia, deuteranopia and tritanopia; at least 3 : 1 on
# `card`. Markers and line styles (render/svg.py) tell lines apart without color.
SERIES: tuple[tuple[str, str], ...] = (
    ("#2b83d6", "#3fb6ff"),  # blue
    ("#b3261e", "#f0561f"),  # vermillion
    ("#0b6148", "#35917a"),  # green
    ("#c45cb8", "#fcc6f0"),  # pink
    ("#94801a", "#d8b64f"),  # ochre
    ("#35207f", "#9d62e0"),  # violet
)

# The light colors differ from each other: they are the names by which an SVG is recolored.
PLOT: dict[str, tuple[str, str]] = {
    "plot-text": ("#444b54", "#c2c9d1"),
    "plot-axis": ("#7d858e", "#8b949e"),
    "plot-grid": ("#e3e6ea", "#2e343b"),
    "plot-fill": ("#4c78a8", "#6fa0d6"),
    "plot-soft-fill": ("#b9cde3", "#33506f"),
    "plot-ink": ("#2b4a6b", "#b5d3f2"),
    "plot-reference": ("#5b636d", "#b0b8c1"),
    "plot-baseline": ("#6b7078", "#9aa2ac"),
    "plot-chosen": ("#8c1d13", "#ff9d8a"),
    "plot-low-zone": ("#f8dcd6", "#4a2a25"),
    "plot-high-zone": ("#dfe8f3", "#24364a"),
    **{f"series-{number}": pair for number, pair in enumerate(SERIES, start=1)},
}

TEXT, AXIS, GRID = (PLOT[f"plot-{name}"][0] for name in ("text", "axis", "grid"))
FILL, SOFT_FILL, INK = (PLOT[f"plot-{name}"][0] for name in ("fill", "soft-fill", "ink"))
REFERENCE, BASELINE, CHOSEN = (
    PLOT[f"plot-{name}"][0] for name in ("reference", "baseline", "chosen")
)
LOW_ZONE, HIGH_ZONE = PLOT["plot-low-zone"][0], PLOT["plot-high-zone"][0]


def css_variables(scheme: str) -> dict[str, str]:
    """Return the color of each CSS variable. scheme: "light" or "dark"."""
    column = ("light", "dark").index(scheme)
    return {name: pair[column] for name, pair in (PAGE | PLOT).items()}
