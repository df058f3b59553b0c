"""Rows with missing values: refused with all counts, dropped, or filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.selection import Chunk
from offline_cql.readers.table.values import column

MOST_LISTED = 20  # columns in a message
REMEDY = (
    "leave a column out, or set dataset.missing=drop (rows without a value end their episode), "
    "fill (observations get the column's mean and a flag) or forward (observations keep the last "
    "value of the episode); episodes, steps and flags have to be complete"
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
        self._last: Array | None = None  # values [C] of the observed columns, filled

    def resolve(
        self, chunk: Chunk, observed: Array, others: Sequence[str], starts: Flags
    ) -> tuple[Array, Flags, Flags]:
        """Return values and starts of the complete rows, and which rows [T] are complete.

        observed [T, C]: the values of the observed columns. others: further columns that need one.
        """
        if self.method == "refuse":
            return observed, starts, np.ones(len(starts), bool)
        complete = complete_rows(chunk, others)
        if self.method == "forward":
            observed = self._fill(observed, starts)
        if self.method == "fill":  # when observations are computed
            self.filled += int(np.isnan(observed[complete]).sum())
        else:
            complete &= ~np.isnan(observed).any(axis=1)
        starts = starts | np.append(self._is_dropped, ~complete[:-1])
        self._is_dropped = not complete[-1]
        self.dropped += int((~complete).sum())
        return observed[complete], starts[complete], complete

    def _fill(self, observed: Array, starts: Flags) -> Array:
        """Return values [T, C] filled by earlier rows of the episode; NaN without any."""
        before = self._last
        before = np.full(observed.shape[1], np.nan) if before is None else before
        values = np.concatenate([before[None], observed])
        rows = np.arange(len(values))
        present = ~np.isnan(values)
        # The last row with a value, and the first row of the episode, of each row.
        sources = np.maximum.accumulate(np.where(present, rows[:, None], 0))
        firsts = np.maximum.accumulate(np.where(np.append(True, starts), rows, 0))
        result: Array = np.take_along_axis(values, sources, axis=0)
        result[sources < firsts[:, None]] = np.nan
        self._last = result[-1]
        self.filled += int((~np.isnan(result) & ~present).sum())
        return result[1:]
