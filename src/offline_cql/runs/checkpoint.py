"""Checkpoints: tensors and plain values, one file `<updates>.ckpt` with a sha256 beside it.

checkpoints/resume/ has the two newest training states, which a run can be resumed from;
checkpoints/ has the policies kept at evaluation points, without the optimizer.
Reading never runs code from a file.
"""

import hashlib
import io
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from offline_cql.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    IncompleteRunError,
    explain,
)
from offline_cql.io import differing_key, read_bytes, write_atomically
from offline_cql.render.command import command
from offline_cql.render.message import print_message
from offline_cql.runs.folder import (
    RESUME,
    digest_path,
    kept_updates,
    package_words,
    policy_path,
    saved_updates,
    state_path,
)

FORMAT = 1
LAST = "last"


# --- Writing ---------------------------------------------------------------------------------


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Save a training state, then remove all but this one and the intact one before it.

    At every moment the run has an intact training state, once it has saved one.
    """
    updates = int(state["updates"])
    path = state_path(folder, updates)
    _write(path, state)
    _remove_outdated(folder, newest=updates)
    return path


def write_policy(folder: Path, state: dict[str, Any]) -> Path:
    """Save a policy to evaluate or export; it stays."""
    path = policy_path(folder, int(state["updates"]))
    _write(path, state)
    return path


def _write(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint and its sha256; between two steps, the file matches one in its list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    replaced = read_digests(path) if path.exists() else []
    write_atomically(digest_path(path), "".join(f"{d}\n" for d in (*replaced, digest)).encode())
    write_atomically(path, content)
    if replaced:
        write_atomically(digest_path(path), f"{digest}\n".encode())


def _remove_outdated(folder: Path, *, newest: int) -> None:
    """Remove every training state but the newest and the intact one before it.

    A state with more updates could not be read, or the run would have been resumed from it.
    """
    others = [updates for updates in reversed(saved_updates(folder)) if updates != newest]
    older = (updates for updates in others if updates < newest)
    previous = next((updates for updates in older if _is_intact(state_path(folder, updates))), None)
    for updates in others:
        if updates != previous:
            path = state_path(folder, updates)
            # The sha256 first: a file without one is found and removed at the next save.
            digest_path(path).unlink(missing_ok=True)
            path.unlink()


# --- Reading ---------------------------------------------------------------------------------


def read_digests(path: Path) -> list[str]:
    """Return the sha256 that a checkpoint may have; [] without a digest file.

    Two where a process was killed while it replaced the checkpoint.
    """
    digests = digest_path(path)
    return read_bytes(digests).decode(errors="replace").split() if digests.exists() else []


def _is_intact(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() in read_digests(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in a file. Raises CheckpointError when it is missing, corrupt or too new."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; the run saved no checkpoint there")
    try:
        content = read_bytes(path)
    except (DataError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    digest, expected = hashlib.sha256(content).hexdigest(), read_digests(path)
    if digest not in expected:
        raise CheckpointError(
            f"{path} is corrupt: sha256 {digest[:12]}…, expected "
            f"{' or '.join(d[:12] + '…' for d in expected) or 'a .sha256 file beside it'}"
        )
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains more than tensors and plain values, which is refused; "
            "it was not written by this project"
        ) from error
    except Exception as error:  # of torch, for a file that has its checksum but is no checkpoint
        if explain(error) is not None:  # too large for the memory
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint ({reason}); it was not written by this project"
        ) from error
    if not isinstance(state, dict) or differing_key(state, {"format": int, "updates": int}):
        raise CheckpointError(f"{path} is not a checkpoint; it was not written by this project")
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"update offline-cql: {path} has format {state['format']}, "
            f"this version reads up to {FORMAT}"
        )
    return state


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    """Return a run's newest training state; after a warning, the one before a corrupt one.

    Raises CheckpointError when the run has no training state that can be read.
    """
    paths = [state_path(folder, updates) for updates in reversed(saved_updates(folder))]
    if not paths:
        raise CheckpointError(
            f"start a new run: {folder / RESUME} contains no checkpoint, "
            "the run ended before its first one"
        )
    for path, older in pairwise(paths):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            print_message(f"warning: {error}; using {older.name}")
    return read_checkpoint(paths[-1])


def load_state(folder: Path, checkpoint: str) -> dict[str, Any]:
    """Return one checkpoint: the newest with `last`, or a kept policy by its number of updates.

    Raises ConfigError when there is no such checkpoint, CheckpointError when it is corrupt.
    """
    available = [LAST, *map(str, kept_updates(folder))]
    if checkpoint not in available:
        raise ConfigError(f"checkpoint={checkpoint} must be one of {', '.join(available)}")
    if checkpoint == LAST:
        return newest_checkpoint(folder)
    return read_checkpoint(policy_path(folder, int(checkpoint)))


def check_complete(folder: Path, *, done: int, updates: int) -> None:
    """Raise IncompleteRunError unless all updates are done and saved: that is "finished"."""
    saved = max(saved_updates(folder), default=0)
    try:
        complete = done == saved >= updates and bool(read_checkpoint(state_path(folder, saved)))
    except CheckpointError:
        complete = False
    if not complete:
        resume = command("train.py", ("resume", folder), *package_words(folder))
        raise IncompleteRunError(
            f"{folder}: the training ended after {done} of {updates} updates, the last intact "
            f"checkpoint has at most {saved}; continue with: {resume}"
        )
