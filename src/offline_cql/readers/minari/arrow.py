"""Minari's Arrow and Parquet formats: a folder for each episode with one file of T+1 rows.

The last row holds the observation after the last action, and padding for everything else. Nested
observations are structs, arrays lists of fixed size. Only the columns that are wanted are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from offline_cql.errors import DataError
from offline_cql.readers.minari.episodes import (
    FLAGS,
    Episode,
    Stored,
    check_array,
    flags,
    pictures,
    stored_shape,
)
from offline_cql.spaces import Leaf

Array = npt.NDArray[Any]

COLUMNS = ("observations", "actions", "rewards", *FLAGS)


def episodes(stored: Stored) -> Iterator[Episode]:
    """In the order of their numbers. Raises DataError, or whatever pyarrow stumbles over."""
    found = sum(path.is_dir() and path.name.isdigit() for path in stored.folder.iterdir())
    stored.check_count(found)
    for number in range(stored.episodes):
        yield _episode(stored, number)


def _episode(stored: Stored, number: int) -> Episode:
    place = f"{stored.dataset_id}: episode {number}"
    files = sorted((stored.folder / str(number)).glob(f"*.{stored.format}"))
    tables = [_table(file, stored.format) for file in files]
    if not tables:
        raise DataError(f"{place} has no .{stored.format} file")
    columns = {name: _column(place, name, tables) for name in COLUMNS}
    observations = [
        _leaf(stored, place, leaf, columns["observations"]) for leaf in stored.layout.leaves
    ]
    rest = {name: columns[name][:-1] for name in COLUMNS[1:]}  # without the padding
    inner = stored_shape(stored.action)
    ends = [flags(f"{place}: {flag}", _array(f"{place}: {flag}", rest[flag], ())) for flag in FLAGS]
    return Episode(
        place,
        observations,
        _array(f"{place}: actions", rest["actions"], inner),
        _array(f"{place}: rewards", rest["rewards"], ()),
        *ends,
    )


def _table(file: Path, format_: str) -> pa.Table:
    """The wanted columns of one file, mapped where the format allows."""
    if format_ == "parquet":
        with pa.parquet.ParquetFile(file) as parquet:
            return parquet.read([n for n in parquet.schema_arrow.names if n in COLUMNS])
    with pa.memory_map(str(file)) as source:
        names = pa.ipc.open_file(source).schema.names
        wanted = [index for index, name in enumerate(names) if name in COLUMNS]
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        return pa.ipc.open_file(source, options=options).read_all()


def _column(place: str, name: str, tables: list[pa.Table]) -> pa.Array:
    if any(name not in table.column_names for table in tables):
        raise DataError(f"{place} has no {name}, only {', '.join(tables[0].column_names)}")
    chunks = [chunk for table in tables for chunk in table.column(name).chunks]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _leaf(stored: Stored, place: str, leaf: Leaf, column: pa.Array) -> Array:
    for key in leaf.path:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(str(key)) < 0:
            raise DataError(f"{place}: observations have no {leaf.name}, only {column.type}")
        column = column.field(str(key))
    name = f"{place}: observations {leaf.name}"
    if stored.is_picture(leaf):
        return pictures(name, leaf, column.to_pylist())
    return _array(name, column, stored_shape(leaf.space))


def _array(place: str, column: pa.Array, inner: tuple[int, ...]) -> Array:
    """[T, *inner]."""
    shape: tuple[int, ...] = (len(column),)
    if pa.types.is_fixed_size_list(column.type):
        shape = (len(column), column.type.list_size)
        column = column.flatten()  # leaves empty lists out
    if pa.types.is_nested(column.type) or column.null_count or len(column) != math.prod(shape):
        raise DataError(f"{place} has empty values or lists of several lengths")
    values: Array = column.to_numpy(zero_copy_only=False).reshape(shape)
    check_array(place, values.dtype, shape, inner)
    return values.reshape(len(values), *inner)
