"""One finding of an audit."""

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
