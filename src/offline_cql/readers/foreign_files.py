"""Files that are not what their name says, or are other libraries': what they are, what to do.

Each conversion is a command that writes `<name>.converted.parquet` or `.npz` beside the file, for
dataset=table.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from offline_cql.errors import DataError
from offline_cql.readers.writer import translate_errors
from offline_cql.render.command import command, hydra_value, shell_word

SHORT = 2**9  # bytes that show what a file is
LARGEST_ROW = 2**20  # bytes of JSON
LFS = b"version https://git-lfs.github.com/spec/"
MARKUP = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
# First bytes of a format, and the end of its files' names.
SIGNATURES = {
    b"PAR1": ("Parquet", ".parquet"),
    b"PK\x03\x04": ("NPZ or another ZIP", ".npz"),
    b"\x89HDF\r\n\x1a\n": ("HDF5", ".hdf5"),
    b"\x1f\x8b": ("gzip", ".gz"),
}
TIANSHOU = ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next")
AGAIN = "copy or download it again"
code_text = partial(json.dumps, ensure_ascii=False)  # double quotes stay readable in a shell's


def refuse_foreign_content(path: Path, suffix: str, *, again: str = AGAIN) -> None:
    """Raise DataError for a file that is not what its name, ending in `suffix`, says.

    That is an empty file, a pointer of Git LFS, a web page, or another format. again: the remedy
    for an empty file.
    """
    with path.open("rb") as file:
        begin = file.read(SHORT)
    if not begin:
        raise DataError(f"{path} is empty (0 bytes): {again}")
    if begin.startswith(LFS):
        pull = command("git", "-C", str(path.absolute().parent), "lfs", "pull")
        raise DataError(f"{path} is a pointer of Git LFS, not the data: {pull}")
    if MARKUP.match(begin):
        raise DataError(
            f"{path} is a web page, not data (a page to sign in, or a server's error): download "
            "the file itself"
        )
    for signature, (kind, end) in SIGNATURES.items():
        if begin.startswith(signature) and not suffix.endswith(end):
            named = path.name.lower().endswith(end)
            remedy = "set dataset=table" if named else f"rename it to end in {end}"
            raise DataError(f"{path} is a {kind} file by its content: {remedy}")


def holds_batches(path: Path) -> bool:
    """Return whether a row of a JSON file holds several steps, a list per column, as RLlib's.

    Raises DataError for batches of several agents and packed columns.
    """
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with translate_errors(path, AGAIN), opened(path, "rb") as file:
        line = file.readline(LARGEST_ROW)
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict):
        return False
    if "policy_batches" in row or isinstance(row.get("obs"), str):
        raise DataError(
            f"{path} holds RLlib's batches of several agents or packed columns: read it with "
            "ray.rllib.offline.json_reader.JsonReader, and save one array per column with "
            "numpy.savez, one row per step, for dataset=table"
        )
    return row.get("type") == "SampleBatch" or isinstance(row.get("rewards"), list)


def tianshou_conversion(path: Path, names: Collection[str]) -> str | None:
    """Return the remedy for an HDF5 file with these names if tianshou wrote it, else None."""
    target = _converted(path, ".npz")
    if "_meta" in names:  # a buffer's arrays may have gaps and start anywhere
        buffer = "VectorReplayBuffer" if "buffers" in names else "ReplayBuffer"
        code = (
            f"import numpy; from tianshou.data import {buffer} as B; "
            f"b, _ = B.load_hdf5({code_text(str(path))}).sample(0); "
            f"numpy.savez({code_text(target)}, "
            f"**{{name: b[name] for name in {code_text(TIANSHOU)} if name in b}})"
        )
    elif {"obs", "act", "rew"} <= set(names):
        arrays = [name for name in TIANSHOU if name in names]
        code = (
            f"import h5py, numpy; file = h5py.File({code_text(str(path))}); "
            f"numpy.savez({code_text(target)}, "
            f"**{{name: file[name][()] for name in {code_text(arrays)}}})"
        )
    else:
        return None
    return f"these are tianshou's: {_conversion(code, target)}"


def _converted(path: Path, suffix: str) -> str:
    """Return the path of the converted file."""
    name = re.sub(r"(\.[A-Za-z0-9]{1,7}){1,2}$", "", path.name) or path.name
    return str(path.with_name(f"{name}.converted{suffix}"))


def _conversion(code: str, target: str) -> str:
    settings = f"dataset=table {shell_word(f'dataset.path={hydra_value(target)}')}"
    return f"convert it by {command('python', '-c', code)} and set {settings}"
