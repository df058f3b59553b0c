"""Reads transitions in blocks of bounded size: all rows, or a sample spread over the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from offline_cql.audit.distribution import Array
from offline_cql.transitions import Transitions

BLOCK_ELEMENTS = 2**20  # numbers per block, 8 MB as float64
MAX_COLUMNS = 512  # observation columns read; wider observations are thinned out evenly
SAMPLE_BLOCKS = 16  # blocks of a sample: enough to meet every part of a log


class BlockReader:
    """Transitions and the rows and observation columns of them that the statistics are based on.

    max_rows: rows to read, None for all. on_rows is called with the size of each block that was
    read, for progress. column_indices [C]: the observation columns that are read.
    """

    def __init__(
        self,
        transitions: Transitions,
        *,
        max_rows: int | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
    ):
        self.transitions, self.on_rows = transitions, on_rows
        rows, width = len(transitions), transitions.spaces.observation_dim
        self.size = rows if max_rows is None else min(rows, max_rows)
        stride = -(-width // MAX_COLUMNS)
        self.column_indices = np.arange(0, width, stride)
        self.reads_all_columns = stride == 1
        self.block_rows = max(1, BLOCK_ELEMENTS // max(1, len(self.column_indices)))

    @property
    def reads_all_rows(self) -> bool:
        """True unless the rows are sampled."""
        return self.size == len(self.transitions)

    def blocks(self) -> Iterator[slice]:
        """Yield the blocks of rows in ascending order; without gaps when all rows are read."""
        if self.reads_all_rows:
            starts, length = np.arange(0, self.size, self.block_rows), self.block_rows
        else:
            length = max(1, min(self.block_rows, self.size // SAMPLE_BLOCKS))
            last_start = len(self.transitions) - length
            starts = np.linspace(0, last_start, max(1, self.size // length)).astype(int)
        for start in starts:
            stop = min(int(start) + length, len(self.transitions))
            yield slice(int(start), stop)
            self.on_rows(stop - int(start))

    def sample_rows(self, max_rows: int) -> Array:
        """Return at most `max_rows` row numbers, evenly spread over the whole log, ascending."""
        size = len(self.transitions)
        return np.unique(np.linspace(0, size - 1, min(size, max_rows)).astype(np.int64))

    def observations(self, rows: Any) -> Array:
        """Return the observations [n, C] of `rows` (a slice or row numbers)."""
        return self._select_columns(self.transitions.observations[rows])

    def next_observations(self, rows: Any) -> Array:
        """Return the next observations [n, C] of `rows` (a slice or row numbers)."""
        return self._select_columns(self.transitions.next_observations[rows])

    def _select_columns(self, observations: Array) -> Array:
        return observations if self.reads_all_columns else observations[:, self.column_indices]

    def column_names(self) -> list[str]:
        """Return the names [C] of the observation columns that are read."""
        names = self.transitions.observation_names
        return [names[k] if names else f"observation {k}" for k in self.column_indices]

    def with_next_row(self, rows: slice) -> slice:
        """Return `rows` and the row after them, so that no pair is lost between two blocks."""
        return slice(rows.start, min(rows.stop + 1, len(self.transitions)))

    def consecutive(self, rows: slice) -> Array:
        """Return a mask [n - 1] over the n rows: True where row t + 1 continues t's episode."""
        same_episode = np.ones(rows.stop - rows.start, dtype=bool)
        ends = self.transitions.ends
        low, high = np.searchsorted(ends, [rows.start + 1, rows.stop], side="left")
        last = ends[low : high + 1] - 1 - rows.start
        same_episode[last[(last >= 0) & (last < len(same_episode))]] = False
        return same_episode[:-1]
