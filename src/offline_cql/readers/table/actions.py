"""The action space of a table: categories or bounds, found in a first pass over its actions.

Knows nothing of the other columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.config import ColumnsConfig, format_value
from offline_cql.errors import DataError
from offline_cql.readers.table.files import Piece
from offline_cql.readers.table.values import (
    complete,
    in_words,
    is_category,
    is_text,
    plain_type,
    whole,
)
from offline_cql.readers.table.values import table as numbers_of
from offline_cql.transitions import Spaces

Array = npt.NDArray[Any]

MOST_CATEGORIES = 1_000


@dataclass(frozen=True, eq=False)
class Actions:
    """How the action columns are read, and the names of the dimensions or of the choices.

    categories: the values that stand for action 0, 1, …; None: the indices themselves, or amounts.
    """

    columns: tuple[str, ...]
    discrete: bool
    categories: Any = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        if self.categories is not None:
            return tuple(format_value(value) for value in self.categories.to_pylist())
        return () if self.discrete else self.columns

    def read(self, piece: Piece) -> Array:
        """[T, A] amounts, or [T] indices."""
        if not self.discrete:
            return numbers_of(piece, self.columns)
        (name,) = self.columns
        if self.categories is None:
            return whole(piece, name).to_numpy()  # type: ignore[no-any-return]
        values = _choices(piece, name, self.categories.type)
        codes = pc.index_in(values, value_set=self.categories)
        if codes.null_count:
            first = int(pc.index(codes.is_null(), True).as_py())
            raise DataError(f"{piece.at(first, name)}: the file changed while it was read")
        return codes.to_numpy()  # type: ignore[no-any-return]


def of_simulator(columns: tuple[str, ...], spaces: Spaces, kinds: list[Any]) -> Actions:
    """What a simulator takes: indices, or amounts within its bounds. Raises DataError."""
    wanted = 1 if spaces.discrete else spaces.action_dim
    what = f"{spaces.action_dim} actions to choose from" if spaces.discrete else f"{wanted} amounts"
    if len(columns) != wanted or (spaces.discrete and is_text(kinds[0])):
        raise DataError(
            f"dataset.columns.action gives {', '.join(columns)} ({kinds[0]}), the simulator takes "
            f"{what}: name {wanted} column(s) of numbers, or use env=logged"
        )
    return Actions(columns, spaces.discrete)


def chosen_kind(columns: ColumnsConfig, names: tuple[str, ...], kinds: list[Any]) -> bool:
    """Whether actions are categories: as the settings say, or by the type of a lone column."""
    if columns.discrete is False:
        return False
    if columns.discrete and len(names) > 1:
        raise DataError(
            f"dataset.columns.discrete=true takes one action column, found {', '.join(names)}"
        )
    discrete = columns.discrete or (len(names) == 1 and is_category(kinds[0]))
    if discrete and columns.action_low is not None:
        raise DataError(
            f"{columns.setting('action_low')} has no effect: {names[0]} ({plain_type(kinds[0])}) "
            "holds categories; dataset.columns.discrete=false reads it as an amount"
        )
    return bool(discrete)


def categories(name: str, pieces: Iterable[Piece], place: str) -> Actions:
    """The different values of a column, in order, each an action."""
    known: Any = None
    for piece in pieces:
        values = pc.unique(_choices(piece, name, None if known is None else known.type))
        known = values if known is None else pc.unique(pa.concat_arrays([known, values]))
        if len(known) > MOST_CATEGORIES:
            raise DataError(
                f"{piece.path}: column {name} has more than {MOST_CATEGORIES:,} different actions; "
                "dataset.columns.discrete=false reads it as an amount"
            )
    if known is None or len(known) < 2:
        only = f"is always {in_words(known, 0)}" if known else "has no rows"
        raise DataError(f"{place}: column {name} {only}: there is nothing to choose")
    return Actions((name,), True, known.take(pc.array_sort_indices(known)))


def bounds(
    columns: ColumnsConfig, names: tuple[str, ...], pieces: Iterable[Piece], place: str
) -> Actions:
    """The bounds of the settings, or the smallest and largest amount of each column."""
    if columns.action_low is not None and columns.action_high is not None:
        if len(columns.action_low) != len(names):
            raise DataError(
                f"{columns.setting('action_low')} needs {len(names)} numbers, one for each of "
                f"{', '.join(names)}"
            )
        return Actions(names, False, None, tuple(columns.action_low), tuple(columns.action_high))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for piece in pieces:
        values = numbers_of(piece, names)
        if len(values):
            low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    for name, least, most in zip(names, low, high, strict=True):
        if not least < most:
            only = f"is always {least:g}" if least == most else "has no rows"
            raise DataError(
                f"{place}: column {name} {only}: leave it out of dataset.columns.action, or "
                "give the bounds by dataset.columns.action_low and action_high"
            )
    return Actions(names, False, None, tuple(low.tolist()), tuple(high.tolist()))


def _choices(piece: Piece, name: str, kind: Any) -> Any:
    """A column of choices as an Arrow array, of one type in all files."""
    values = complete(piece, name)
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        values = whole(piece, name)
    elif is_text(values.type):
        values = values.cast(pa.string())
    elif not pa.types.is_boolean(values.type):
        raise DataError(f"{piece.at(0, name)} holds {values.type}: an action is a number or text")
    if kind is not None and values.type != kind:
        raise DataError(f"{piece.path}: column {name} is {values.type}, in other files {kind}")
    return values
