"""Packed transitions on disk, written once, mapped into the memory of every process that asks.

known/<key>.json says which content a source had when it was read (the key is a digest of its
fingerprint); content/<sha256>/ holds the rows. Both appear whole or not at all. Any of it may be
deleted at any time: it is made again from the source.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from offline_cql.errors import DataError
from offline_cql.io import exclusive, write_json
from offline_cql.readers.row_files import load_rows
from offline_cql.readers.writer import Source, TransitionWriter
from offline_cql.transitions import Transitions

FORMAT = 2  # of rows and files; another number reads every source again


def cache_root() -> Path:
    """$OFFLINE_CQL_CACHE, or offline_cql in the user's folder for caches."""
    own = os.environ.get("OFFLINE_CQL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "offline_cql"


def load(source: Source) -> Transitions:
    """The transitions of a source: from the cache, or read, checked and put there first.

    Two processes that ask at once read it once. Raises DataError for what the writer refuses.
    """
    fingerprint = {"format": FORMAT, "kind": type(source).__name__, **source.fingerprint()}
    key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    root = cache_root()
    try:
        return _cached(root, key)
    except _Absent:
        pass
    with exclusive(root / "locks" / key, f"reading {source.dataset_id}"):
        try:
            return _cached(root, key)  # another process may have put it there meanwhile
        except _Absent as absent:
            if absent.args:
                print(f"warning: {absent}; reading the data again", file=sys.stderr)
        about = _read(source, root, key)
        write_json(_note(root, key), about)
        return load_rows(root / "content" / about["sha256"], about)


class _Absent(Exception):
    """Not in the cache; with a text, if it was there and something happened to it."""


def _note(root: Path, key: str) -> Path:
    return root / "known" / f"{key}.json"


def _cached(root: Path, key: str) -> Transitions:
    note = _note(root, key)
    if not note.is_file():
        raise _Absent
    try:
        about = json.loads(note.read_text())
        return load_rows(root / "content" / about["sha256"], about)
    except ValueError as error:
        raise _Absent(f"{note} is not JSON") from error
    except DataError as error:
        raise _Absent(str(error)) from error


def _read(source: Source, root: Path, key: str) -> dict[str, Any]:
    """Read the source into content/<sha256>; returns what is known about it."""
    building = root / "building" / key
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir(parents=True)
    try:
        with TransitionWriter(source.dataset_id, source.spaces(), building) as writer:
            source.read(writer)
            writer.finish()
            about = writer.about()
        _note(root, key).parent.mkdir(parents=True, exist_ok=True)
        _store(building, root, about)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return about


def _store(building: Path, root: Path, about: dict[str, Any]) -> None:
    """Move what was built to content/<sha256>, unless the same is there whole."""
    final = root / "content" / about["sha256"]
    final.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(root / "locks" / about["sha256"], "storing the same data"):
        try:
            load_rows(final, about)  # another source had the same content
        except DataError:
            shutil.rmtree(final, ignore_errors=True)
            building.rename(final)
