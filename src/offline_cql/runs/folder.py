"""The run folder: its creation, the paths of its files, and its CSV files."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from omegaconf import OmegaConf

from offline_cql.errors import ConfigError, DataError
from offline_cql.io import located, read_bytes, read_config, read_json, refuse_link, remedied
from offline_cql.render.command import Setting

CONFIG, METADATA, RESULT = "config.yaml", "metadata.json", "result.json"
METRICS, EVALUATION, VALIDATION = "metrics.csv", "evaluation.csv", "validation.csv"
EVALUATION_FAILURES = "evaluation_failures.csv"
LOGS = (METRICS, EVALUATION, VALIDATION, EVALUATION_FAILURES)
OPE, AUDIT = "ope.json", "audit.json"
ONNX, ONNX_JSON = "policy.onnx", "policy.json"  # an exported policy, and what it is
RESUMED_WITH = "resumed_with"  # key of metadata.json: settings typed with resume=, nested
ACTION_NAMES = "action_names"  # key of metadata.json: of discrete actions of a table, and columns
FEATURES = "features"  # key of metadata.json: of a table, what observations are computed from
METADATA_SHAPE = {
    **dict.fromkeys(("commit", "grid", "wandb_id"), (str, NoneType)),
    **{
        RESUMED_WITH: (dict, NoneType),
        **dict.fromkeys((FEATURES, ACTION_NAMES), (list, NoneType)),
        "dataset": {"id": str, "sha256": str},
    },
}
CHECKPOINTS = "checkpoints"
RESUME = f"{CHECKPOINTS}/resume"


def create_run_dir(wanted: Path, *, setting: str = "run_dir") -> Path:
    """Create a run folder and return it: `wanted`, or `wanted-2`, `-3` … where that exists.

    Creating it is atomic, so that two runs never share a folder. Raises ConfigError, which names
    the setting, for a path that is no name of a new folder; OSError for a place that cannot be
    written.
    """
    with remedied(wanted, f"set {setting} to a new folder in a place that you can write"):
        special = wanted.exists() and not (wanted.is_dir() or wanted.is_file())  # /dev/null
        if wanted.name in ("", "..") or special:
            raise ConfigError(f"{setting}={wanted} must be the path of a new folder")
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            folder = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}-{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    raise ConfigError(f"choose another {setting}: {wanted} and the 9,998 names after it exist")


def package_words(folder: Path) -> list[Setting]:
    """Return env.package=NAME for commands on a run whose simulator is of a package, else [].

    It is only imported where the command names it.
    """
    path = folder / CONFIG
    if not path.exists():
        return []
    config = read_config(path)
    package = OmegaConf.select(config, "env.package")
    prefix, separator, _ = str(OmegaConf.select(config, "env.id")).partition(":")  # package:Id
    package = prefix if package is None and separator else package
    return [("env.package", str(package))] if package is not None else []


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the content of a run's metadata.json. Raises DataError for what is none."""
    return read_json(folder / METADATA, METADATA_SHAPE)


def state_path(folder: Path, updates: int) -> Path:
    """Return the path of a run's training state after `updates` updates."""
    return folder / RESUME / f"{updates}.ckpt"


def policy_path(folder: Path, updates: int) -> Path:
    """Return the path of a run's kept policy after `updates` updates."""
    return folder / CHECKPOINTS / f"{updates}.ckpt"


def video_path(folder: Path, name: str) -> Path:
    """Return the path of a video of a run's policy."""
    return folder / "videos" / f"{name}.gif"


def digest_path(path: Path) -> Path:
    """Return the path of the file with a checkpoint's sha256."""
    return path.with_name(path.name + ".sha256")


def diverged_batch(rank: int) -> str:
    """Return the name of the file with the batch on which a run diverged, this rank's part."""
    return "diverged_batch.npz" if rank == 0 else f"diverged_batch-{rank}.npz"


def saved_updates(folder: Path) -> list[int]:
    """Return the numbers of updates of a run's training states, ascending."""
    return _updates_in(folder / RESUME)


def kept_updates(folder: Path) -> list[int]:
    """Return the numbers of updates of a run's kept policies, ascending."""
    return _updates_in(folder / CHECKPOINTS)


def _updates_in(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.ckpt") if path.stem.isdecimal())


class CsvFile:
    """A CSV file that rows are appended to; its columns are those of the first row written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        if path.exists() and path.stat().st_size:
            try:
                with path.open(newline="") as file:
                    self.columns = next(csv.reader(file))
            except (ValueError, csv.Error) as error:
                raise DataError(f"{path} is not a CSV file ({error}): restore it") from error

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Append rows in one write. Raises ValueError for a row with other columns."""
        with located(self.path), open(self.path, "a", newline="", opener=refuse_link) as file:
            if self.columns is None:
                self.columns = list(rows[0])
                csv.writer(file).writerow(self.columns)
            csv.DictWriter(file, self.columns).writerows(rows)

    def last_rows(self) -> list[dict[str, str]]:
        """Return the rows of the last update in the file; [] without rows."""
        if not self.size():
            return []
        try:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except (ValueError, csv.Error) as error:
            raise DataError(f"{self.path} is not a CSV file ({error}): restore it") from error
        return [row for row in rows if row["update"] == rows[-1]["update"]]

    def last_update(self) -> int | None:
        """Return the number of updates in the last row; None without rows."""
        rows = self.last_rows()
        return int(rows[-1]["update"]) if rows else None

    def size(self) -> int:
        """Return the bytes written so far; 0 if the file does not exist."""
        return self.path.stat().st_size if self.path.exists() else 0


def remove_temp_files(folder: Path) -> None:
    """Remove the half-written files of a killed process, and the result of the run so far."""
    (folder / RESULT).unlink(missing_ok=True)
    for temporary in (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).rglob(".*.tmp")):
        temporary.unlink()


def truncate_logs(
    folder: Path, lengths: Mapping[str, int], *, update: int, rows: Mapping[str, int]
) -> None:
    """Remove the rows appended after the checkpoint of an update, except its own evaluation.

    lengths: bytes per file at the checkpoint. rows: per file, the number of rows that the
    evaluation of a checkpoint has; fewer were cut off and are removed. Raises ConfigError when a
    file is shorter than its length.
    """
    for name, size in lengths.items():
        path = folder / name
        content = read_bytes(path) if path.exists() else b""
        if len(content) < size:
            raise ConfigError(
                f"restore {path}: it has {len(content)} bytes, fewer than the {size} at the "
                "checkpoint"
            )
        if content:
            kept = _rows_of(content[size:], update, rows.get(name, 0))
            with open(path, "r+b", opener=refuse_link) as file:
                file.truncate(size + kept)


def _rows_of(added: bytes, update: int, count: int) -> int:
    """Return the bytes of `count` whole rows of an update, after a header if there is one.

    0 when there are fewer.
    """
    lines = added.splitlines(keepends=True)
    header = [line for line in lines[:1] if line.startswith(b"update,")]
    block = lines[len(header) :][:count]
    whole = [line for line in block if line.startswith(b"%d," % update) and line.endswith(b"\n")]
    return sum(map(len, header + whole)) if whole and len(whole) == count else 0
