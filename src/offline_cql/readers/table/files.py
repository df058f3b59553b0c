"""The files of a table, read by DuckDB: Parquet, CSV, JSON lines (also .gz); NPZ by NumPy.

Parquet is streamed; CSV and JSON are parsed once, into a temporary table that may be larger than
the memory. Nothing in a file is imported or unpickled.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import itertools
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offline_cql.errors import DataError
from offline_cql.features import EXPRESSION
from offline_cql.io import expand_home
from offline_cql.readers.foreign_files import holds_batches, refuse_foreign_content
from offline_cql.readers.row_files import Array
from offline_cql.readers.table.arrow_types import (
    is_list_of_numbers,
    is_number,
    is_text,
)
from offline_cql.readers.table.database import (
    LONGEST_VALUE,
    REFUSED,
    Database,
    identifier,
    other_encoding,
    text,
)
from offline_cql.readers.table.user_sql import OTHER_ROWS, invalid_sql, mentioned, on_one_line
from offline_cql.readers.writer import translate_errors

BEGIN = 2**20  # bytes that show how a CSV is written; its header must fit
INTACT = "put an intact copy there"
SEPARATORS = ",;\t|"
# Missing values of a CSV, unless they are quoted.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "-nan", "None", "<NA>")
MOST_COLUMNS = 20_000  # of a CSV: DuckDB needs 10 minutes for 100,000
FIRST_ROWS, FIRST_VALUES = 20_480, 1_000_000  # by which types are found
# SQL for a text {0} as a whole number, NULL if it is none; ANY_WHOLE also with leading zeros, which
# are a part of a code. CODE: such a code, or more digits than float64 holds.
WHOLE = (
    r"CASE WHEN regexp_full_match({0}, '\s*[+-]?(0|[1-9]\d*)\s*') THEN TRY_CAST({0} AS BIGINT) END"
)
ANY_WHOLE = WHOLE.replace(r"(0|[1-9]\d*)", r"\d+")
CODE = r"[+-]?(0\d+|\d{16,})"
# Types of a CSV's values, and SQL for a text as one, NULL if it is none; a number with a point or a
# comma. DuckDB would round 1.5 to an integer and read 1_5 as 15. Times without zone are UTC.
CSV_TYPES = (pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC"))
KINDS = {
    "whole": ANY_WHOLE.format("value"),
    "point": "TRY_CAST(translate(value, '_', '?') AS DOUBLE)",
    "comma": "TRY_CAST(translate(value, '_.,', '??.') AS DOUBLE)",
    "boolean": "TRY_CAST(value AS BOOLEAN)",
    "time": "TRY_CAST(value AS TIMESTAMPTZ)",
}
HDF5 = (".hdf5", ".h5")
CODE_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT"}  # in SQL


class Column(NamedTuple):
    """A column: its SQL over the file's own columns, and its Arrow type."""

    sql: str
    type: Any


# --- Paths ---


def find_files(path: str) -> list[Path]:
    """Return the files of a path, glob or folder, part_2 before part_10. Raises DataError for none.

    Of a folder all files of the formats below it are read, except hidden ones (`.x`, `_x`).
    """
    expanded = expand_home(path, "set dataset.path to an absolute path")
    if expanded.exists() and not (expanded.is_file() or expanded.is_dir()):
        raise DataError(f"{path} is not a regular file: copy its content into one")
    if expanded.is_dir():
        inner = (file.relative_to(expanded) for file in expanded.rglob("*"))
        visible = [file for file in inner if not any(part[0] in "._" for part in file.parts)]
        paths = [expanded / file for file in visible if _format(file) is not None]
        what = f"a file of these formats: {', '.join(FORMATS)}"
    else:
        paths = (
            [expanded] if expanded.exists() else [Path(name) for name in glob.glob(str(expanded))]
        )
        what = "a file, a folder or a glob"
    files = sorted((file for file in paths if file.is_file()), key=natural_key)
    if not files:
        fault = "contains no file to read" if expanded.is_dir() else "does not exist"
        raise DataError(f"{path} {fault}: set dataset.path to {what}")
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


def partition_columns(path: str, files: Sequence[Path]) -> list[dict[str, Column]]:
    """Return the columns that folders named key=value add to each file, as in Hive's layout.

    Folders count below the folder `path`, or from the first wildcard of a glob on.
    """
    expanded = expand_home(path, "")
    fixed = (
        expanded if expanded.exists() else Path(re.split(r"[*?\[]", str(expanded))[0] + "x").parent
    )
    folders = [file.parent.relative_to(fixed).parts if file != fixed else () for file in files]
    keys = [dict(part.split("=", 1) for part in parts if "=" in part) for parts in folders]
    shared = [key for key in keys[0] if all(key in each for each in keys)]
    texts = {key: {each[key] for each in keys} for key in shared}
    numbers = {k for k, t in texts.items() if all(re.fullmatch(r"-?\d{1,18}", v) for v in t)}
    whole = {k for k in numbers if len(set(map(int, texts[k]))) == len(texts[k])}  # not 7 and 07

    def column(key: str, value: str) -> Column:
        if key in whole:
            return Column(f"CAST({int(value)} AS BIGINT)", pa.int64())
        return Column(text(value), pa.string())

    return [{key: column(key, each[key]) for key in shared} for each in keys]


# --- Tables ---


ROW = '"offline_cql row"'  # in SQL: the number of a row in its file


class Table:
    """One file as a table in DuckDB.

    columns: by name. A column of lists of D numbers is D columns, name_0 … name_D-1, or the column
    itself if D is 1; an object is one column per entry, name.key. `compute` adds columns by SQL.
    """

    is_parsed = True  # once, into a temporary table
    is_typed = True  # the file says of what type a column is

    def __init__(self, database: Database, index: int):
        self.database, self.index = database, index
        self.path, self.name = database.paths[index], database.names[index]
        with database.errors(self.path, INTACT):
            schema = self.read_schema()
            counts = Counter(name for name, _ in schema)
            if repeated := sorted(name for name, count in counts.items() if count > 1):
                raise DataError(f"{self.path} has more than one column {repeated[0]!r}: rename one")
            self.columns: dict[str, Column] = {}
            self.computed: dict[str, list[str]] = {}  # the columns that SQL of the user's needs
            self.filter: str | None = None
            for name, column in schema:
                self.columns |= self._expand(name, column)

    @property
    def schema(self) -> Any:
        """The Arrow schema of the columns."""
        return pa.schema([(name, column.type) for name, column in self.columns.items()])

    def read_schema(self) -> list[tuple[str, Column]]:
        """Return the file's own columns with their names, which may repeat."""
        raise NotImplementedError

    def relation(self, columns: Sequence[str], numeric: Collection[str] = ()) -> str:
        """Return SQL for the file's rows with at least the columns `columns` (SQL).

        numeric: those that are read as numbers.
        """
        raise NotImplementedError

    def value(self, name: str, numeric: bool) -> str:
        """Return SQL for a column; double precision if it is `numeric` and holds numbers."""
        sql, kind = self.columns[name]
        if (numeric and is_number(kind)) or pa.types.is_floating(kind) or pa.types.is_null(kind):
            return f"CAST({sql} AS DOUBLE)"
        if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
            return f"CAST({sql} AS BIGINT)"
        return f"CAST({sql} AS VARCHAR)" if is_text(kind) else sql

    def are_codes(self, name: str) -> bool:
        """Return whether the whole numbers of a column are rather text, as 007."""
        return False

    def retype(self, name: str, kind: Any) -> None:
        """Read a column of whole numbers, or without values, as another type of CODE_TYPES."""
        column = self.columns[name]
        if column.type != kind:
            self.columns[name] = Column(f"CAST({column.sql} AS {CODE_TYPES[kind]})", kind)

    def compute(self, name: str, setting: str | None = None) -> None:
        """Add the column `name`: `=` and SQL over the others. Raises DataError for invalid SQL.

        setting: its name in messages; None: the expression.
        """
        own = [column for column in self.columns if column not in self.computed]
        sql = f"({name.removeprefix(EXPRESSION)})"
        label = f"{self.path}: {setting or on_one_line(name)} cannot be computed:"
        if sql == "()":
            raise DataError(f"{label} there is nothing after {EXPRESSION}")
        if match := OTHER_ROWS.search(sql):
            raise DataError(
                f"{label} {match[0]} changes the order or the number of rows: add a column to the "
                "table"
            )
        self.columns[name] = Column(sql, pa.null())  # until its type is known
        self.computed[name] = mentioned(sql, own, label)
        with self.database.errors(self.path):
            relation, _ = self._source([name], ())
        try:
            # `*` refuses a sum over the rows.
            query = f"SELECT {sql} AS value, * FROM {relation} LIMIT 0"
            if len(self.database.connection.extract_statements(query)) > 1:
                raise duckdb.ParserException("more than one statement")
            kind = self.database.batches(query, 1).schema.field(0).type
        except (duckdb.Error, pa.ArrowException) as error:
            message = str(error).replace(self.name, str(self.path))
            raise DataError(f"{label} {invalid_sql(message, own)}") from error
        self.columns[name] = Column(sql, kind)

    def keep_rows(self, condition: str) -> None:
        """Read only the rows that fulfill a condition in SQL. Raises DataError for another type."""
        self.filter = EXPRESSION + condition
        self.compute(self.filter, "dataset.filter")
        if not pa.types.is_boolean(self.columns[self.filter].type):
            shown = on_one_line(condition)
            raise DataError(f"dataset.filter={shown} must be a condition, as in age >= 18")

    def select(
        self, names: Sequence[str], numeric: Collection[str], limit: int | None = None
    ) -> str:
        """Return SQL for the columns `names` as c0, c1, …, then the index of the file and the row.

        The columns `numeric` are of double precision, if they hold numbers. limit: of the rows.
        With a filter there is a column `keep` more.
        """
        with self.database.errors(self.path):
            relation, values = self._source([*names, *filter(None, [self.filter])], numeric)
            selected = [f"{values[name]} AS c{number}" for number, name in enumerate(names)]
            selected.append(f"CAST({self.index} AS BIGINT) AS file")
            if self.filter:
                selected.append(f"{values[self.filter]} AS keep")
            end = "" if limit is None else f" LIMIT {limit}"
            if not self.is_parsed:
                return f"SELECT {', '.join(selected)}, {ROW} AS row FROM {relation}{end}"
            sql = f"SELECT {', '.join(selected)} FROM {relation}{end}"
            self.database.fetch(f"CREATE OR REPLACE TEMP TABLE parsed_{self.index} AS {sql}")
        return f"SELECT *, rowid AS row FROM parsed_{self.index}"

    def _source(self, names: Sequence[str], numeric: Collection[str]) -> tuple[str, dict[str, str]]:
        """Return SQL for the file's rows, and in them for the values of the columns `names`."""
        needed = dict.fromkeys(column for name in names for column in self.computed.get(name, ()))
        own = [name for name in dict.fromkeys([*names, *needed]) if name not in self.computed]
        relation = self.relation(
            [self.columns[name].sql for name in own],
            {self.columns[name].sql for name in own if name in numeric},
        )
        values = {name: self.value(name, name in numeric) for name in {*own, *names}}
        if not needed:
            return relation, values
        # Where SQL of the user's runs, columns have their names; others cannot hide them.
        aliases = {name: f"offline_cql {number}" for number, name in enumerate(own)}
        parts = [f"{values[name]} AS {identifier(aliases[name])}" for name in own]
        parts += [f"{self._plain(name, name in numeric)} AS {identifier(name)}" for name in needed]
        parts += [] if self.is_parsed else [ROW]
        values |= {name: identifier(alias) for name, alias in aliases.items()}
        return f"(SELECT {', '.join(parts)} FROM {relation})", values

    def _plain(self, name: str, numeric: bool) -> str:
        """Return SQL for a column as a value of its own type, for SQL of the user's."""
        value = self.value(name, numeric)
        is_flag = pa.types.is_boolean(self.columns[name].type)
        return f"CAST({value} AS BOOLEAN)" if is_flag and not numeric else value

    def _expand(self, name: str, column: Column) -> dict[str, Column]:
        """Return the columns of numbers that a column of lists or objects is, or itself."""
        if pa.types.is_struct(column.type):
            fields: dict[str, Column] = {}
            for field in column.type:
                inner = Column(f"struct_extract({column.sql}, {text(field.name)})", field.type)
                fields |= self._expand(f"{name}.{field.name}", inner)
            return fields
        if not is_list_of_numbers(column.type):
            return {name: column}
        relation = self.relation([column.sql])
        (length,) = self.database.fetch(f"SELECT len({column.sql}) FROM {relation} LIMIT 1") or (0,)
        if not length:
            return {name: column}
        where = [text(f"{REFUSED}{self.path} at row "), f"format('{{:,}}', {ROW})"]
        fault = text(f" numbers, in the first row {length}: every row needs as many")
        parts = [*where, text(f", column {name}: "), f"len({column.sql})", fault]
        first = (
            f"CASE WHEN len({column.sql}) <> {length} THEN error({' || '.join(parts)}) "
            f"ELSE {column.sql}[1] END"
        )
        entries = [first, *(f"{column.sql}[{number + 1}]" for number in range(1, length))]
        names = [name] if length == 1 else [f"{name}_{number}" for number in range(length)]
        kind = column.type.value_type
        return {name: Column(sql, kind) for name, sql in zip(names, entries, strict=True)}

    def _described(self, relation: str) -> list[tuple[str, Column]]:
        """Return the columns of a relation with DuckDB's names for them."""
        schema = self.database.batches(f"SELECT * FROM {relation} LIMIT 0", 1).schema
        return [(field.name, Column(identifier(field.name), field.type)) for field in schema]


class ParquetTable(Table):
    """A Parquet file, streamed."""

    is_parsed = False

    def read_schema(self) -> list[tuple[str, Column]]:
        with translate_errors(self.path, INTACT):
            names = pq.read_schema(self.path).names  # DuckDB makes names unique
        described = self._described(f"read_parquet({text(self.name)})")
        return [(name, column) for name, (_, column) in zip(names, described, strict=True)]

    def relation(self, columns: Sequence[str], numeric: Collection[str] = ()) -> str:
        return f"(SELECT *, file_row_number AS {ROW} FROM read_parquet({text(self.name)}))"


class CsvTable(Table):
    """A CSV file: names in the first line; missing values are empty or NA, NaN, null, ….

    A column has the first type of KINDS that all values of the first rows have. DuckDB's own
    detection takes decimal commas for separators, a file with a line that is too long for one of a
    single column, and guesses the order of day and month.
    """

    is_typed = False

    def read_schema(self) -> list[tuple[str, Column]]:
        lines = _first_lines(self.path, self.name)
        self.separator = max(SEPARATORS, key=lambda separator: _likely(lines, separator))
        self.skip = next((number for number, line in enumerate(lines) if line.strip()), 0)
        rows = csv.reader(lines[self.skip :], delimiter=self.separator)
        header = next(rows, [])
        last = "".join(lines[self.skip + rows.line_num - 1 : self.skip + rows.line_num])
        # DuckDB would take the end of a line inside a quoted name for that of all lines.
        ends = {"\r\n": r"\r\n", "\n": r"\n"}
        self.new_line = next((name for end, name in ends.items() if last.endswith(end)), None)
        if len(header) > MOST_COLUMNS:
            raise DataError(
                f"{self.path} has {len(header):,} columns, of a CSV {MOST_COLUMNS:,} are read: "
                "write it as Parquet, or lists of numbers as JSON"
            )
        self.own = [f'"n{number}"' for number in range(len(header))]
        self.database.labels |= {
            (self.path, f"n{number}"): name for number, name in enumerate(header)
        }
        columns = map(Column, self.own, self._kinds())
        return list(zip(header, columns, strict=True))

    def _kinds(self) -> list[Any]:
        """Return the Arrow types of the columns by the first rows; set the decimal separator."""
        limit = first_rows(len(self.own))
        self.decimal = "."
        checks = ", ".join(f"bool_and({sql} IS NOT NULL)" for sql in KINDS.values())
        with_values = self.database.connection.execute(
            f"SELECT name, bool_or(regexp_full_match(value, '[+-]?\\d+,\\d+')), "
            f"bool_or(regexp_full_match(trim(value), '{CODE}')), {checks} FROM "
            f"(UNPIVOT (SELECT * FROM {self._file({})} LIMIT {limit}) ON COLUMNS(*)) GROUP BY name"
        ).fetchall()
        if self.separator != "," and any(has_comma for _, has_comma, *_ in with_values):
            self.decimal = ","
        kinds = {}
        self.codes = {identifier(name) for name, _, has_code, *_ in with_values if has_code}
        for name, _, _, whole, point, comma, *others in with_values:
            fits = (whole, comma if self.decimal == "," else point, *others)
            kinds[identifier(name)] = next(itertools.compress(CSV_TYPES, fits), pa.string())
        return [kinds.get(sql, pa.null()) for sql in self.own]

    def relation(self, columns: Sequence[str], numeric: Collection[str] = ()) -> str:
        types = {}
        for sql, kind in self.columns.values():
            if kind == pa.float64() or (sql in numeric and kind in (pa.int64(), pa.null())):
                types[sql] = "DOUBLE"  # the first rows may hold whole numbers
            elif kind == pa.bool_() and sql in numeric:
                types[sql] = "BOOLEAN"
            elif pa.types.is_timestamp(kind):
                types[sql] = "TIMESTAMPTZ"
        return self._file(types)

    def are_codes(self, name: str) -> bool:
        return self.columns[name].sql in self.codes

    def retype(self, name: str, kind: Any) -> None:
        self.columns[name] = self.columns[name]._replace(type=kind)

    def value(self, name: str, numeric: bool) -> str:
        sql, kind = self.columns[name]
        if numeric or sql not in self.own:
            return super().value(name, numeric)
        if kind != pa.int64():
            return sql  # yes and no stay text
        whole = ANY_WHOLE if sql in self.codes else WHOLE
        fault = text(f"{REFUSED}{self.path}, column {name}: '")
        remedy = text(
            "' is not a whole number as in the first rows: correct the value; or for an action set "
            "dataset.columns.discrete=false, for categories list them as text in "
            "dataset.columns.categories"
        )
        refusal = f"error({fault} || left({sql}, {LONGEST_VALUE}) || {remedy})"
        return f"CASE WHEN {sql} IS NOT NULL THEN coalesce({whole.format(sql)}, {refusal}) END"

    def _file(self, types: dict[str, str]) -> str:
        columns = ", ".join(f"{sql}: {text(types.get(sql, 'VARCHAR'))}" for sql in self.own)
        new_line = f"new_line = {text(self.new_line)}, " if self.new_line else ""
        return (
            f"read_csv({text(self.name)}, auto_detect = false, header = true, skip = {self.skip}, "
            f"columns = {{{columns}}}, delim = {text(self.separator)}, "
            f"decimal_separator = {text(self.decimal)}, quote = '\"', escape = '\"', {new_line}"
            f"nullstr = [{', '.join(map(text, MISSING))}], allow_quoted_nulls = false, "
            f"max_line_size = {2 * BEGIN})"
        )


class JsonTable(Table):
    """JSON, an object per row or batch: one per line, or a list of them."""

    def read_schema(self) -> list[tuple[str, Column]]:
        batches = holds_batches(self.path)  # first: packed columns are refused
        file = f"read_json({text(self.name)}, format = 'auto', sample_size = -1)"
        types = self.database.types(f"SELECT * FROM {file}")
        values = {name: identifier(name) for name in types}
        for name, kind in types.items():  # -1 beside 10 is HUGEINT, which Arrow lacks
            if "HUGEINT" in kind:
                values[name] = f"CAST({values[name]} AS {kind.replace('HUGEINT', 'BIGINT')})"
        if batches:
            lists = [name for name, kind in types.items() if kind.endswith("]")]
            values = {name: f"unnest({values[name]})" for name in lists}
        columns = ", ".join(f"{value} AS {identifier(name)}" for name, value in values.items())
        self.file = f"(SELECT {columns} FROM {file})"
        return self._described(self.file)

    def relation(self, columns: Sequence[str], numeric: Collection[str] = ()) -> str:
        return f"(SELECT *, row_number() OVER () - 1 AS {ROW} FROM {self.file})"


class NpzTable(Table):
    """An NPZ file: an array [N] or [N, 1] is a column; [N, D] is D columns, name_0 … name_D-1."""

    is_parsed = False

    def retype(self, name: str, kind: Any) -> None:
        """Keep the type: it is that of the array."""

    def read_schema(self) -> list[tuple[str, Column]]:
        self.arrays: dict[str, tuple[str, int | None]] = {}  # by SQL: the array, and index in it
        own: list[tuple[str, Column]] = []
        with translate_errors(self.path, INTACT), zipfile.ZipFile(self.path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, dtype = _array_header(file)
                array = member.removesuffix(".npy")
                indices: dict[str, int | None] = {}
                if len(shape) == 1 or shape[1:] == (1,):
                    indices = {array: None}
                elif len(shape) == 2:
                    indices = {f"{array}_{i}": i for i in range(shape[1])}
                for name, index in indices.items():
                    sql = f'"n{len(own)}"'
                    self.arrays[sql] = (array, index)
                    own.append((name, Column(sql, _arrow_type(dtype))))
        return own

    def relation(self, columns: Sequence[str], numeric: Collection[str] = ()) -> str:
        arrays = [self.arrays[sql] for sql in columns if sql in self.arrays]
        with translate_errors(self.path), np.load(self.path, allow_pickle=False) as archive:
            loaded = {array: archive[array] for array in {array for array, _ in arrays}}
        lengths = {name: len(array) for name, array in loaded.items()}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} {length:,}" for name, length in sorted(lengths.items()))
            raise DataError(
                f"{self.path}: the arrays differ in length ({sizes}): every array needs one row "
                "per step"
            )
        with translate_errors(self.path, "store numbers, or text that is ASCII"):
            values = {
                sql.strip('"'): _arrow(loaded[array] if index is None else loaded[array][:, index])
                for sql, (array, index) in self.arrays.items()
                if sql in columns
            }
        values[ROW.strip('"')] = pa.array(np.arange(max(lengths.values(), default=0)))
        self.database.connection.register(f"npz_{self.index}", pa.table(values))
        return f"npz_{self.index}"


FORMATS: dict[str, type[Table]] = {
    ".parquet": ParquetTable,
    **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz"), CsvTable),
    **{end + gz: JsonTable for end in (".json", ".jsonl", ".ndjson") for gz in ("", ".gz")},
    ".npz": NpzTable,
}


def open_tables(path: str, encoding: str | None = None) -> list[Table]:
    """Open the files of dataset.path. Raises DataError for other formats and unreadable files."""
    paths = find_files(path)
    for file in paths:
        check_format(file)
    partitions = partition_columns(path, paths)
    database = Database(paths, encoding)
    tables = []
    for index, file in enumerate(paths):
        table = FORMATS[str(_format(file))](database, index)
        table.columns = partitions[index] | table.columns
        tables.append(table)
    return tables


def check_format(path: Path) -> None:
    """Raise DataError for a file of another format than its name says, or that is not read."""
    suffix = _format(path)
    if suffix is None:
        hdf5 = "; D4RL's layout by dataset=d4rl" if path.name.lower().endswith(HDF5) else ""
        raise DataError(f"{path} cannot be read: supported are {', '.join(FORMATS)}{hdf5}")
    with translate_errors(path):
        refuse_foreign_content(path, suffix)


def first_rows(columns: int) -> int:
    """Return how many of the first rows are looked at."""
    return min(FIRST_ROWS, max(1, FIRST_VALUES // max(columns, 1)))


def _format(path: Path) -> str | None:
    """Return the suffix of a format that is read."""
    lower = path.name.lower()
    return next((suffix for suffix in FORMATS if lower.endswith(suffix)), None)


def _first_lines(path: Path, name: str) -> list[str]:
    """Return the first complete lines of a file of text."""
    opened: Any = gzip.open if name.endswith(".gz") else open
    with translate_errors(path), opened(name, "rb") as file:
        begin = file.read(BEGIN)
    try:  # a character may be cut off at the end
        lines = codecs.getincrementaldecoder("utf-8-sig")().decode(begin).splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise other_encoding(path) from error
    return lines if len(begin) < BEGIN or len(lines) == 1 else lines[:-1]


def _likely(lines: list[str], separator: str) -> tuple[int, int]:
    """Return how many of the first rows have as many columns as the header, and that number."""
    try:
        rows = [row for row in csv.reader(lines[:20], delimiter=separator) if row]
    except csv.Error:  # a header of 100,000 columns is one cell with another separator
        return 0, 0
    width = len(rows[0]) if rows else 0
    return sum(len(row) == width for row in rows) if width > 1 else 0, width


def _array_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
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
    return pa.array(
        values.reshape(-1).astype(values.dtype.newbyteorder("="), order="C", copy=False)
    )
