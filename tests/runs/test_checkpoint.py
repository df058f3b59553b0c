"""Guarantee: at every moment an intact checkpoint can be read, and a corrupt one never is."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from offline_cql.errors import CheckpointError, ConfigError
from offline_cql.runs import checkpoint
from offline_cql.runs.checkpoint import (
    digest_path,
    load_state,
    newest_checkpoint,
    read_checkpoint,
    read_digests,
    write_checkpoint,
    write_policy,
)
from offline_cql.runs.folder import kept_updates, saved_updates, state_path


def save(folder: Path, *updates: int) -> Path:
    """Save a training state after each of these numbers of updates; return the run folder."""
    for update in updates:
        write_checkpoint(folder, state(update))
    return folder


def state(updates: int, *, weight: float | None = None) -> dict[str, Any]:
    value = float(updates) if weight is None else weight
    return {"updates": updates, "agent": {"weight": torch.full((50,), value)}}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_state_is_read_as_it_was_written(tmp_path: Path):
    run = save(tmp_path, 1)
    content = newest_checkpoint(run)
    assert content["updates"] == 1
    assert content["format"] == checkpoint.FORMAT
    assert torch.equal(content["agent"]["weight"], torch.ones(50))
    assert names(run / "checkpoints" / "resume") == ["1.ckpt", "1.ckpt.sha256"]


def test_the_two_newest_states_stay(tmp_path: Path):
    """They are ordered by number, not by name: 9, 10, 100."""
    run = save(tmp_path, 9, 10, 100)
    expected = ["10.ckpt", "10.ckpt.sha256", "100.ckpt", "100.ckpt.sha256"]
    assert names(run / "checkpoints" / "resume") == expected
    assert newest_checkpoint(run)["updates"] == 100


def test_every_policy_stays_and_is_not_a_state(tmp_path: Path):
    for updates in (10, 20, 30):
        write_policy(tmp_path, state(updates))
        save(tmp_path, updates, updates + 5)
    assert kept_updates(tmp_path) == [10, 20, 30]
    assert saved_updates(tmp_path) == [30, 35]
    assert load_state(tmp_path, "20")["updates"] == 20
    assert load_state(tmp_path, "last")["updates"] == 35
    with pytest.raises(ConfigError, match=r"checkpoint=35 must be one of last, 10, 20, 30$"):
        load_state(tmp_path, "35")


# --- A process that is killed --------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here: nothing after it is done, not even what `finally` would do."""


@contextmanager
def crash_after(steps: int, monkeypatch: Any) -> Iterator[None]:
    """End the process after so many files were renamed into place or removed."""
    replace, unlink = Path.replace, Path.unlink
    n_done = 0

    def count() -> None:
        nonlocal n_done
        if n_done >= steps:
            raise Crash
        n_done += 1

    def rename(self: Path, target: Path) -> Path:
        count()
        return replace(self, target)

    def remove(self: Path, *, missing_ok: bool = False) -> None:
        if self.suffix != ".tmp":
            count()
            unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename)
        patch.setattr(Path, "unlink", remove)
        with pytest.raises(Crash):
            yield


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_while_saving_leaves_an_intact_state(
    steps: int, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """Two files are renamed into place, two are removed."""
    run = save(tmp_path, 1, 2)
    with crash_after(steps, monkeypatch):
        save(run, 3)
    assert newest_checkpoint(run)["updates"] == (3 if steps >= 2 else 2)
    assert capsys.readouterr().err == ""
    # The previous state is intact too, and the next save removes the others.
    assert read_checkpoint(state_path(run, 2))["updates"] == 2
    save(run, 4)
    assert saved_updates(run) == ([3, 4] if steps >= 2 else [2, 4])


@pytest.mark.parametrize("steps", range(3))
def test_a_crash_while_replacing_leaves_an_intact_state(
    steps: int, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """The same number of updates is saved again; three files are renamed into place."""
    run = save(tmp_path, 1, 2)
    with crash_after(steps, monkeypatch):
        write_checkpoint(run, state(2, weight=7.0))
    expected = 7.0 if steps >= 2 else 2.0
    assert newest_checkpoint(run)["agent"]["weight"][0].item() == expected
    assert capsys.readouterr().err == ""
    write_checkpoint(run, state(2, weight=8.0))
    assert newest_checkpoint(run)["agent"]["weight"][0].item() == 8.0
    assert len(read_digests(state_path(run, 2))) == 1


@pytest.mark.parametrize("steps", range(3))
def test_a_crash_while_replacing_leaves_an_intact_policy(
    steps: int, tmp_path: Path, monkeypatch: Any
):
    write_policy(tmp_path, state(2))
    with crash_after(steps, monkeypatch):
        write_policy(tmp_path, state(2, weight=7.0))
    weight = load_state(tmp_path, "2")["agent"]["weight"][0].item()
    assert weight == (7.0 if steps >= 2 else 2.0)


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_after_falling_back_leaves_an_intact_state(
    steps: int, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """20 is corrupt and was replaced by 10, from which 15 is saved and 20 removed."""
    run = save(tmp_path, 10, 20)
    state_path(run, 20).write_bytes(b"corrupt")
    with crash_after(steps, monkeypatch):
        save(run, 15)
    assert newest_checkpoint(run)["updates"] == (15 if steps >= 2 else 10)
    assert "resume/20.ckpt is corrupt" in capsys.readouterr().err
    save(run, 18)
    assert saved_updates(run) == ([15, 18] if steps >= 2 else [10, 18])


def test_a_full_disk_leaves_the_old_states(tmp_path: Path, monkeypatch: Any):
    """Half of the file is on the disk, under another name, when the disk is full."""
    run = save(tmp_path, 1, 2)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(run, 3)
    assert newest_checkpoint(run)["updates"] == 2
    assert saved_updates(run) == [1, 2]
    assert not list((run / "checkpoints").rglob(".*"))


# --- Corrupt files -------------------------------------------------------------------------------


def truncated(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


CORRUPTIONS = {
    "empty": truncated(0.0),
    "1 %": truncated(0.01),
    "half": truncated(0.5),
    "99 %": truncated(0.99),
    "a flipped bit": flipped,
    "a page": lambda _: b"<html>not found</html>",
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corrupt_checkpoint_is_refused(corruption: str, tmp_path: Path, capsys: Any):
    run = save(tmp_path, 1, 2)
    path = state_path(run, 2)
    path.write_bytes(CORRUPTIONS[corruption](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"2.ckpt is corrupt: sha256 \w{12}…, expected"):
        read_checkpoint(path)
    assert newest_checkpoint(run)["updates"] == 1
    assert "using 1.ckpt" in capsys.readouterr().err


def test_a_corrupt_checkpoint_does_not_take_the_place_of_an_intact_one(tmp_path: Path):
    """The two that stay are the newest and the intact one before it."""
    run = save(tmp_path, 1, 2)
    state_path(run, 2).write_bytes(b"corrupt")
    save(run, 3)
    assert [read_checkpoint(state_path(run, k))["updates"] for k in saved_updates(run)] == [1, 3]


def test_a_checkpoint_without_its_sha256_is_refused(tmp_path: Path):
    run = save(tmp_path, 1)
    digest_path(state_path(run, 1)).unlink()
    with pytest.raises(CheckpointError, match=r"expected a .sha256 file beside it"):
        newest_checkpoint(run)
    save(run, 2)
    assert newest_checkpoint(run)["updates"] == 2


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"checkpoints/resume contains no checkpoint"):
        newest_checkpoint(tmp_path)
