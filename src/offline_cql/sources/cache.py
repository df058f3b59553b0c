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

from offline_cql.run_folder import write_json
from offline_cql.sources.exclusive import exclusive
from offline_cql.sources.gate import Gate, Source, opened
from offline_cql.transitions import DataError, Transitions

FORMAT = 1  # of rows and files; another number reads every source again


def cache_root() -> Path:
    """$OFFLINE_CQL_CACHE, or offline_cql in the user's folder for caches."""
    own = os.environ.get("OFFLINE_CQL_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "offline_cql"


def load(source: Source) -> Transitions:
    """The transitions of a source: from the cache, or read, checked and put there first.

    Two processes that ask at once read it once. Raises DataError for what the gate refuses.
    """
    fingerprint = {"format": FORMAT, "kind": type(source).__name__, **source.fingerprint()}
    key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    root = cache_root()
    note = root / "known" / f"{key}.json"
    if (cached := _cached(root, note)) is not None:
        return cached
    with exclusive(root / "locks" / key, f"reading {source.dataset_id}"):
        if (cached := _cached(root, note)) is None:
            about = _read(source, root, key)
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, about)
            cached = opened(root / "content" / about["sha256"], about)
    return cached


def _cached(root: Path, note: Path) -> Transitions | None:
    if not note.is_file():
        return None
    about = json.loads(note.read_text())
    content = root / "content" / about["sha256"]
    if not content.is_dir():
        return None
    try:
        return opened(content, about)
    except DataError as error:
        print(f"warning: {error}; reading the data again", file=sys.stderr)
        shutil.rmtree(content, ignore_errors=True)
        return None


def _read(source: Source, root: Path, key: str) -> dict[str, Any]:
    """Read the source into content/<sha256>; returns what is known about it."""
    building = root / "building" / key
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir(parents=True)
    try:
        with Gate(source.dataset_id, source.spaces(), building) as gate:
            source.read(gate)
            gate.finish()
            about = gate.about()
        final = root / "content" / about["sha256"]
        final.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(root / "locks" / about["sha256"], "storing the same data"):
            if not final.exists():  # another source may have had the same content
                building.rename(final)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return about
