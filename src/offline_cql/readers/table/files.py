"""The files of a table, read a piece at a time: Parquet, CSV (also .csv.gz) and NPZ.

Parquet and CSV are streamed; of an NPZ the arrays that are asked for lie in memory. A file is only
ever data: nothing in it is imported or unpickled. Knows nothing of what a column means.
"""

from __future__ import annotations

import glob
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from offline_cql.errors import DataError

CSV_BLOCK = 8 * 2**20  # bytes parsed at a time; the types are guessed from the first block
STREAM = 2**20  # bytes of a Parquet column read at a time


class Piece(NamedTuple):
    """Some consecutive rows of a file: the columns, and the number of the first row in it."""

    path: Path
    first: int
    batch: pa.RecordBatch

    def at(self, row: int, column: str) -> str:
        """The place of a value in words; rows are counted from 0, without a header."""
        return f"{self.path} at row {self.first + row:,}, column {column}"


class TableFile(Protocol):
    """One file: columns by name, with their types."""

    path: Path
    schema: pa.Schema
    rows: int | None  # where the file says so

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        """The columns as record batches; a CSV's `numeric` ones may turn from 1 to 1.5."""
        ...


def files_of(path: str) -> list[Path]:
    """The files that a path or a glob names, part_2 before part_10. Raises DataError for none."""
    wanted = Path(path).expanduser()
    if wanted.is_dir():
        raise DataError(f"{path} is a folder: name its files, as in dataset.path={path}/*.parquet")
    found = [wanted] if wanted.exists() else [Path(name) for name in glob.glob(str(wanted))]
    files = sorted((file for file in found if file.is_file()), key=natural)
    if not files:
        raise DataError(f"{path}: there is no such file; dataset.path names your logs, or a glob")
    return files


def natural(name: str | Path) -> list[tuple[int, str]]:
    """The key of an order in which obs_2 comes before obs_10."""
    parts = re.split(r"(\d+)", str(name))
    return [(int(part), part) if part.isdecimal() else (0, part) for part in parts]


def opened(path: Path) -> TableFile:
    """The reader for a file's suffix. Raises DataError when it is none of ours, or unreadable."""
    for suffix, kind in READERS.items():
        if path.name.lower().endswith(suffix):
            with readable(path):
                file: TableFile = kind(path)
            names = file.schema.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise DataError(f"{path} has more than one column {twice[0]!r}: rename one")
            return file
    raise DataError(f"{path} cannot be read: it must be one of {', '.join(READERS)}")


def pieces(
    file: TableFile, names: list[str], *, numeric: Collection[str] = (), size: int
) -> Iterator[Piece]:
    """The columns of a file in pieces of at most `size` rows."""
    first = 0
    batches = file.batches(names, numeric=numeric, size=size)
    while True:
        with readable(file.path):  # around the reading alone, not around what is done with it
            batch = next(batches, None)
        if batch is None:
            return
        for start in range(0, batch.num_rows, size):
            yield Piece(file.path, first + start, batch.slice(start, size))
        first += batch.num_rows


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Foreign files: whatever pyarrow or NumPy stumbles over is a fault of theirs."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from error


class ParquetTable:
    def __init__(self, path: Path):
        self.path = path
        with pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        # Reading ahead (pre_buffer) would hold whole columns of the file.
        with pq.ParquetFile(self.path, buffer_size=STREAM, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=size, columns=names)


class CsvTable:
    """A first line of names, commas between the values, nothing or NaN where one is missing."""

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
                f"{self.path}: {' '.join(str(error).split())}; a column's type is guessed from the "
                "file's beginning: mend the value, or for an action dataset.columns.discrete=false"
            ) from error

    def _reader(self, options: Any) -> Any:
        block = pa_csv.ReadOptions(block_size=CSV_BLOCK)
        return pa_csv.open_csv(self.path, read_options=block, convert_options=options)


class NpzTable:
    """Arrays by name: [N] and [N, 1] are a column; [N, D] is D columns, name_0 … name_D-1."""

    def __init__(self, path: Path):
        self.path, self.places, self.rows = path, dict[str, tuple[str, int | None]](), None
        fields = []
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, dtype = _header(file)
                array = member.removesuffix(".npy")
                if len(shape) == 1 or shape[1:] == (1,):
                    self.places[array] = (array, None)
                elif len(shape) == 2:
                    each = {f"{array}_{i}": (array, i) for i in range(shape[1])}
                    self.places |= each
                own = [name for name, place in self.places.items() if place[0] == array]
                kind = _arrow_type(dtype)
                fields += [pa.field(name, kind) for name in own]
        self.schema = pa.schema(fields)

    def batches(self, names: list[str], *, numeric: Collection[str], size: int) -> Iterator[Any]:
        with np.load(self.path, allow_pickle=False) as archive:
            arrays = {place: archive[place] for place in {self.places[n][0] for n in names}}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length:,}" for name, length in sorted(lengths.items()))
            raise DataError(
                f"{self.path}: the arrays differ in length ({found}); one row is a step"
            )
        for start in range(0, max(lengths.values()), size):
            columns = []
            for name in names:
                array, index = self.places[name]
                part = arrays[array][start : start + size]
                columns.append(_arrow(part.reshape(-1) if index is None else part[:, index]))
            yield pa.RecordBatch.from_arrays(columns, names=names)


READERS: dict[str, Any] = {
    ".parquet": ParquetTable,
    ".csv": CsvTable,
    ".csv.gz": CsvTable,
    ".npz": NpzTable,
}


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in an archive, without reading it."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    shape, _, dtype = readers[version](file)
    return shape, dtype


def _arrow_type(dtype: np.dtype[Any]) -> Any:
    """null for what cannot be read: it matters only to whoever asks for that array."""
    try:
        return pa.null() if dtype.kind == "O" else _arrow(np.empty(0, dtype)).type
    except pa.ArrowException:
        return pa.null()


def _arrow(values: npt.NDArray[Any]) -> Any:
    """As an Arrow array, bytes as text, in the machine's byte order."""
    if values.dtype.kind == "S":
        values = values.astype(np.str_)
    return pa.array(values.astype(values.dtype.newbyteorder("="), order="C", copy=False))
