"""Numbers as text: one format for pages, terminal tables, Markdown and LaTeX."""

from __future__ import annotations

MISSING = "–"


def format_number(value: float | None) -> str:
    """Return a number with about four significant digits; "–" for None.

    0.0567 → 0.06, 12.5 → 12.5, 123.45 → 123.5, 12345.6 → 12,346, 0.0012 and 1e9 with an exponent
    where decimals would be long. Trailing zeros are removed.
    """
    if value is None:
        return MISSING
    size = abs(value)
    if size != 0 and (size < 0.01 or size >= 1e7):
        return f"{value:.2g}"
    decimals = 2 if size < 100 else 1 if size < 1000 else 0
    text = f"{value + 0.0:,.{decimals}f}"  # adding 0 turns -0 into 0
    return text.rstrip("0").rstrip(".") if decimals else text


def format_interval(value: float, low: float, high: float) -> str:
    """Return `value [low, high]`."""
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def format_spread(mean: float, std: float) -> str:
    """Return `mean ± std`."""
    return f"{format_number(mean)} ± {format_number(std)}"


def format_share(part: float) -> str:
    """Return a share as a percentage that is 0% or 100% only when it is exact."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    decimals = 0 if 9.95 < percent < 99.5 else 1
    return f"{percent:.{decimals}f}".removesuffix(".0") + "%"


def format_count(count: int, noun: str) -> str:
    """Return `1 episode`, `2,000 episodes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
