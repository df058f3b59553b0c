"""One finding of an audit, and the formats of its message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = ("error", "warning", "note")
MAX_NAMES = 4  # names in a message before it continues with "and … more"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem of the data: its level, a stable name for programs, what is wrong, what to do.

    An error makes the data useless for learning, a warning is probably a mistake, a note is good to
    know.
    """

    level: str
    name: str
    message: str
    remedy: str


def join_names(names: Sequence[str]) -> str:
    """Return the first names, then the number of the others: `a, b, c, d and 2 more`."""
    shown = ", ".join(names[:MAX_NAMES])
    others = len(names) - MAX_NAMES
    return f"{shown} and {others} more" if others > 0 else shown


def format_share(part: float) -> str:
    """Return a share as a percentage that is 0% or 100% only when it is exact."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    whole = percent in (0, 100) or 9.95 < percent < 99.5
    return f"{percent:.0f}%" if whole else f"{percent:.1f}%"


def format_count(count: int, noun: str) -> str:
    """Return `1 episode`, `2,000 episodes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_number(value: float) -> str:
    """Return a number with about four significant digits, without trailing zeros."""
    size = abs(value)
    if size != 0 and (size < 0.01 or size >= 1e7):
        return f"{value:.2g}"
    decimals = 2 if size < 100 else 1 if size < 1000 else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
