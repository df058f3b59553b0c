"""Minari's Arrow and Parquet formats: a folder per episode with one file of T+1 rows.

The last row holds the observation after the last action, and padding in the other columns. Nested
observations are structs, arrays are lists of fixed size. Only the columns in use are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from offline_cql.errors import DataError
from offline_cql.readers.minari.episodes import (
    FLAGS,
    Episode,
    StoredDataset,
    build_episode,
    check_array,
    decode_images,
    stored_shape,
)
from offline_cql.readers.row_files import Array
from offline_cql.spaces import Leaf

COLUMNS = ("observations", "actions", "rewards", *FLAGS)


def episodes(stored: StoredDataset) -> Iterator[Episode]:
    """Yield the episodes by number. Raises DataError, or any error of pyarrow's."""
    stored.check_count(
        sum(path.is_dir() and path.name.isdigit() for path in stored.folder.iterdir())
    )
    for number in range(stored.episodes):
        yield _episode(stored, number)


def _episode(stored: StoredDataset, number: int) -> Episode:
    name = f"{stored.dataset_id}: episode {number}"
    files = sorted((stored.folder / str(number)).glob(f"*.{stored.format}"))
    tables = [_table(file, stored.format) for file in files]
    if not tables:
        raise DataError(f"{name} has no .{stored.format} file")
    columns = {column: _column(name, column, tables) for column in COLUMNS}

    def array(column: str, inner: tuple[int, ...]) -> Array:
        steps = columns[column][:-1]  # without the padding
        return _array(f"{name}: {column}", steps, inner)

    return build_episode(
        stored, number, array, lambda leaf: _leaf(stored, name, leaf, columns["observations"])
    )


def _table(file: Path, format_: str) -> pa.Table:
    """Return the columns in use of one file, memory-mapped where the format allows."""
    if format_ == "parquet":
        with pa.parquet.ParquetFile(file) as parquet:
            return parquet.read([n for n in parquet.schema_arrow.names if n in COLUMNS])
    with pa.memory_map(str(file)) as source:
        names = pa.ipc.open_file(source).schema.names
        indices = [index for index, name in enumerate(names) if name in COLUMNS]
        options = pa.ipc.IpcReadOptions(included_fields=indices)
        return pa.ipc.open_file(source, options=options).read_all()


def _column(episode: str, column: str, tables: list[pa.Table]) -> pa.Array:
    if any(column not in table.column_names for table in tables):
        raise DataError(f"{episode} has no {column}, only {', '.join(tables[0].column_names)}")
    chunks = [chunk for table in tables for chunk in table.column(column).chunks]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _leaf(stored: StoredDataset, episode: str, leaf: Leaf, column: pa.Array) -> Array:
    for key in leaf.path:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(str(key)) < 0:
            raise DataError(f"{episode}: observations have no {leaf.name}, only {column.type}")
        column = column.field(str(key))
    name = f"{episode}: observations {leaf.name}"
    if stored.is_jpeg(leaf):
        return decode_images(name, leaf, column.to_pylist())
    return _array(name, column, stored_shape(leaf.space))


def _array(name: str, column: pa.Array, inner: tuple[int, ...]) -> Array:
    """Return a column as an array [T, *inner]; `name` is for messages."""
    shape: tuple[int, ...] = (len(column),)
    if pa.types.is_fixed_size_list(column.type):
        shape = (len(column), column.type.list_size)
        column = column.flatten()  # drops null lists, so the length below differs
    if pa.types.is_nested(column.type) or column.null_count or len(column) != math.prod(shape):
        raise DataError(f"{name} has missing values or lists of different lengths")
    values: Array = column.to_numpy(zero_copy_only=False).reshape(shape)
    check_array(name, values.dtype, shape, inner)
    return values.reshape(len(values), *inner)
