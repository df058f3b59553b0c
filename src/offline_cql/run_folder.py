"""The run folder: the contract between training and everything after it.

Names of its files, and how they are written so that a killed process leaves none half-written.
Knows nothing about agents or environments.
"""

import csv
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offline_cql.schema import ConfigError

CONFIG, RECORD, RESULT = "config.yaml", "record.json", "result.json"
METRICS, EVALUATION, HELD_OUT = "metrics.csv", "evaluation.csv", "held_out.csv"
OPE = "ope.json"
CHECKPOINTS = "checkpoints"


def claim_folder(wanted: Path) -> Path:
    """Create `wanted`, or `wanted-2`, `-3` … when it is taken; atomic, so runs never share one."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 10_000):
        folder = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise ConfigError(
        f"run_dir={wanted} and 9,998 names after it are taken; choose another run_dir"
    )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; a second process is refused while it lasts."""
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"{folder} is in use by process {lock.read().strip() or 'unknown'}; wait for it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, flush, rename: the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


class CsvFile:
    """A CSV file that rows are appended to; its columns are those of the first row written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        if path.exists() and path.stat().st_size:
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file))

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Append rows in one write; a row with other columns is a mistake (KeyError/ValueError)."""
        with self.path.open("a", newline="") as file:
            if self.columns is None:
                self.columns = list(rows[0])
                csv.writer(file).writerow(self.columns)
            csv.DictWriter(file, self.columns).writerows(rows)

    def size(self) -> int:
        """Bytes so far; 0 when nothing was written."""
        return self.path.stat().st_size if self.path.exists() else 0


def clear_leftovers(folder: Path) -> None:
    """Drop what a killed process left: half-written files, and the result of the run so far."""
    (folder / RESULT).unlink(missing_ok=True)
    for temporary in (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).glob(".*.tmp")):
        temporary.unlink()


def cut_back(folder: Path, lengths: Mapping[str, int]) -> None:
    """Drop the rows that were appended after a checkpoint was taken at these lengths in bytes."""
    for name, size in lengths.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ConfigError(
                f"{path} has {found} bytes, fewer than the {size} at the checkpoint; restore it"
            )
        if found:
            os.truncate(path, size)
