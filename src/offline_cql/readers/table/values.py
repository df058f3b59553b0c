"""A table's columns as arrays of checked numbers; each refusal names the file, row and column.

Knows nothing of episodes or settings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.errors import DataError
from offline_cql.readers.table.files import Piece

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

# Whatever float32 holds exactly, or is itself.
SINGLE = ("bool", "int8", "int16", "uint8", "uint16", "halffloat", "float")
TEXT = ("string", "large_string", "string_view")

MOST_SHOWN = 40  # letters of a value in a message


def plain_type(kind: Any) -> Any:
    """The type of the values, where a column lists each value once and refers to it."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: Any) -> bool:
    return str(plain_type(kind)) in TEXT


def is_category(kind: Any) -> bool:
    """Whether a lone action column of this type holds choices, not amounts."""
    plain = plain_type(kind)
    return pa.types.is_integer(plain) or pa.types.is_boolean(plain) or is_text(plain)


def column(piece: Piece, name: str) -> Any:
    """A column as an Arrow array of plain values."""
    values = piece.batch.column(piece.batch.schema.get_field_index(name))
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values


def complete(piece: Piece, name: str) -> Any:
    """A column without a missing value."""
    values = column(piece, name)
    if values.null_count:
        first = int(pc.index(values.is_null(), True).as_py())
        raise DataError(f"{piece.at(first, name)}: the value is missing")
    return values


def unchecked(piece: Piece, name: str) -> Array:
    """A column of numbers [T] in float32 or float64, NaN where a value is missing."""
    values = column(piece, name)
    kind = values.type
    if is_text(kind):
        hint = "give each text a number, or a column of 0 and 1"
        raise DataError(f"{piece.at(0, name)} holds text: {hint}, or leave it out")
    if pa.types.is_temporal(kind):
        hint = "give what matters of them as numbers, as in the hour or the days since"
        raise DataError(f"{piece.at(0, name)} holds times ({kind}): {hint}, or leave it out")
    if pa.types.is_nested(kind):
        raise DataError(f"{piece.at(0, name)} holds {kind}: make a column of each number in it")
    known = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (known or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise DataError(f"{piece.at(0, name)} holds {kind}, not numbers")
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64(), safe=False)
    elif pa.types.is_boolean(kind) or pa.types.is_null(kind):
        values = values.cast(pa.float32())
    wanted = np.float32 if str(kind) in SINGLE else np.float64
    # A missing whole number makes NumPy's array one of float64, with NaN in its place.
    return values.to_numpy(zero_copy_only=False).astype(wanted, copy=False)  # type: ignore[no-any-return]


def numbers(piece: Piece, name: str) -> Array:
    """A column of numbers [T], every one there and finite."""
    values = unchecked(piece, name)
    finite = np.isfinite(values)
    if not finite.all():
        first = int(np.argmin(finite))
        missing = "missing (or NaN)" if np.isnan(values[first]) else "infinite"
        raise DataError(f"{piece.at(first, name)}: the value is {missing}")
    return values


def table(piece: Piece, names: tuple[str, ...], *, missing: bool = False) -> Array:
    """Columns side by side [T, D], in float32 if all of them fit into it; missing: NaN may stay."""
    each = [(unchecked if missing else numbers)(piece, name) for name in names]
    result = np.empty((piece.batch.num_rows, len(each)), np.result_type(*each))
    for index, values in enumerate(each):
        result[:, index] = values
    return result


def flags(piece: Piece, name: str | None) -> Flags:
    """A column of yes and no [T], also as 0 and 1; all no without a column."""
    if name is None:
        return np.zeros(piece.batch.num_rows, bool)
    values = numbers(piece, name)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(f"{piece.at(first, name)}: {values[first]:g} must be 0 or 1")
    return values.astype(bool)


def whole(piece: Piece, name: str) -> Any:
    """A column of whole numbers as an Arrow array of int64; floats without a fraction are some."""
    values = complete(piece, name)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{piece.at(0, name)} holds {kind}, not whole numbers")
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid as error:  # 1.5, NaN, 2^64
        raise DataError(f"{piece.at(0, name)} and on: not all whole numbers ({error})") from error


def identifiers(piece: Piece, name: str) -> Any:
    """A column of names, numbers or dates that tell episodes apart, as an Arrow array."""
    values = complete(piece, name)
    kind = values.type
    if pa.types.is_floating(kind):
        return whole(piece, name)  # what a whole number becomes where one was missing
    known = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text(kind)
    if not (known or (pa.types.is_temporal(kind) and not pa.types.is_duration(kind))):
        raise DataError(f"{piece.at(0, name)} holds {kind}: an episode is a number, text or date")
    return values


def in_words(values: Any, row: int) -> str:
    """A value of an Arrow array for a message: on one line, quoted where that is not plain."""
    text = str(values.slice(row, 1).cast(pa.string())[0])
    short = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return short if short.isprintable() and short.strip() == short != "" else repr(short)
