"""Rows with missing values: refused with all counts, dropped, or filled by the row before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.files import Chunk
from offline_cql.readers.table.values import column, matrix

MOST_LISTED = 20  # columns in a message
REMEDY = (
    "leave a column out, or set dataset.missing=drop (rows without a value end their episode) or "
    "dataset.missing=forward (observations keep the last value of the episode, other rows are "
    "dropped); episodes, steps and flags have to be complete"
)


def complete_rows(chunk: Chunk, names: Sequence[str]) -> Flags:
    """Return the rows [T] where none of the columns is missing or NaN."""
    complete = np.ones(chunk.batch.num_rows, bool)
    for name in names:
        values = column(chunk, name)
        if values.null_count or pa.types.is_floating(values.type):
            is_null = pc.is_null(values, nan_is_null=True)
            complete &= ~is_null.to_numpy(zero_copy_only=False)
    return complete


def describe_missing(counts: dict[str, int], rows: int) -> str:
    """Return the columns with missing values, their numbers and the remedy, for a message."""
    missing = sorted(((count, name) for name, count in counts.items() if count), reverse=True)
    listed = ", ".join(f"{name} {count:,}" for count, name in missing[:MOST_LISTED])
    more = f" and {len(missing) - MOST_LISTED:,} more columns" if len(missing) > MOST_LISTED else ""
    return f"of {rows:,} rows are missing: {listed}{more}; {REMEDY}"


class IncompleteRows:
    """Fills or drops rows with missing values, chunk by chunk; `method` is dataset.missing.

    A dropped row ends the episode before it; the rows after it are an episode of their own.
    """

    def __init__(self, method: str):
        self.method = method
        self.filled = self.dropped = 0  # values, rows
        # Of the last row so far:
        self._is_dropped = False
        self._observation: Array | None = None  # [D], filled

    def resolve(
        self, chunk: Chunk, names: tuple[str, ...], others: Sequence[str], starts: Flags
    ) -> tuple[Array, Flags, Flags]:
        """Return observations and starts of the complete rows, and which rows [T] are complete.

        names: columns of observations. others: further columns that need a value. Raises
        MissingValueError if missing values are refused.
        """
        if self.method == "refuse":
            return matrix(chunk, names), starts, np.ones(len(starts), bool)
        observations = matrix(chunk, names, nullable=True)
        if self.method == "forward":
            observations = self._fill(observations, starts)
        complete = complete_rows(chunk, others) & ~np.isnan(observations).any(axis=1)
        starts = starts | np.append(self._is_dropped, ~complete[:-1])
        self._is_dropped = not complete[-1]
        self.dropped += int((~complete).sum())
        return observations[complete], starts[complete], complete

    def _fill(self, observations: Array, starts: Flags) -> Array:
        """Return observations [T, D] filled by earlier rows of the episode; NaN without any."""
        before = self._observation
        before = np.full(observations.shape[1], np.nan) if before is None else before
        values = np.concatenate([before[None], observations])
        rows = np.arange(len(values))
        present = ~np.isnan(values)
        # The last row with a value, and the first row of the episode, of each row.
        sources = np.maximum.accumulate(np.where(present, rows[:, None], 0))
        firsts = np.maximum.accumulate(np.where(np.append(True, starts), rows, 0))
        result: Array = np.take_along_axis(values, sources, axis=0)
        result[sources < firsts[:, None]] = np.nan
        self._observation = result[-1]
        self.filled += int((~np.isnan(result) & ~present).sum())
        return result[1:]
