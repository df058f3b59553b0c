"""The run folder: the contract between training and everything after it.

Names of its files, and how they are written so that a killed process leaves none half-written.
Knows nothing about agents or environments.
"""

import csv
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offline_cql.errors import ConfigError

CONFIG, METADATA, RESULT = "config.yaml", "metadata.json", "result.json"
METRICS, EVALUATION, VALIDATION = "metrics.csv", "evaluation.csv", "validation.csv"
OPE = "ope.json"
CHECKPOINTS = "checkpoints"


def create_run_dir(wanted: Path) -> Path:
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
def locked(folder: Path) -> Iterator[None]:
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


def remove_temp_files(folder: Path) -> None:
    """Drop what a killed process left: half-written files, and the result of the run so far."""
    (folder / RESULT).unlink(missing_ok=True)
    for temporary in (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).glob(".*.tmp")):
        temporary.unlink()


def truncate_logs(folder: Path, lengths: Mapping[str, int]) -> None:
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
