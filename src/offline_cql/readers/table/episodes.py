"""Episode boundaries and next observations: rows of a table become transitions.

Two rows are held back between chunks: whether a row is kept depends on the two rows after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.columns import Mapping
from offline_cql.readers.table.selection import Chunk
from offline_cql.readers.table.values import (
    MissingNextError,
    episode_ids,
    format_entry,
    step_values,
)
from offline_cql.readers.writer import Steps, TransitionWriter, take

N_HELD = 2  # rows
SPLIT_REMEDIES = {
    "dataset.missing=drop": "set dataset.missing=fill or forward",
    "dataset.filter": "let it keep whole episodes",
}
# Shares of the rows that may be dropped.
MAX_UNMARKED = 0.2  # the data do not say how an episode ends
MAX_TRUNCATED = 0.5  # they say that the recording ended


@dataclass(frozen=True, eq=False)
class Rows:
    """T consecutive rows of a table as arrays; starts [T]: an episode starts at this row.

    times [T] in units of dataset.time_unit, or None: every step takes as long.
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: Flags
    truncated: Flags
    starts: Flags
    next_observations: Array | None = None  # NaN where a value is missing and not filled
    has_next: Flags | None = None  # [T]: there is a value of them
    propensities: Array | None = None
    times: Array | None = None

    def __len__(self) -> int:
        return len(self.rewards)


def concatenate(first: Rows, second: Rows) -> Rows:
    """Return the rows of both in order."""
    names = [name for name, values in vars(first).items() if values is not None]
    pairs = {name: [getattr(first, name), getattr(second, name)] for name in names}
    return replace(first, **{name: np.concatenate(pair) for name, pair in pairs.items()})


class EpisodeBoundaries:
    """Finds the first rows of episodes, chunk by chunk, and refuses rows that are out of order.

    times_grow: rows of one episode with the same time are refused, too. With an episode column, an
    episode starts where its value changes, and may continue in the next
    file. Without one, an episode starts after a row that is terminated or truncated, where the
    step has the value of the table's first row, and with each file.
    """

    def __init__(self, mapping: Mapping, *, times_grow: bool = False):
        self.mapping, self.times_grow = mapping, times_grow
        # Of the last row so far:
        self.file: Any = None
        self.episode: Any = None
        self.step: int | None = None
        self.ended = False
        self.first_step: int | None = None  # of the table
        self.place = 0  # Chunk.places
        self.over_two_files = self.split = 0  # episodes

    def find_starts(self, chunk: Chunk, ended: Flags) -> Flags:
        """Return starts [T]; ended [T]: terminated or truncated. Raises DataError."""
        ended_before = np.append(self.ended, ended[:-1])
        files = chunk.files
        new_files = files != np.append(-1 if self.file is None else self.file, files[:-1])
        if name := self.mapping.episode:
            ids = episode_ids(chunk, name)
            starts = self._changes(chunk, name, ids)
            fault = "continues after a row that is terminated or truncated: sort by episode, step"
            chunk.refuse(
                name,
                ended_before & ~starts,
                lambda row: (
                    f"episode {format_entry(ids, row)} {fault}, make ids unique across "
                    "files, or map other columns"
                ),
            )
        else:
            starts = ended_before | new_files
        starts = self._split(chunk, starts)
        if self.mapping.step:
            starts = self._check_steps(chunk, self.mapping.step, starts)
        self.over_two_files += int((new_files & ~starts).sum())
        self.file, self.ended = files[-1], bool(ended[-1])
        return starts

    def _split(self, chunk: Chunk, starts: Flags) -> Flags:
        """Return starts [T] where the filter left out rows of an episode, too."""
        places = chunk.places
        if places is None:
            return starts
        gaps: Flags = ~starts & (places != np.append(self.place, places[:-1]) + 1)
        self.place = int(places[-1])
        self.split += int(gaps.sum())
        return starts | gaps

    def _changes(self, chunk: Chunk, name: str, values: Any) -> Flags:
        """Return the rows [T] where the values of the episode column change."""
        changes = np.empty(len(values), bool)
        changes[0] = self.episode is None or values[0] != self.episode
        later = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
        changes[1:] = later.to_numpy(zero_copy_only=False)
        self.episode = values[-1]
        return changes

    def _check_steps(self, chunk: Chunk, name: str, starts: Flags) -> Flags:
        """Raise DataError unless steps grow by one within an episode; times must not decrease.

        Return `starts`; without an episode column, with the rows where the step starts again.
        """
        steps, are_times = step_values(chunk, name)
        if self.first_step is None:
            self.first_step = int(steps[0])
        previous = np.append(steps[0] if self.step is None else self.step, steps[:-1])
        self.step = int(steps[-1])
        if are_times:
            fault = "is earlier than the row before, in one episode: sort by episode, step"
            chunk.refuse(name, ~starts & (steps < previous), lambda row: f"the time {fault}")
            if self.times_grow:
                repeated = "the time of the row before: with dataset.time_unit times must grow"
                chunk.refuse(name, ~starts & (steps == previous), lambda row: repeated)
            return starts
        if not self.mapping.episode:
            starts = starts | (steps == self.first_step)
        # previous + 1 wraps around at the largest int64.
        invalid = ~starts & ((steps != previous + 1) | (previous == np.iinfo(np.int64).max))
        chunk.refuse(
            name,
            invalid,
            lambda row: (
                f"step {steps[row]} follows step {previous[row]} in one episode, expected "
                "one more: sort by episode, step, and make ids unique across files"
            ),
        )
        return starts


class TransitionBuilder:
    """Adds the next observation to each row and appends the transitions to the writer.

    The next observation is that of the mapped columns, otherwise that of the next row in the
    episode. The last row of an episode that is not terminated may have none: it is dropped and
    counted. A terminated row needs none and keeps its reward; its own observation is stored as
    the next one, which the discount of 0 masks.

    missing: dataset.missing. A row whose columns of next observations lack a value that is not
    filled is dropped inside an episode, too; with `refuse` this raises MissingNextError.
    """

    def __init__(self, writer: TransitionWriter, missing: str = "refuse"):
        self.writer, self.missing = writer, missing
        self.held: Rows | None = None
        self.dropped_unmarked = self.dropped_truncated = 0  # rows

    def add(self, rows: Rows) -> None:
        """Append the transitions of these rows, except those that depend on rows to come."""
        rows = rows if self.held is None else concatenate(self.held, rows)
        count = max(len(rows) - N_HELD, 0)
        self._append(rows, count)
        self.held = take(rows, slice(count, None))

    def finish(self, splits: Sequence[str] = ()) -> None:
        """Append the rows that were held back. Raises DataError if a large share was dropped.

        splits: the settings that split episodes, for the message.
        """
        if self.held is not None:
            self._append(self.held, len(self.held))
        advice = "".join(
            f"{setting} splits episodes where it leaves out rows: {SPLIT_REMEDIES[setting]}; or "
            for setting in splits
        )
        self.writer.check_loss(
            self.dropped_unmarked,
            largest_share=MAX_UNMARKED,
            reason="each is the last of its episode, has no next observation and no mark of an end",
            remedy=f"{advice}set dataset.columns.terminated to a column that marks where the task "
            "ended, dataset.columns.truncated to one that marks where only the recording did (up "
            "to half of the rows may then be dropped), or dataset.one_step=true if every row is a "
            "decision of its own, or check dataset.columns.episode",
        )
        self.writer.check_loss(
            self.dropped_truncated,
            largest_share=MAX_TRUNCATED,
            reason="each is truncated and has no next observation",
            remedy=f"{advice}set dataset.columns.next_observation, or mark the rows as terminated "
            "if the task ended there, or set dataset.one_step=true if every row is a decision of "
            "its own",
        )

    def _append(self, rows: Rows, count: int) -> None:
        """Append the transitions of the first `count` rows; the others are only looked up."""
        last = np.append(rows.starts[1:], True)
        unmarked = last & ~rows.terminated & ~rows.truncated
        next_observations, available = _next_observations(rows, last)
        keep = rows.terminated | available
        inside = ~last & ~keep
        if self.missing != "refuse":
            self.writer.count_repair("dropped_incomplete_rows", int(inside[:count].sum()))
        elif n_missing := int(inside[:count].sum()):
            raise MissingNextError(
                f"{self.writer.dataset_id}: {n_missing:,} rows lack a value of the next "
                "observation inside an episode"
            )
        truncated = rows.truncated | unmarked
        # The row before a dropped one becomes the last of its episode.
        truncated[:-1] |= ~keep[1:] & ~rows.starts[1:]
        head = slice(0, count)
        keep_or_inside = keep | inside
        single = ~keep_or_inside & rows.starts
        self.writer.count_repair("episodes_without_an_end", int(unmarked[head].sum()))
        self.writer.count_repair("dropped_last_steps", int((~keep_or_inside & ~single)[head].sum()))
        self.writer.count_repair("dropped_episodes_of_one_step", int(single[head].sum()))
        self.dropped_unmarked += int((~keep & unmarked)[head].sum())
        self.dropped_truncated += int((~keep_or_inside & ~unmarked)[head].sum())
        kept: Any = head if keep[head].all() else np.flatnonzero(keep[head])
        steps = Steps(
            observations=rows.observations,
            actions=rows.actions,
            rewards=rows.rewards,
            next_observations=next_observations,
            terminated=rows.terminated,
            truncated=truncated,
            propensities=rows.propensities,
            durations=None if rows.times is None else _durations(rows.times, last),
        )
        self.writer.append(take(steps, kept))


def _durations(times: Array, last: Flags) -> Array:
    """Return the time to the next row of the episode [T]; 1 at the last row."""
    return np.where(last, 1.0, np.append(np.diff(times), 1.0))


def _next_observations(rows: Rows, last: Flags) -> tuple[Array, Flags]:
    """Return next observations [T, D], and the rows [T] that have one.

    A terminated row without one gets its own observation. Without a value in any of its columns
    the last row of an episode has none; other rows may have a filled one.
    """
    if rows.next_observations is not None:
        next_observations = rows.next_observations
        available: Flags = ~np.isnan(next_observations).any(axis=1)  # type: ignore[assignment]
        if rows.has_next is not None:
            available &= rows.has_next | ~last
    else:
        next_observations = np.concatenate([rows.observations[1:], rows.observations[-1:]])
        available = ~last
    masked = rows.terminated & ~available
    if masked.any():
        next_observations = next_observations.copy()
        next_observations[masked] = rows.observations[masked]
    return next_observations, available
