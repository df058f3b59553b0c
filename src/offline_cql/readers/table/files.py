"""The files of a table, read in chunks: Parquet, CSV (also .csv.gz) and NPZ.

Parquet and CSV are streamed; of an NPZ the arrays in use are loaded. Nothing in a file is imported
or unpickled.
"""

from __future__ import annotations

import glob
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from offline_cql.errors import DataError
from offline_cql.io import expand_home
from offline_cql.readers.foreign_files import (
    refuse_foreign_content,
    refuse_json,
    refuse_other_separators,
)
from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.writer import translate_errors

CSV_BLOCK = 8 * 2**20  # bytes parsed at a time; the types are inferred from the first block
STREAM = 2**20  # bytes of a Parquet column read at a time
JSON, HDF5 = (".json", ".jsonl", ".ndjson"), (".hdf5", ".h5")


class Chunk(NamedTuple):
    """Consecutive rows of a file: the columns, and the file's row number of the first one."""

    path: Path
    first: int
    batch: pa.RecordBatch

    def position(self, row: int, column: str) -> str:
        """Return file, row and column for a message; rows are counted from 0, after the header."""
        return f"{self.path} at row {self.first + row:,}, column {column}"

    def refuse(self, column: str, invalid: Flags, fault: Callable[[int], str]) -> None:
        """Raise DataError at the first row where `invalid` [T] is true; fault(row) describes it."""
        if invalid.any():
            row = int(np.argmax(invalid))
            raise DataError(f"{self.position(row, column)}: {fault(row)}")


def find_files(path: str) -> list[Path]:
    """Return the files of a path or glob, part_2 before part_10. Raises DataError for none."""
    expanded = expand_home(path, "set dataset.path to an absolute path")
    if expanded.exists() and not (expanded.is_file() or expanded.is_dir()):
        raise DataError(f"{path} is not a regular file: copy its content into one")
    if expanded.is_dir():
        raise DataError(f"{path} is a folder: name its files, as in dataset.path={path}/*.parquet")
    paths = [expanded] if expanded.exists() else [Path(name) for name in glob.glob(str(expanded))]
    files = sorted((file for file in paths if file.is_file()), key=natural_key)
    if not files:
        raise DataError(f"{path} does not exist: set dataset.path to a file or a glob")
    return files


def natural_key(name: str | Path) -> list[tuple[int, str]]:
    """Return a sorting key that puts obs_2 before obs_10."""
    parts = re.split(r"(\d+)", str(name))
    return [(int(part), part) if part.isdecimal() else (0, part) for part in parts]


def match_columns(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the columns that match a name or a pattern with `*`, in natural order."""
    if pattern in names:  # an exact match, even if the name contains a `*`
        return [pattern]
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return sorted((name for name in names if expression.fullmatch(name)), key=natural_key)


def open_table(path: Path) -> TableFile:
    """Open a file by its suffix. Raises DataError for other suffixes and unreadable files."""
    lower = path.name.lower()
    for suffix, table_class in FORMATS.items():
        if lower.endswith(suffix):
            with translate_errors(path, "put an intact copy there"):
                refuse_foreign_content(path, suffix)
                file = table_class(path)
                names = file.schema.names  # may not be UTF-8
            if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
                raise DataError(f"{path} has more than one column {duplicates[0]!r}: rename one")
            return file
    if lower.endswith(JSON):
        refuse_json(path)
    hdf5 = "; D4RL's layout by dataset=d4rl" if lower.endswith(HDF5) else ""
    raise DataError(f"{path} cannot be read: supported are {', '.join(FORMATS)}{hdf5}")


def read_chunks(
    file: TableFile, names: list[str], *, numeric: Collection[str] = (), size: int
) -> Iterator[Chunk]:
    """Yield the columns of a file in chunks of at most `size` rows."""
    first = 0
    batches = file.batches(names, numeric=numeric, size=size)
    while True:
        with translate_errors(file.path):  # only while reading, not in the caller's code
            batch = next(batches, None)
        if batch is None:
            return
        for start in range(0, batch.num_rows, size):
            yield Chunk(file.path, first + start, batch.slice(start, size))
        first += batch.num_rows


class ParquetTable:
    """A Parquet file, streamed; like the other classes it has a schema and the number of rows.

    A column of lists of D numbers is D columns, name_0 … name_D-1, or the column itself if D is 1.
    rows: None if unknown before the file is read. `batches` yields record batches of at most
    `size` rows; the columns `numeric` of a CSV may change from 1 to 1.5.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lists: dict[str, tuple[str, int]] = {}  # column: (column of lists, index in it)
        self.lengths: dict[str, int] = {}  # of the lists, by their column
        with self._open() as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
            names = [field.name for field in self.schema if _is_list_of_numbers(field.type)]
            first = next(file.iter_batches(batch_size=1, columns=names), None) if names else None
        if first is not None and first.num_rows:
            self._split_lists(first)

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        stored = list(dict.fromkeys(self.lists.get(name, (name, 0))[0] for name in names))
        first = 0
        with self._open() as file:
            for batch in file.iter_batches(batch_size=size, columns=stored):
                yield self._with_columns(batch, names, first) if self.lists else batch
                first += batch.num_rows

    def _open(self) -> Any:
        # pre_buffer would keep whole columns of the file in memory.
        return pq.ParquetFile(self.path, buffer_size=STREAM, pre_buffer=False)

    def _split_lists(self, first: pa.RecordBatch) -> None:
        """Replace the columns of lists in the schema, by the lengths in the first row."""
        self.lengths = {
            name: len(lists[0])
            for name, lists in zip(first.schema.names, first.columns, strict=True)
            if lists[0].is_valid and len(lists[0])
        }
        fields = []
        for field in self.schema:
            length = self.lengths.get(field.name, 0)
            names = [field.name if length == 1 else f"{field.name}_{i}" for i in range(length)]
            self.lists |= {name: (field.name, index) for index, name in enumerate(names)}
            fields += [pa.field(name, field.type.value_type) for name in names] or [field]
        self.schema = pa.schema(fields)

    def _with_columns(self, batch: pa.RecordBatch, names: list[str], first: int) -> pa.RecordBatch:
        """Return the columns `names` of a batch that begins at row `first` of the file."""
        matrices = {
            name: self._matrix(batch, name, first)
            for name in batch.schema.names
            if name in self.lengths
        }
        columns = []
        for name in names:
            source, index = self.lists.get(name, (name, 0))
            is_split = source in matrices
            columns.append(pa.array(matrices[source][:, index]) if is_split else batch[name])
        return pa.RecordBatch.from_arrays(columns, names=names)

    def _matrix(self, batch: pa.RecordBatch, name: str, first: int) -> Array:
        """Return a column of lists as an array [T, D], NaN where a list is missing."""
        lists, length = batch.column(name), self.lengths[name]
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        lengths = pc.list_value_length(lists).fill_null(length).to_numpy()
        if (lengths != length).any():
            row = int(np.argmax(lengths != length))
            raise DataError(
                f"{self.path} at row {first + row:,}, column {name}: {lengths[row]} numbers, in "
                f"the first row {length}: every row needs as many"
            )
        numbers = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
        values: Array = numbers.reshape(-1, length)
        if present.all():
            return values
        result = np.full((len(lists), length), np.nan)
        result[present] = values
        return result


class CsvTable:
    """A CSV file, streamed: names in the first line, commas, missing values empty or NaN."""

    rows = None

    def __init__(self, path: Path):
        self.path = path
        refuse_other_separators(path)
        with self._reader(pa_csv.ConvertOptions()) as reader:
            self.schema = reader.schema

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        types = {name: self.schema.field(name).type for name in names}
        for name in numeric:
            if pa.types.is_integer(types[name]) or pa.types.is_null(types[name]):
                types[name] = pa.float64()
        options = pa_csv.ConvertOptions(
            include_columns=names,
            column_types=types,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        try:
            with self._reader(options) as reader:
                yield from reader
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.path}: {' '.join(str(error).split())}; types are inferred from the first "
                "rows: correct the value, or for an action set dataset.columns.discrete=false"
            ) from error

    def _reader(self, options: Any) -> Any:
        block = pa_csv.ReadOptions(block_size=CSV_BLOCK)
        return pa_csv.open_csv(self.path, read_options=block, convert_options=options)


class NpzTable:
    """An NPZ file: an array [N] or [N, 1] is a column; [N, D] is D columns, name_0 … name_D-1."""

    def __init__(self, path: Path):
        self.path, self.rows = path, None
        self.sources: dict[str, tuple[str, int | None]] = {}  # column: (array, index in it)
        fields = []
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, dtype = _header(file)
                array = member.removesuffix(".npy")
                columns: dict[str, tuple[str, int | None]] = {}
                if len(shape) == 1 or shape[1:] == (1,):
                    columns = {array: (array, None)}
                elif len(shape) == 2:
                    columns = {f"{array}_{i}": (array, i) for i in range(shape[1])}
                self.sources |= columns
                arrow_type = _arrow_type(dtype)
                fields += [pa.field(name, arrow_type) for name in columns]
        self.schema = pa.schema(fields)

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        with np.load(self.path, allow_pickle=False) as archive:
            arrays = {array: archive[array] for array in {self.sources[n][0] for n in names}}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} {length:,}" for name, length in sorted(lengths.items()))
            raise DataError(
                f"{self.path}: the arrays differ in length ({sizes}): every array needs one row "
                "per step"
            )
        for start in range(0, max(lengths.values()), size):
            columns = []
            for name in names:
                array, index = self.sources[name]
                part = arrays[array][start : start + size]
                columns.append(_arrow(part.reshape(-1) if index is None else part[:, index]))
            yield pa.RecordBatch.from_arrays(columns, names=names)


TableFile: TypeAlias = ParquetTable | CsvTable | NpzTable
FORMATS: dict[str, Callable[[Path], TableFile]] = {
    ".parquet": ParquetTable,
    ".csv": CsvTable,
    ".csv.gz": CsvTable,
    ".npz": NpzTable,
}


def _is_list_of_numbers(kind: Any) -> bool:
    """Return True for lists, also of a fixed size, of integers, floats or booleans."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    is_list = any(is_kind(kind) for is_kind in lists)
    return is_list and any(is_kind(kind.value_type) for is_kind in numbers)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an array in an archive without reading its content."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    shape, _, dtype = readers[version](file)
    return shape, dtype


def _arrow_type(dtype: np.dtype[Any]) -> Any:
    """Return the Arrow type of a dtype; null if unsupported, an error only when used."""
    try:
        return pa.null() if dtype.kind == "O" else _arrow(np.empty(0, dtype)).type
    except pa.ArrowException:
        return pa.null()


def _arrow(values: Array) -> Any:
    """Return an Arrow array: bytes become text, in the machine's byte order."""
    if values.dtype.kind == "S":
        values = values.astype(np.str_)
    return pa.array(values.astype(values.dtype.newbyteorder("="), order="C", copy=False))
