"""Guarantee: at every moment one whole checkpoint can be read, and a damaged one never is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offline_cql.errors import CheckpointError
from offline_cql.runs import checkpoint
from offline_cql.runs.checkpoint import (
    digest_path,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def saved(folder: Path, *updates: int) -> Path:
    """A run folder in which these updates were saved, one after the other."""
    for update in updates:
        write_checkpoint(folder, state(update))
    return folder / "checkpoints"


def state(update: int) -> dict[str, Any]:
    return {"updates": update, "agent": {"weight": torch.full((50,), float(update))}}


def test_what_was_written_is_read(tmp_path: Path):
    folder = saved(tmp_path, 1)
    found = newest_checkpoint(tmp_path)
    assert found["updates"] == 1
    assert found["format"] == checkpoint.FORMAT
    assert torch.equal(found["agent"]["weight"], torch.ones(50))
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_the_two_newest_are_kept(tmp_path: Path):
    folder = saved(tmp_path, 1, 2, 3)
    assert read_checkpoint(folder / "last.ckpt")["updates"] == 3
    assert read_checkpoint(folder / "previous.ckpt")["updates"] == 2
    names = ["last.ckpt", "last.ckpt.sha256", "previous.ckpt", "previous.ckpt.sha256"]
    assert sorted(path.name for path in folder.iterdir()) == names


class Crash(BaseException):
    """The process ends here: nothing after it is done, not even what `finally` would do."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", range(5))
def test_a_crash_at_any_rename_leaves_a_readable_checkpoint(
    step: int, moment: str, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """Five files are renamed into place; the process ends before or after one of them."""
    folder = saved(tmp_path, 1, 2)
    replace, done = os.replace, []

    def rename(self: Path, target: Path) -> Path:
        if len(done) == step and moment == "before":
            raise Crash
        replace(self, target)
        done.append(target)
        if len(done) == step + 1 and moment == "after":
            raise Crash
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename)
        with pytest.raises(Crash):
            write_checkpoint(tmp_path, state(3))
    assert read_checkpoint(folder / "last.ckpt")["updates"] in (2, 3)
    assert newest_checkpoint(tmp_path)["updates"] == (3 if len(done) >= 4 else 2)
    assert "damaged" not in capsys.readouterr().err
    # And the next save puts everything in order.
    write_checkpoint(tmp_path, state(4))
    assert read_checkpoint(folder / "last.ckpt")["updates"] == 4
    assert read_checkpoint(folder / "previous.ckpt")["updates"] in (2, 3)
    assert len(digest_path(folder / "last.ckpt").read_text().split()) == 1


def test_a_crash_in_the_middle_of_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: Any):
    """Half of the file is on the disk, under another name, when the disk is full."""
    folder = saved(tmp_path, 1, 2)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(tmp_path, state(3))
    assert newest_checkpoint(tmp_path)["updates"] == 2
    assert not list(folder.glob(".*"))


def truncated(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": truncated(0.0),
    "1 %": truncated(0.01),
    "half": truncated(0.5),
    "99 %": truncated(0.99),
    "a flipped bit": flipped,
    "a page": lambda _: b"<html>not found</html>",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path, capsys: Any):
    folder = saved(tmp_path, 1, 2)
    path = folder / "last.ckpt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"last.ckpt is damaged: sha256 \w{12}…, expected"):
        read_checkpoint(path)
    assert newest_checkpoint(tmp_path)["updates"] == 1
    assert "going on from previous.ckpt" in capsys.readouterr().err


def test_a_damaged_checkpoint_does_not_replace_the_good_one(tmp_path: Path):
    folder = saved(tmp_path, 1, 2)
    (folder / "last.ckpt").write_bytes(b"damaged")
    write_checkpoint(tmp_path, state(3))
    assert read_checkpoint(folder / "last.ckpt")["updates"] == 3
    assert read_checkpoint(folder / "previous.ckpt")["updates"] == 1


def test_a_checkpoint_without_its_digest_is_refused(tmp_path: Path):
    folder = saved(tmp_path, 1)
    digest_path(folder / "last.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"expected a .sha256 file beside it"):
        newest_checkpoint(tmp_path)
    write_checkpoint(tmp_path, state(2))
    assert newest_checkpoint(tmp_path)["updates"] == 2


def test_no_checkpoint_at_all(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"last.ckpt does not exist; the run saved no"):
        newest_checkpoint(tmp_path)
