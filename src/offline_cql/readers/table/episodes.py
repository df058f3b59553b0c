"""Where episodes begin in a table, and what follows each step: rows become transitions.

It holds two rows back, no more: whether a row is kept is known two rows later. Knows nothing of
files or settings.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.errors import DataError
from offline_cql.readers.table.columns import Mapping
from offline_cql.readers.table.files import Piece
from offline_cql.readers.table.values import Flags, identifiers, in_words, whole
from offline_cql.readers.writer import Steps, TransitionWriter

Array = npt.NDArray[Any]

HELD = 2  # rows


@dataclass(frozen=True, eq=False)
class Rows:
    """T consecutive rows of a table as numbers; begins [T]: whether an episode begins there."""

    observations: Array
    actions: Array
    rewards: Array
    terminated: Flags
    truncated: Flags
    begins: Flags
    next_observations: Array | None = None  # NaN where a value is missing
    propensities: Array | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    def from_row(self, start: int) -> Rows:
        """The rows from one on."""
        parts: dict[str, Any] = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            parts[field.name] = None if mine is None else mine[start:]
        return Rows(**parts)

    def followed_by(self, other: Rows) -> Rows:
        """These rows and others."""
        parts: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            parts[field.name] = None if mine is None else np.concatenate([mine, theirs])
        return Rows(**parts)


class Beginnings:
    """Finds where episodes begin, piece by piece, and refuses rows that are out of order.

    By the episode column, if there is one: then an episode may go on in the next file. Else after
    a row that is terminated or truncated, where the step is that of the first row of all again,
    and with each file.
    """

    def __init__(self, mapping: Mapping):
        self.mapping = mapping
        self.path: Any = None
        self.episode: Any = None  # of the last row so far
        self.step: int | None = None
        self.first_step: int | None = None
        self.ended = False
        self.over_two_files = 0
        self._seen: list[Any] = []  # the identifier of each episode

    def of(self, piece: Piece, ended: Flags) -> Flags:
        """begins [T]; ended [T]: terminated or truncated. Raises DataError."""
        before = np.append(self.ended, ended[:-1])
        if self.mapping.episode:
            begins = self._changes(piece, self.mapping.episode)
            self._refuse_going_on(piece, before & ~begins)
        else:
            begins = before
            begins[0] |= piece.path != self.path
        if self.mapping.step:
            begins = self._ordered(piece, self.mapping.step, begins)
        self.over_two_files += int(self.path not in (None, piece.path) and not begins[0])
        self.path, self.ended = piece.path, bool(ended[-1])
        return begins

    def finish(self) -> None:
        """Raises DataError when an episode was left and came back."""
        if not self._seen:
            return
        seen = pa.chunked_array(self._seen)
        if pc.count_distinct(seen).as_py() == len(seen):
            return
        counts = pc.value_counts(seen)
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise DataError(
            f"episode {in_words(repeated, 0)} comes back after another one began, and "
            f"{len(repeated) - 1:,} others: sort by episode, step, or number them anew in each file"
        )

    def _changes(self, piece: Piece, name: str) -> Flags:
        values = identifiers(piece, name)
        if self._seen and values.type != self._seen[0].type:
            kinds = f"{values.type}, in other files {self._seen[0].type}"
            raise DataError(f"{piece.path}: column {name} is {kinds}")
        changes = np.empty(len(values), bool)
        changes[0] = self.episode is None or values[0] != self.episode
        later = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1))
        changes[1:] = later.to_numpy(zero_copy_only=False)
        self.episode = values[-1]
        if changes.any():
            self._seen.append(values.filter(pa.array(changes)))
        return changes

    def _refuse_going_on(self, piece: Piece, wrong: Flags) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            assert self.mapping.episode is not None
            name = in_words(identifiers(piece, self.mapping.episode), row)
            raise DataError(
                f"{piece.at(row, self.mapping.episode)}: episode {name} goes on after a row that "
                "is terminated or truncated: sort by episode, step, or map other columns"
            )

    def _ordered(self, piece: Piece, name: str, begins: Flags) -> Flags:
        """begins, with those where the step starts anew if no column names the episodes."""
        steps = whole(piece, name).to_numpy()
        if self.first_step is None:
            self.first_step = int(steps[0])
        previous = np.append(steps[0] if self.step is None else self.step, steps[:-1])
        if not self.mapping.episode:
            begins = begins | (steps == self.first_step)
        # Without overflow: whether the step is one more, not what their difference is.
        wrong = ~begins & ((steps != previous + 1) | (previous == np.iinfo(np.int64).max))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{piece.at(row, name)}: step {steps[row]} follows step {previous[row]} in one "
                "episode, expected one more: sort by episode, step"
            )
        self.step = int(steps[-1])
        return begins


class Following:
    """Gives each row its next observation and hands the rows on to the writer.

    From a column if there is one, else the next row of the episode. The last row of an episode
    that was not terminated may have none: it is dropped and counted. A terminated row needs none
    and keeps its reward; nothing is learned from the own observation that stands there.
    """

    def __init__(self, writer: TransitionWriter):
        self.writer = writer
        self.held: Rows | None = None

    def add(self, rows: Rows) -> None:
        rows = rows if self.held is None else self.held.followed_by(rows)
        self._hand_on(rows, max(len(rows) - HELD, 0))
        self.held = rows.from_row(max(len(rows) - HELD, 0))

    def finish(self) -> None:
        if self.held is not None:
            self._hand_on(self.held, len(self.held))

    def _hand_on(self, rows: Rows, count: int) -> None:
        """The first `count` of the rows; the rest only tell what those are."""
        last = np.append(rows.begins[1:], True)
        unmarked = last & ~rows.terminated & ~rows.truncated
        following, known = _next_observations(rows, last)
        keep = ~last | rows.terminated | known
        truncated = rows.truncated | unmarked
        # The row before a dropped one is its episode's last.
        truncated[:-1] |= ~keep[1:] & ~rows.begins[1:]
        here = slice(0, count)
        alone = ~keep & rows.begins
        self.writer.count_repair("episodes_without_an_end", int(unmarked[here].sum()))
        self.writer.count_repair("dropped_last_steps", int((~keep & ~alone)[here].sum()))
        self.writer.count_repair("dropped_episodes_of_one_step", int(alone[here].sum()))
        chosen: Any = here if keep[here].all() else np.flatnonzero(keep[here])
        own = rows.propensities
        self.writer.append(
            Steps(
                observations=rows.observations[chosen],
                actions=rows.actions[chosen],
                rewards=rows.rewards[chosen],
                next_observations=following[chosen],
                terminated=rows.terminated[chosen],
                truncated=truncated[chosen],
                propensities=None if own is None else own[chosen],
            )
        )


def _next_observations(rows: Rows, last: Flags) -> tuple[Array, Flags]:
    """The next observations [T, D] and whether each is known [T]; the own one ends a task."""
    if rows.next_observations is not None:
        following = rows.next_observations
        known: Flags = ~np.isnan(following).any(axis=1)  # type: ignore[assignment]
    else:
        following = np.concatenate([rows.observations[1:], rows.observations[-1:]])
        known = ~last
    over = rows.terminated & ~known
    if over.any():
        following = following.copy()
        following[over] = rows.observations[over]
    return following, known
