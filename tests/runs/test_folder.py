"""Guarantee: files in a run folder are complete, and one process at a time writes there."""

import csv
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from offline_cql.errors import ConfigError
from offline_cql.io import locked, read_json, write_atomically, write_json
from offline_cql.runs.folder import CsvFile, create_run_dir, remove_temp_files, truncate_logs


def test_an_existing_name_gets_a_number(tmp_path: Path):
    wanted = tmp_path / "a" / "b" / "run"
    names = [create_run_dir(wanted).name for _ in range(3)]
    assert names == ["run", "run-2", "run-3"]


def test_a_file_of_that_name_counts_too(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    assert create_run_dir(tmp_path / "run").name == "run-2"
    assert (tmp_path / "run").read_text() == "mine"


FORK = multiprocessing.get_context("fork")


def test_processes_never_share_a_folder(tmp_path: Path):
    with ProcessPoolExecutor(5, FORK) as pool:
        folders = list(pool.map(create_run_dir, [tmp_path / "run"] * 5))
    names = ["run", "run-2", "run-3", "run-4", "run-5"]
    assert sorted(folder.name for folder in folders) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def try_to_lock(folder: Path) -> str:
    """Return "locked", or the error."""
    try:
        with locked(folder):
            return "locked"
    except ConfigError as error:
        return str(error)


def test_a_second_process_is_refused_while_the_first_one_writes(tmp_path: Path):
    def outcome() -> str:
        with ProcessPoolExecutor(1, FORK) as pool:  # a new process, without this one's lock
            return pool.submit(try_to_lock, tmp_path).result()

    with locked(tmp_path):
        assert outcome() == f"{tmp_path} is in use by process {os.getpid()}; wait for it"
    assert outcome() == "locked"


def test_a_failed_write_leaves_the_old_content_and_no_other_file(tmp_path: Path, monkeypatch: Any):
    path = tmp_path / "result.json"
    write_json(path, {"status": "old"})

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"status": "new"})
    assert read_json(path) == {"status": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_the_content_is_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: Any):
    """fsync of the file, rename, fsync of the folder: in this order."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_atomically(tmp_path / "file", b"content")
    assert steps == ["file", "rename", "folder"]
    assert (tmp_path / "file").read_bytes() == b"content"


# --- Rows -----------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_first_row_decides_the_columns(tmp_path: Path):
    file = CsvFile(tmp_path / "metrics.csv")
    assert file.size() == 0
    file.append([{"update": 1, "loss": 0.5}])
    again = CsvFile(tmp_path / "metrics.csv")
    again.append([{"loss": 0.25, "update": 2}, {"loss": 1e-300, "update": 3}])
    assert read_rows(file.path) == [
        ["update", "loss"],
        ["1", "0.5"],
        ["2", "0.25"],
        ["3", "1e-300"],
    ]
    assert file.size() == file.path.stat().st_size
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        again.append([{"update": 4, "other": 1.0}])
    assert len(read_rows(file.path)) == 4


def test_rows_after_the_checkpoint_are_removed(tmp_path: Path):
    metrics, evaluation = CsvFile(tmp_path / "metrics.csv"), CsvFile(tmp_path / "evaluation.csv")
    metrics.append([{"update": 1}])
    lengths = {"metrics.csv": metrics.size(), "evaluation.csv": evaluation.size()}
    assert lengths["evaluation.csv"] == 0
    metrics.append([{"update": 2}])
    evaluation.append([{"update": 2, "return": 1.0}])
    truncate_logs(tmp_path, lengths, update=0, rows={})
    assert read_rows(metrics.path) == [["update"], ["1"]]
    # An empty file gets its header again.
    CsvFile(evaluation.path).append([{"update": 2, "return": 1.0}])
    assert read_rows(evaluation.path) == [["update", "return"], ["2", "1.0"]]


def test_a_file_with_missing_rows_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"metrics.csv: it has 0 bytes, fewer than the 10"):
        truncate_logs(tmp_path, {"metrics.csv": 10}, update=0, rows={})


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path):
    (tmp_path / "checkpoints" / "resume").mkdir(parents=True)
    for name in (
        ".result.json.7.tmp",
        "checkpoints/.5.ckpt.7.tmp",
        "checkpoints/resume/.5.ckpt.7.tmp",
    ):
        (tmp_path / name).write_text("{}")
    for name in ("metadata.json", "checkpoints/resume/5.ckpt", "my.tmp", "result.json"):
        (tmp_path / name).write_text("{}")
    remove_temp_files(tmp_path)
    kept = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["5.ckpt", "metadata.json", "my.tmp"]
