"""Columns of a table as validated arrays; errors name the file, row and column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from offline_cql.errors import DataError
from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.arrow_types import is_integer_or_float, is_text, is_time
from offline_cql.readers.table.selection import Chunk

MAX_SHOWN = 40  # characters of a value in a message


NOT_NUMBERS = (
    (is_text, "text", "encode it as numbers (an index, or one column of 0 and 1 per text), or "
     "leave it out"),
    (pa.types.is_temporal, "times ({})", "convert it to numbers (for instance the hour, or days "
     "since a date), or leave it out"),
    (pa.types.is_nested, "{}", "split it into one column per number"),
)  # fmt: skip


class MissingValueError(DataError):
    """A value is missing where one is needed."""


class MissingNextError(MissingValueError):
    """A next observation is missing inside an episode."""


def column(chunk: Chunk, name: str) -> Any:
    """Return a column as an Arrow array."""
    return chunk.batch.column(chunk.batch.schema.get_field_index(name))


def non_null(chunk: Chunk, name: str) -> Any:
    """Return a column. Raises MissingValueError."""
    values = column(chunk, name)
    if values.null_count:
        row = values.is_null().to_numpy(zero_copy_only=False).argmax()
        raise MissingValueError(f"{chunk.position(row, name)}: the value is missing")
    return values


def nullable_numbers(chunk: Chunk, name: str) -> Array:
    """Return a numeric column [T] in float64, NaN where a value is missing."""
    values = column(chunk, name)
    kind = values.type
    for unsuitable, content, remedy in NOT_NUMBERS:
        if unsuitable(kind):
            raise DataError(f"{chunk.position(0, name)} holds {content.format(kind)}: {remedy}")
    if not is_integer_or_float(kind):
        raise DataError(f"{chunk.position(0, name)} holds {kind}, expected numbers")
    return values.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)  # type: ignore[no-any-return]


def numbers(chunk: Chunk, name: str) -> Array:
    """Return a numeric column [T]. Raises DataError for missing and infinite values."""
    values = nullable_numbers(chunk, name)
    refuse_missing(chunk, name, values)
    return values


def refuse_missing(chunk: Chunk, name: str, values: Array) -> None:
    """Raise DataError for missing (NaN) and infinite values [T] of a column."""
    is_missing = np.isnan(values)
    if is_missing.any():
        position = chunk.position(int(is_missing.argmax()), name)
        raise MissingValueError(f"{position}: the value is missing (or NaN)")
    refuse_infinite(chunk, name, values)


def refuse_infinite(chunk: Chunk, name: str, values: Array) -> None:
    """Raise DataError for infinite values [T] of a column."""
    chunk.refuse(name, np.isinf(values), lambda row: "the value is infinite")


def matrix(chunk: Chunk, names: tuple[str, ...]) -> Array:
    """Return numeric columns side by side [T, D]. Raises DataError as `numbers`."""
    return np.stack([numbers(chunk, name) for name in names], axis=1)


def flags(chunk: Chunk, name: str | None) -> Flags:
    """Return a column of booleans or 0 and 1 as bool [T]; all False without a column."""
    if name is None:
        return np.zeros(chunk.batch.num_rows, bool)
    values = numbers(chunk, name)
    invalid = (values != 0) & (values != 1)
    chunk.refuse(name, invalid, lambda row: f"{values[row]:g} must be 0 or 1")
    return values.astype(bool)


def integers(chunk: Chunk, name: str) -> Any:
    """Return a column as an Arrow array of int64; floats must have no fraction."""
    non_null(chunk, name)
    return whole_numbers(chunk, name)


def whole_numbers(chunk: Chunk, name: str) -> Any:
    """Return a column as an Arrow array of int64, null where a value is missing."""
    values = column(chunk, name)
    kind = values.type
    if not (is_integer_or_float(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{chunk.position(0, name)} holds {kind}, expected integers or times")
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:  # 1.5, NaN, 2^64
        position = chunk.position(0, name)
        raise DataError(f"{position} and after: not all are integers ({error})") from error


def step_values(chunk: Chunk, name: str) -> tuple[Any, bool]:
    """Return a column of integers or of times as int64 [T], and whether they are times."""
    if not is_time(column(chunk, name).type):
        return integers(chunk, name).to_numpy(), False
    values = non_null(chunk, name)
    kind = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    return values.cast(kind).to_numpy().astype(np.int64), True


def episode_ids(chunk: Chunk, name: str) -> Any:
    """Return a column of texts, integers or dates that identify episodes, as an Arrow array."""
    values = non_null(chunk, name)
    kind = values.type
    if pa.types.is_floating(kind):
        return integers(chunk, name)  # many tools write integers with gaps as floats
    plain = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text(kind)
    if not (plain or (pa.types.is_temporal(kind) and not pa.types.is_duration(kind))):
        raise DataError(
            f"{chunk.position(0, name)} holds {kind}: episodes are identified by integers, text "
            "or dates"
        )
    return values


def format_entry(values: Any, row: int) -> str:
    """Return one value of an Arrow array for a message: on one line, quoted if necessary."""
    text = str(values.slice(row, 1).cast(pa.string())[0])
    short = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return short if short.isprintable() and short.strip() == short != "" else repr(short)
