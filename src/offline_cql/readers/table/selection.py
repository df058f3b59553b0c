"""Rows of a table's files in the order that they are read in, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from offline_cql.errors import DataError
from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.arrow_types import is_integer_or_float, is_text
from offline_cql.readers.table.files import Table

POSITION = ("\0file", "\0row")  # no column that is set can have these names
PLACE = "\0place"


class Chunk(NamedTuple):
    """Rows of a table; the columns POSITION of `batch` are the file and the row in that file.

    Of filtered rows there may be a column PLACE, which grows by more than one where rows are left
    out in an episode.
    """

    paths: Sequence[Path]
    batch: pa.RecordBatch

    @property
    def files(self) -> Array:
        """The index of each row's file [T]."""
        return self.batch.column(POSITION[0]).to_numpy()  # type: ignore[no-any-return]

    @property
    def places(self) -> Array | None:
        """PLACE of each row [T], None without one."""
        has_places = PLACE in self.batch.schema.names
        return self.batch.column(PLACE).to_numpy() if has_places else None

    def position(self, row: int, column: str) -> str:
        """Return file, row and column for a message; rows are counted from 0, after the header."""
        if row >= self.batch.num_rows:  # all rows were dropped
            return f"{self.paths[0]}, column {column}"
        number = self.batch.column(POSITION[1])[row].as_py()
        return f"{self.paths[self.files[row]]} at row {number:,}, column {column}"

    def refuse(self, column: str, invalid: Flags, fault: Callable[[int], str]) -> None:
        """Raise DataError at the first row where `invalid` [T] is true; fault(row) describes it."""
        if invalid.any():
            row = int(np.argmax(invalid))
            raise DataError(f"{self.position(row, column)}: {fault(row)}")

    def filter(self, rows: Flags) -> Chunk:
        """Return the rows where `rows` [T] is true."""
        return self if rows.all() else Chunk(self.paths, self.batch.filter(pa.array(rows)))


class Selection:
    """Columns of all files of a table; each file of text is parsed once for it.

    numeric: the columns that are read as double precision. sort_by: the columns of the episode and
    the step; rows are then in the order of them, episodes in the order of their first rows.
    """

    def __init__(self, tables: Sequence[Table], names: Sequence[str], numeric: Collection[str]):
        self.tables, self.names = tables, list(names)
        self.database = tables[0].database
        for name in set(names).difference(numeric):
            _refuse_other_types(tables, name)
        self.numeric = set(numeric)
        self.is_filtered = any(table.filter for table in tables)
        self.unfiltered = [table.select(names, numeric) for table in tables]
        kept = "SELECT * EXCLUDE (keep) FROM ({}) WHERE keep"
        self.sql = [kept.format(sql) if self.is_filtered else sql for sql in self.unfiltered]
        self.sort_by: tuple[str, str] | None = None

    @cached_property
    def size(self) -> int:
        """The number of rows."""
        return sum(self._counts(self.sql))

    def distinct(self, name: str, limit: int) -> list[Any]:
        """Return at most `limit` different values of a column, without missing ones."""
        number = f"c{self.names.index(name)}"
        found = f"SELECT DISTINCT {number} FROM ({self._all()}) WHERE {number} IS NOT NULL"
        (values,) = self._fetch(f"SELECT list({number}) FROM ({found} LIMIT {limit})")
        return values or []

    def first_text(self, name: str) -> str:
        """Return the first value of a column of text that is not a number, "" without any."""
        number = f"c{self.names.index(name)}"
        is_word = f"{number} IS NOT NULL AND TRY_CAST({number} AS DOUBLE) IS NULL"
        row = self._fetch(f"SELECT {number} FROM ({self._all()}) WHERE {is_word} LIMIT 1")
        return str(row[0]) if row else ""

    def count_missing(self, names: Sequence[str], categories: Collection[str]) -> dict[str, int]:
        """Return the number of missing values of columns, and NaN of columns of numbers.

        categories: columns where an empty text is a missing value.
        """
        counts = []
        for name in names:
            number = f"c{self.names.index(name)}"
            has_nan = self.tables[0].columns[name].type in (pa.float64(), pa.float32())
            nan = f" OR isnan({number})" if name in self.numeric or has_nan else ""
            is_text_category = name in categories and is_text(self.tables[0].columns[name].type)
            empty = f" OR {number} = ''" if is_text_category else ""
            counts.append(f"count(*) FILTER ({number} IS NULL{nan}{empty})")
        row = self._fetch(f"SELECT {', '.join(counts)} FROM ({self._all()})")
        return dict(zip(names, row, strict=True))

    def sort_if_needed(self, episode: str, step: str | None) -> bool:
        """Sort the rows by episode and step unless they are.

        Raises DataError where there is no step and an episode continues after another one started.
        Nothing is sorted where an episode is missing, which is refused when it is read.
        """
        e = f"c{self.names.index(episode)}"
        s = f"c{self.names.index(step)}" if step else "row"
        complete, repeated, decreases = self._fetch(
            f"SELECT count(*) = count({e}), "
            f"count(*) FILTER (previous IS DISTINCT FROM {e}) - count(DISTINCT {e}), "
            f"coalesce(bool_or({e} = previous AND {s} < earlier), false) "
            f"FROM (SELECT {e}, {s}, lag({e}) OVER () AS previous, lag({s}) OVER () AS earlier "
            f"FROM ({self._all()}))"
        )
        if not complete or not (repeated or (decreases and step)):
            return False
        if step is None:
            raise DataError(
                f"column {episode}: {repeated:,} times an episode continues after another one "
                "started: sort by episode, step, or make ids unique across files"
            )
        self.sort_by = (e, s)
        return True

    def chunks(self, names: Sequence[str], size: int) -> Iterator[Chunk]:
        """Yield some of the columns in chunks of at most `size` rows."""
        columns, labels = self._columns(names)
        if self.sort_by is None:
            for table, sql in zip(self.tables, self.sql, strict=True):
                yield from self._stream(table.path, f"SELECT {columns} FROM ({sql})", labels, size)
            return
        yield from self._sorted(self._all(), columns, labels, size)

    def placed_chunks(self, episode: str | None, step: str | None, size: int) -> Iterator[Chunk]:
        """Yield all columns as `chunks` does; of filtered rows with the column PLACE."""
        if not self.is_filtered:
            yield from self.chunks(self.names, size)
            return
        columns, labels = self._columns(self.names)
        columns, labels = f"{columns}, place", [*labels, PLACE]
        if episode is None:
            counts = self._counts(self.unfiltered)
            for index, (table, sql) in enumerate(zip(self.tables, self.sql, strict=True)):
                placed = f"SELECT *, row + {sum(counts[:index])} AS place FROM ({sql})"
                sql = f"SELECT {columns} FROM ({placed})"
                yield from self._stream(table.path, sql, labels, size)
            return
        e = f"c{self.names.index(episode)}"
        order = f"c{self.names.index(step)}, file, row" if step else "file, row"
        placed = (
            f"SELECT * EXCLUDE (keep) FROM (SELECT *, "
            f"row_number() OVER (PARTITION BY {e} ORDER BY {order}) AS place "
            f"FROM ({' UNION ALL '.join(self.unfiltered)})) WHERE keep"
        )
        if self.sort_by is None:
            sql = f"SELECT {columns} FROM ({placed}) ORDER BY file, row"
            yield from self._stream(self.tables[0].path, sql, labels, size)
        else:
            yield from self._sorted(placed, columns, labels, size)

    def _columns(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """Return some of the columns in SQL, and their names in a chunk."""
        numbers = [f"c{self.names.index(name)}" for name in names]
        return ", ".join([*numbers, "file", "row"]), [*names, *POSITION]

    def _sorted(self, rows: str, columns: str, labels: list[str], size: int) -> Iterator[Chunk]:
        assert self.sort_by is not None
        episode, step = self.sort_by
        sql = (
            f"WITH steps AS NOT MATERIALIZED ({rows}), firsts AS "
            f"(SELECT {episode}, min((file << 40) + row) AS first FROM steps GROUP BY {episode}) "
            f"SELECT {columns} FROM steps JOIN firsts USING ({episode}) "
            f"ORDER BY first, {step}, file, row"
        )
        yield from self._stream(self.tables[0].path, sql, labels, size)

    def _counts(self, queries: Sequence[str]) -> list[int]:
        return [self._fetch(f"SELECT count(*) FROM ({sql})")[0] for sql in queries]

    def _stream(self, path: Path, sql: str, labels: list[str], size: int) -> Iterator[Chunk]:
        paths = [table.path for table in self.tables]
        with self.database.errors(path):
            batches = iter(self.database.batches(sql, size))
        while True:
            with self.database.errors(path):  # only while reading, not in the caller's code
                batch = next(batches, None)
            if batch is None:
                return
            for start in range(0, batch.num_rows, size):
                part = batch.slice(start, size)
                yield Chunk(paths, pa.RecordBatch.from_arrays(part.columns, names=labels))

    def _all(self) -> str:
        return " UNION ALL ".join(self.sql)

    def _fetch(self, sql: str) -> Any:
        with self.database.errors(self.tables[0].path):
            return self.database.fetch(sql)


def unify_codes(tables: Sequence[Table], name: str, *, as_text: bool) -> None:
    """Give a column of episodes, choices or categories one type in all files.

    Whole numbers are read as text where `as_text` is set; those of a CSV also where another file
    has text, and where they are codes as 007. Without any value a column has the type of the
    other files.
    """
    kinds = [table.columns[name].type for table in tables]
    texts = [is_text(kind) for kind in kinds]
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if not all(is_text(kind) or pa.types.is_integer(kind) for kind in known):
        return
    is_typed = any(table.is_typed for table in tables)
    if any(texts) and not all(texts) and is_typed and not as_text and len(known) == len(kinds):
        return  # refused when it is read
    if as_text or any(texts) or any(table.are_codes(name) for table in tables):
        kind = pa.string()
    elif known and len(known) < len(kinds):
        kind = pa.int64()
    else:
        return
    for table in tables:
        table.retype(name, kind)


def _refuse_other_types(tables: Sequence[Table], name: str) -> None:
    """Raise DataError if a column holds numbers in one file and text or times in another."""
    first = tables[0].columns[name].type
    for table in tables[1:]:
        kind = table.columns[name].type
        if kind != first and not (is_integer_or_float(kind) and is_integer_or_float(first)):
            raise DataError(
                f"{table.path}: column {name} is {kind}, in other files {first}: write it with one "
                "type, or leave it out"
            )
