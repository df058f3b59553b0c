"""Guarantee: what cannot be resumed exactly is refused in one line, and nothing is overwritten."""

import os
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from support.builders import differences
from support.train import (
    SIZE,
    TINY,
    entry_point,
    load_learned,
    resume_run,
    rows,
    train_run,
    wait_for,
)

from offline_cql.commands.load_run import load_config
from offline_cql.errors import CheckpointError, ConfigError, DataError
from offline_cql.runs import checkpoint
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import saved_updates, state_path

pytestmark = pytest.mark.usefixtures("recorded")
SETTINGS = (*TINY, "checkpoint_every=10")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train 20 updates with checkpoints at 10 and 20; return the run folder."""
    return train_run(tmp_path_factory.mktemp("finished") / "run", *SETTINGS, "updates=20")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, which a test may corrupt."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_folder_without_config_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"resume=.* is not a run folder: config.yaml is missing"):
        resume_run(tmp_path)


@pytest.mark.parametrize("other", ["cql.alpha=1", "seed=1", "network=small", "hardware.threads=2"])
def test_other_settings_with_resume_are_refused(run: Path, other: str):
    with pytest.raises(ConfigError, match=re.escape(other.partition("=")[0])):
        resume_run(run, "updates=30", other)


@pytest.mark.parametrize(
    ("old", "new", "section"),
    [("alpha: 5.0", "alpha: 4.0", "cql"), ("batch_size: 16", "batch_size: 8", "batch_size")],
)
def test_an_edited_config_is_refused(run: Path, old: str, new: str, section: str):
    path = run / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=f"{section} differs from the checkpoint's"):
        resume_run(run, "updates=30")


def test_changed_data_are_refused(run: Path, recorded: Path, tmp_path: Path, monkeypatch: Any):
    """The reward of one step differs, and no manifest says that it was changed."""
    store = Path(shutil.copytree(recorded, tmp_path / "store"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(store))
    folder = store / "sim" / "pendulum" / f"mixed_{SIZE}-v0"
    (folder / "manifest.json").unlink()
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/rewards"][0] += 1e-3
    with pytest.raises(DataError, match="the data changed since the checkpoint"):
        resume_run(run, "updates=30")


def test_a_newer_format_is_refused(run: Path, monkeypatch: Any):
    state = newest_checkpoint(run)
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    checkpoint.write_checkpoint(run, {k: v for k, v in state.items() if k != "format"})
    monkeypatch.undo()
    state_path(run, 10).unlink()
    with pytest.raises(CheckpointError, match="has format 99, this version reads up to 1"):
        resume_run(run, "updates=30")


def test_code_inside_a_checkpoint_is_not_run(run: Path, tmp_path: Path):
    """A forged checkpoint with a valid sha256 runs no code when it is read."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "was_here"),)

    path = state_path(run, 20)
    torch.save({"format": 1, "updates": Evil()}, path)
    digest = checkpoint.hashlib.sha256(path.read_bytes()).hexdigest()
    checkpoint.digest_path(path).write_text(digest)
    state_path(run, 10).unlink()
    with pytest.raises(CheckpointError, match="contains more than tensors and plain values"):
        resume_run(run, "updates=30")
    assert not (tmp_path / "was_here").exists()


def test_a_corrupt_checkpoint_falls_back_to_the_one_before_with_a_warning(
    finished: Path, run: Path, capsys: Any
):
    """From the checkpoint of update 10 the run reaches the same end, its rows written once."""
    path = state_path(run, 20)
    path.write_bytes(path.read_bytes()[:-100])
    (run / "result.json").unlink()
    resume_run(run)
    error = capsys.readouterr().err
    assert "resume/20.ckpt is corrupt: sha256" in error
    assert "using 10.ckpt" in error
    assert differences(load_learned(finished), load_learned(run)) == []
    assert rows(run / "metrics.csv") == rows(finished / "metrics.csv")


def test_two_corrupt_checkpoints_are_refused(run: Path):
    for updates in (10, 20):
        path = state_path(run, updates)
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"resume/10.ckpt is corrupt"):
        resume_run(run, "updates=30")


def test_a_failure_between_checkpoints_costs_only_what_came_after(
    finished: Path, tmp_path: Path, monkeypatch: Any
):
    """The progress bar raises at update 15: rows up to 15 stay, the checkpoint is that of 10."""

    def break_down(_bar: Any, _trainer: Any, agent: Any) -> None:
        if agent.updates == 15:
            raise OSError("the terminal is gone")

    with monkeypatch.context() as patch:
        patch.setattr("offline_cql.callbacks.progress.ProgressBar.after_block", break_down)
        with pytest.raises(OSError, match="the terminal is gone"):
            train_run(tmp_path / "run", *SETTINGS, "updates=20", "log_every=5")
    run = tmp_path / "run"
    assert [row["update"] for row in rows(run / "metrics.csv")] == ["5", "10", "15"]
    assert newest_checkpoint(run)["updates"] == 10
    resume_run(run)
    assert [row["update"] for row in rows(run / "metrics.csv")] == ["5", "10", "15", "20"]
    assert differences(load_learned(finished), load_learned(run)) == []


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_can_be_resumed(finished: Path, tmp_path: Path):
    """Resuming reaches the same end: each row once, no temporary file left."""
    folder, generator = tmp_path / "run", random.Random()
    arguments = [*SETTINGS, "updates=400", "log_every=5", f"run_dir={folder}"]
    with entry_point(*arguments) as process:
        wait_for(lambda: bool(saved_updates(folder)), process)
        time.sleep(moment := generator.uniform(0, 0.5))
        process.kill()
    note = f"killed {moment:.3f} s after the first checkpoint"
    assert load_config(folder).updates == 400, note
    resume_run(folder)
    whole = train_run(tmp_path / "whole", *SETTINGS, "updates=400", "log_every=5")
    assert differences(load_learned(whole), load_learned(folder)) == [], note
    assert rows(folder / "metrics.csv") == rows(whole / "metrics.csv"), note
    assert not list(folder.rglob("*.tmp")), note
