"""One thing that an audit found, and how it is worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = ("error", "warning", "note")
NAMED = 4  # things listed by name before it is `and … more`


@dataclass(frozen=True)
class Finding:
    """level: error, warning or note; name: stable, for programs; remedy: what to do."""

    level: str
    name: str
    message: str
    remedy: str


def listed(names: Sequence[str]) -> str:
    """The first of them by name, the rest by number."""
    shown = ", ".join(names[:NAMED])
    rest = len(names) - NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def share(part: float) -> str:
    """A share as a percentage that says 0 and 100 only when it is."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    coarse = percent in (0, 100) or 9.95 < percent < 99.5
    return f"{percent:.0f} %" if coarse else f"{percent:.1f} %"


def plural(count: int, name: str) -> str:
    """1 episode, 2 episodes."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def figure(value: float) -> str:
    """A number with as many digits as say something."""
    size = abs(value)
    if value == 0 or 0.01 <= size < 100:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if 100 <= size < 1000:
        return f"{value:.1f}".rstrip("0").rstrip(".")
    if 1000 <= size < 1e7:
        return f"{value:,.0f}"
    return f"{value:.2g}"
