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


# What the gate and the sources mended, in words; the audit counts each.
MENDED = {
    "clipped_actions": "actions beyond their bounds by rounding were clipped",
    "terminal_and_truncated": "steps were terminal and truncated: they count as terminal",
    "unfinished_last_episode": "last episode had no end: it counts as truncated",
    "episodes_without_an_end": "episodes had no end: they count as truncated",
    "episodes_over_two_files": "episodes go on in the next file",
    "dropped_last_steps": "last steps had no next observation and were left out",
    "dropped_episodes_of_one_step": "episodes of one step had no next observation: left out",
    "last_step_dropped": "last row of the file was left out, as D4RL's reader does",
    "steps_dropped_at_timeouts": "rows at time limits were left out, as D4RL's reader does",
    "terminals_dropped_at_timeouts": "of the rows left out at time limits were terminal",
    "steps_without_their_text": "steps had text, which was left out",
}
