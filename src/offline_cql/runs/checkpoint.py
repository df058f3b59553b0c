"""Checkpoints: tensors and plain values only, written beside the target and renamed, with a sha256.

The two newest are there to go on from, `last.ckpt` and `previous.ckpt`; the policies at evaluation
points stay, `<updates>.ckpt`, without what only training needs.
Reading never runs code from a file.
"""

import hashlib
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from offline_cql.errors import CheckpointError
from offline_cql.io import write_atomically
from offline_cql.runs.folder import CHECKPOINTS

FORMAT = 1
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def known_digests(path: Path) -> list[str]:
    """What the digest file beside a checkpoint allows; [] without one."""
    beside = digest_path(path)
    return beside.read_text().split() if beside.exists() else []


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Save `state` as the run's last checkpoint; the one before it becomes the previous one.

    At every moment at least one complete checkpoint with its digest is there: the new digest is
    added to the digest file before the rename, the old one dropped after it.
    """
    directory = folder / CHECKPOINTS
    directory.mkdir(exist_ok=True)
    content, digest = _encoded(state)
    last, previous = directory / LAST, directory / PREVIOUS
    before = last.read_bytes() if last.exists() else b""
    old = hashlib.sha256(before).hexdigest()
    if old in known_digests(last):  # a damaged one must not take the good previous one's place
        write_atomically(previous, before)
        write_atomically(digest_path(previous), f"{old}\n".encode())
        write_atomically(digest_path(last), f"{old}\n{digest}\n".encode())
    else:
        write_atomically(digest_path(last), f"{digest}\n".encode())
    write_atomically(last, content)
    write_atomically(digest_path(last), f"{digest}\n".encode())
    return last


def write_kept(folder: Path, state: dict[str, Any]) -> Path:
    """Save a policy under its number of updates."""
    path = folder / CHECKPOINTS / f"{state['updates']}.ckpt"
    path.parent.mkdir(exist_ok=True)
    content, digest = _encoded(state)
    write_atomically(digest_path(path), f"{digest}\n".encode())
    write_atomically(path, content)
    return path


def kept_updates(folder: Path) -> list[int]:
    """The numbers of updates at which a run's policy was kept, ascending."""
    found = (path.stem for path in (folder / CHECKPOINTS).glob("*.ckpt"))
    return sorted(int(stem) for stem in found if stem.isdecimal())


def _encoded(state: dict[str, Any]) -> tuple[bytes, str]:
    """A state as the bytes of its file, and their sha256."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    return content, hashlib.sha256(content).hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one checkpoint file; CheckpointError when it is missing, damaged or too new."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; the run saved no checkpoint there")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    known = known_digests(path)
    if found not in known:
        raise CheckpointError(
            f"{path} is damaged: sha256 {found[:12]}…, expected "
            f"{' or '.join(d[:12] + '…' for d in known) or 'a .sha256 file beside it'}"
        )
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, which is refused; "
            "it was not written by this project"
        ) from error
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}, this version reads up to {FORMAT}; "
            "update offline-cql"
        )
    return state


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    """The run's last checkpoint; a damaged one falls back to the previous one, and says so."""
    directory = folder / CHECKPOINTS
    try:
        return read_checkpoint(directory / LAST)
    except CheckpointError as error:
        if not (directory / PREVIOUS).exists():
            raise
        print(f"warning: {error}; going on from {PREVIOUS}", file=sys.stderr)
        return read_checkpoint(directory / PREVIOUS)
