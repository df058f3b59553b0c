"""The action space of a table: discrete actions or bounds, from a first pass over the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.config import ColumnsConfig, format_value
from offline_cql.errors import DataError
from offline_cql.features import EXPRESSION
from offline_cql.readers.row_files import Array
from offline_cql.readers.table.arrow_types import is_category, is_integer_or_float, is_text
from offline_cql.readers.table.selection import Chunk
from offline_cql.readers.table.values import format_entry, integers, matrix, non_null
from offline_cql.readers.writer import FEW_VALUES, few_values
from offline_cql.transitions import Spaces

MAX_CATEGORIES = 1_000


@dataclass(frozen=True, eq=False)
class Actions:
    """The action columns and their space.

    categories: the column's values of the discrete actions 0, 1, …; None if the column holds these
    indices, or if actions are continuous.
    """

    columns: tuple[str, ...]
    discrete: bool
    categories: Any = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the discrete actions, or of the dimensions."""
        if self.categories is not None:
            return tuple(format_value(value) for value in self.categories.to_pylist())
        return () if self.discrete else tuple(n.removeprefix(EXPRESSION) for n in self.columns)

    def read(self, chunk: Chunk) -> Array:
        """Return continuous actions [T, A], or discrete ones [T]."""
        if not self.discrete:
            return matrix(chunk, self.columns)
        if self.categories is None:
            (name,) = self.columns
            return integers(chunk, name).to_numpy()  # type: ignore[no-any-return]
        values = _choices(chunk, self.columns)
        codes = pc.index_in(values, value_set=self.categories)
        is_null = codes.is_null().to_numpy(zero_copy_only=False)
        fault = "the file changed while it was read"
        chunk.refuse(self.columns[0], is_null, lambda row: fault)
        return codes.to_numpy()  # type: ignore[no-any-return]


def simulator_actions(columns: tuple[str, ...], spaces: Spaces, types: list[Any]) -> Actions:
    """Return the actions of a simulator's space. Raises DataError if the columns do not fit."""
    n_columns = 1 if spaces.discrete else spaces.action_dim
    space = f"{spaces.action_dim} {'discrete actions' if spaces.discrete else 'action dimensions'}"
    if len(columns) != n_columns or (spaces.discrete and is_text(types[0])):
        raise DataError(
            f"dataset.columns.action matches {', '.join(columns)} ({types[0]}), the simulator has "
            f"{space}: name {n_columns} column(s) of numbers, or use env=logged"
        )
    return Actions(columns, spaces.discrete)


def is_discrete(columns: ColumnsConfig, names: tuple[str, ...], types: list[Any]) -> bool:
    """Return True if actions are discrete: by the settings, or by the types of the columns.

    By type: a single column of integers, text or booleans, or several columns of text.
    """
    if columns.discrete is False:
        return False
    by_type = is_category(types[0]) if len(names) == 1 else all(map(is_text, types))
    discrete = columns.discrete or by_type
    if discrete and columns.action_low is not None:
        raise DataError(
            f"{columns.setting('action_low')} has no effect: {names[0]} ({types[0]}) "
            "holds discrete actions; for continuous ones set dataset.columns.discrete=false"
        )
    return bool(discrete)


def discrete_actions(names: tuple[str, ...], chunks: Iterable[Chunk], path: str) -> Actions:
    """Return one action per distinct value, or combination of values, in sorted order."""
    distinct: Any = None
    text = f"column {', '.join(names)}"
    for chunk in chunks:
        values = pc.unique(_choices(chunk, names))
        distinct = values if distinct is None else pc.unique(pa.concat_arrays([distinct, values]))
        if len(distinct) > MAX_CATEGORIES:
            raise DataError(
                f"{path}: {text} has more than {MAX_CATEGORIES:,} distinct actions; "
                "for continuous ones set dataset.columns.discrete=false"
            )
    if distinct is None or len(distinct) < 2:
        fault = f"is always {format_entry(distinct, 0)}" if distinct else "has no rows"
        raise DataError(f"{path}: {text} {fault}: two actions are the minimum")
    return Actions(names, True, distinct.take(pc.array_sort_indices(distinct)))


def continuous_actions(
    columns: ColumnsConfig, names: tuple[str, ...], chunks: Iterable[Chunk], path: str
) -> Actions:
    """Return actions with the bounds of the settings, or the extremes of each column.

    Raises DataError for columns that may hold choices, unless dataset.columns.discrete or bounds
    say that they do not: a policy with continuous actions would serve 0.85 of a choice.
    """
    if columns.action_low is not None and columns.action_high is not None:
        if len(columns.action_low) != len(names):
            raise DataError(
                f"{columns.setting('action_low')} needs {len(names)} numbers, one per column: "
                f"{', '.join(names)}"
            )
        return Actions(names, False, None, tuple(columns.action_low), tuple(columns.action_high))
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    distinct = [np.empty(0)] * len(names)  # at most FEW_VALUES + 1 of each column
    for chunk in chunks:
        values = matrix(chunk, names)
        if len(values):
            low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        distinct = [few_values(*pair) for pair in zip(distinct, values.T, strict=True)]
    if columns.discrete is None:
        _refuse_choices(names, distinct, path)
    for name, smallest, largest in zip(names, low, high, strict=True):
        if not smallest < largest:
            fault = f"is always {smallest:g}" if smallest == largest else "has no rows"
            raise DataError(
                f"{path}: column {name} {fault}: remove it from dataset.columns.action, or set "
                "the bounds by dataset.columns.action_low and action_high"
            )
    return Actions(names, False, None, tuple(low.tolist()), tuple(high.tolist()))


def may_be_choices(distinct: Array) -> bool:
    """Return whether a column has few different values, all whole numbers."""
    whole = (distinct == np.rint(distinct)).all()
    return 2 <= len(distinct) <= FEW_VALUES and bool(whole)


def _refuse_choices(names: tuple[str, ...], distinct: list[Array], path: str) -> None:
    """Raise DataError for a column of few whole numbers; distinct: values of each column."""
    for name, values in zip(names, distinct, strict=True):
        if may_be_choices(values):
            raise DataError(
                f"{path}: column {name} holds {len(values)} whole numbers "
                f"({', '.join(f'{value:g}' for value in values[:5])}"
                f"{', …' if len(values) > 5 else ''}), which may be choices or amounts: set "
                "dataset.columns.discrete=true for choices"
                f"{' (one action per combination)' if len(names) > 1 else ''}, or "
                "dataset.columns.discrete=false for amounts"
            )


def _choices(chunk: Chunk, names: tuple[str, ...]) -> Any:
    """Return the values of a column; of several, their combination as text: `a=0, b=1`."""
    if len(names) == 1:
        return _category_values(chunk, names[0])
    parts = []
    for name in names:
        values = _category_values(chunk, name).cast(pa.string())
        parts.append(pc.binary_join_element_wise(f"{name}=", values, ""))
    return pc.binary_join_element_wise(*parts, ", ")


def _category_values(chunk: Chunk, name: str) -> Any:
    """Return a column of discrete actions as an Arrow array of int64, text or booleans."""
    values = non_null(chunk, name)
    if is_integer_or_float(values.type):
        return integers(chunk, name)
    if not (is_text(values.type) or pa.types.is_boolean(values.type)):
        raise DataError(
            f"{chunk.position(0, name)} holds {values.type}: discrete actions are integers, text "
            "or booleans"
        )
    return values
