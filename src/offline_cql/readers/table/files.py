"""The files of a table, read in chunks: Parquet, CSV (also .csv.gz) and NPZ.

Parquet and CSV are streamed; of an NPZ the arrays in use are loaded. Nothing in a file is imported
or unpickled.
"""

from __future__ import annotations

import glob
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from offline_cql.errors import DataError
from offline_cql.io import expand_home
from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.writer import translate_errors

CSV_BLOCK = 8 * 2**20  # bytes parsed at a time; the types are inferred from the first block
STREAM = 2**20  # bytes of a Parquet column read at a time


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


def open_table(path: Path) -> TableFile:
    """Open a file by its suffix. Raises DataError for other suffixes and unreadable files."""
    for suffix, table_class in FORMATS.items():
        if path.name.lower().endswith(suffix):
            with translate_errors(path):
                file = table_class(path)
                names = file.schema.names  # may not be UTF-8
            if duplicates := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{path} has more than one column {duplicates[0]!r}: rename one")
            return file
    raise DataError(f"{path} cannot be read: supported are {', '.join(FORMATS)}")


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

    rows: None if unknown before the file is read. `batches` yields record batches of at most
    `size` rows; the columns `numeric` of a CSV may change from 1 to 1.5.
    """

    def __init__(self, path: Path):
        self.path = path
        with pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        # pre_buffer would keep whole columns of the file in memory.
        with pq.ParquetFile(self.path, buffer_size=STREAM, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=size, columns=names)


class CsvTable:
    """A CSV file, streamed: names in the first line, commas, missing values empty or NaN."""

    rows = None

    def __init__(self, path: Path):
        self.path = path
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
