"""Which rows a measurement looks at: all of them in blocks, or blocks spread over the log.

Keeps the memory small whatever the size of the data. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.transitions import Transitions

Array = npt.NDArray[Any]

ELEMENTS = 2**20  # numbers in one block, 8 MB as float64
WIDEST = 512  # observation columns looked at; of wider ones so many, evenly spread
SPREAD = 16  # blocks of a sample: enough to meet every part of a log


class Reading:
    """Transitions, and which of them are looked at.

    most: rows to look at, None for all; advance is told of rows as they are done. columns [C]:
    the observation columns that are looked at.
    """

    def __init__(
        self,
        transitions: Transitions,
        *,
        most: int | None = None,
        advance: Callable[[int], None] = lambda rows: None,
    ):
        self.transitions, self.advance = transitions, advance
        size, dim = len(transitions), transitions.spaces.observation_dim
        self.size = size if most is None else min(size, most)
        step = -(-dim // WIDEST)
        self.columns = np.arange(0, dim, step)
        self.every_column = step == 1
        self._each = max(1, ELEMENTS // max(1, len(self.columns)))

    @property
    def everything(self) -> bool:
        return self.size == len(self.transitions)

    def blocks(self) -> Iterator[slice]:
        """Rows to look at, ascending; consecutive when everything is looked at."""
        if self.everything:
            starts, each = np.arange(0, self.size, self._each), self._each
        else:
            each = max(1, min(self._each, self.size // SPREAD))
            last = len(self.transitions) - each
            starts = np.linspace(0, last, max(1, self.size // each)).astype(int)
        for start in starts:
            stop = min(int(start) + each, len(self.transitions))
            yield slice(int(start), stop)
            self.advance(stop - int(start))

    def observations(self, rows: Any, *, following: bool = False) -> Array:
        """The looked-at columns [., C] of rows (a slice or numbers), or of what follows them."""
        all_ = self.transitions.next_observations if following else self.transitions.observations
        found: Array = all_[rows]
        return found if self.every_column else found[:, self.columns]

    def names(self) -> list[str]:
        """Of the looked-at observation columns, [C]."""
        own = self.transitions.observation_names
        return [own[k] if own else f"observation {k}" for k in self.columns]

    def and_one(self, rows: slice) -> slice:
        """The rows and the one after them, so that no pair falls between two blocks."""
        return slice(rows.start, min(rows.stop + 1, len(self.transitions)))

    def inside(self, rows: slice) -> Array:
        """Whether each of the rows has its next step in the same episode and before rows.stop,
        [n - 1]: pairs (t, t + 1) within the block."""
        same = np.ones(rows.stop - rows.start, dtype=bool)
        ends = self.transitions.ends
        low, high = np.searchsorted(ends, [rows.start + 1, rows.stop], side="left")
        last = ends[low : high + 1] - 1 - rows.start
        same[last[(last >= 0) & (last < len(same))]] = False
        return same[:-1]
