"""The DuckDB connection that reads a table's files: no other file, no network, bounded memory."""

from __future__ import annotations

import codecs
import errno
import gzip
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from offline_cql.errors import DataError
from offline_cql.io import CACHE_REMEDY, cache_root, remedied
from offline_cql.readers.writer import translate_errors

MEMORY = "1GB"  # beyond it DuckDB writes temporary files below the cache
MOST_THREADS = 2  # each has buffers; the transitions are made by one
REFUSED = "refused: "  # before a message that our SQL raises by error()
LONGEST_VALUE, LONGEST_REASON = 40, 300  # characters of a value, and of an error, in a message
# DuckDB's errors about a line of a CSV file, and one in another encoding.
CONVERSION = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*Error when converting column \"(?P<column>.*?)\"\. "
    r"Could not convert string \"(?P<value>.*?)\" to '(?P<type>\w+)",
    re.DOTALL,
)
KINDS = {"DOUBLE": "a number", "BOOLEAN": "true or false"}
RAGGED = re.compile(
    r"CSV Error on Line: (?P<line>\d+).*Expected Number of Columns: (?P<expected>\d+) "
    r"Found: (?P<found>\d+)",
    re.DOTALL,
)
COMPUTATION = re.compile(r"^(Conversion|Out of Range) Error")
ENCODING = re.compile(r"not utf-8 encoded|Invalid unicode|byte sequence mismatch", re.IGNORECASE)


class Database:
    """A DuckDB connection that can read `paths` and nothing else.

    encoding: of files of text that are not UTF-8; they are converted to temporary files. The
    connection sees each file under a plain name, `names[index]`.
    """

    def __init__(self, paths: list[Path], encoding: str | None = None):
        self.paths = paths
        self.labels: dict[tuple[Path, str], str] = {}  # a column's name, by that in SQL
        self._stream: Any = None
        root = cache_root() / "tables"
        with remedied(root, CACHE_REMEDY):
            root.mkdir(parents=True, exist_ok=True)
            self._folder = TemporaryDirectory(dir=root)
        self.folder = Path(self._folder.name)
        self.names = [self._provide(*item, encoding) for item in enumerate(paths)]
        self.connection = duckdb.connect(
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(self.folder / "spill"),
                "threads": min(MOST_THREADS, os.cpu_count() or 1),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",
            }
        )
        allowed = ", ".join(text(os.path.realpath(name)) for name in self.names)
        # Prefetching would read whole row groups of wide files, of a gigabyte, into memory.
        self.connection.execute(
            f"SET disable_parquet_prefetching = true; SET allowed_paths = [{allowed}]; "
            "SET enable_external_access = false; SET TimeZone = 'UTC'; "
            "SET lock_configuration = true"
        ).fetchall()

    def fetch(self, sql: str) -> tuple[Any, ...]:
        """Return the first row of a query, () without one; end the one that is streamed."""
        if self._stream is not None:
            self._stream.close()  # else DuckDB refuses another query
            self._stream = None
        rows = self.connection.execute(sql).fetchall()
        return rows[0] if rows else ()

    def types(self, sql: str) -> dict[str, str]:
        """Return the columns of a query with their types in SQL."""
        relation = self.connection.sql(sql)
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def batches(self, sql: str, size: int) -> Any:
        """Return an Arrow reader of batches of about `size` rows."""
        self._stream = self.connection.sql(sql).to_arrow_reader(size)
        return self._stream

    @contextmanager
    def errors(self, path: Path, remedy: str = "") -> Iterator[None]:
        """Turn DuckDB's errors about a file into one line that names it."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            # An Arrow reader raises DuckDB's errors as OSError without a number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise self._explain(error, path, remedy) from error

    def _explain(self, error: Exception, path: Path, remedy: str) -> Exception:
        message = str(error).replace(self.names[self.paths.index(path)], str(path))
        if REFUSED in message:
            return DataError(message.partition(REFUSED)[2].partition("\n")[0])
        if "No space left" in message or "max_temp_directory_size" in message:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        if "Out of Memory Error" in message:
            return DataError(
                f"{path} needs more than {MEMORY} of memory to be read or sorted: sort it by "
                "episode and step, or write it with fewer columns"
            )
        if match := CONVERSION.search(message):
            column = self.labels.get((path, match["column"]), match["column"])
            return DataError(
                f"{path} at line {int(match['line']):,}, column {column}: "
                f"{match['value'][:LONGEST_VALUE]!r} is not {KINDS.get(match['type'], 'a time')} "
                "as in the first rows: correct the value, or leave the column out"
            )
        if match := RAGGED.search(message):
            return DataError(
                f"{path} at line {int(match['line']):,}: {match['found']} columns, the header has "
                f"{match['expected']}: correct or complete the line"
            )
        if "reached an invalid state" in message:
            return DataError(
                f"{path} cannot be read: its lines end in different ways (\\n and \\r\\n), or a "
                "quote is not closed: write it anew"
            )
        if ENCODING.search(message):
            return other_encoding(path)
        reason = re.split(r"Possible (?:fixes|[Ss]olution)|\n\s*LINE ", message)[0]
        reason = " ".join(reason.split())[:LONGEST_REASON]
        if COMPUTATION.search(reason):  # our own SQL converts without errors
            return DataError(
                f"{path}: SQL in dataset.columns or dataset.filter fails ({reason}): correct it"
            )
        return DataError(f"{path} cannot be read ({reason}){f': {remedy}' if remedy else ''}")

    def _provide(self, index: int, path: Path, encoding: str | None) -> str:
        """Link a file, or convert it to UTF-8, under a name without special characters."""
        end = "".join(path.suffixes[-2:]).lower() if path.name.lower().endswith(".gz") else ""
        name = self.folder / f"{index}{end or path.suffix.lower()}"
        is_text = not name.name.endswith((".parquet", ".npz"))
        encoding = encoding or (_byte_order_mark(path) if is_text else None)
        if not is_text or encoding is None or codecs.lookup(encoding).name == "utf-8":
            name.symlink_to(path.absolute())
            return str(name)
        compressed = name.suffix == ".gz"
        name = name.with_suffix("") if compressed else name
        with translate_errors(path, "set dataset.encoding to the file's encoding"):
            opened: Any = gzip.open if compressed else open
            with (
                opened(path, "rt", encoding=encoding, newline="") as source,
                name.open("w", encoding="utf-8", newline="") as target,
            ):
                shutil.copyfileobj(source, target, 2**20)
        return str(name)


def other_encoding(path: Path) -> DataError:
    """Return the error for a file of text that is not UTF-8."""
    return DataError(
        f"{path} is not UTF-8: set dataset.encoding to its encoding, as in "
        "dataset.encoding=cp1252 (Western Windows) or utf-16"
    )


def identifier(name: str) -> str:
    """Return a column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text in SQL."""
    return "'" + value.replace("'", "''") + "'"


def _byte_order_mark(path: Path) -> str | None:
    """Return utf-16 for a file that begins with its mark."""
    with path.open("rb") as file:
        begin = file.read(2)
    return "utf-16" if begin in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None
