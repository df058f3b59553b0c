"""Cache of data sets on disk: written once, memory-mapped by every process that trains on them.

metadata/<key>.json describes the content that a reader's files had; the key is a digest of the
reader's fingerprint. content/<sha256>/ holds the rows. Both appear whole or not at all, and may be
deleted at any time: the data are then read again. Both have checksums, compared at every opening.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import xxhash

from offline_cql.errors import DataError
from offline_cql.io import CACHE_REMEDY, cache_root, exclusive, read_json, remedied, write_json
from offline_cql.readers.row_files import check_files, load_rows
from offline_cql.readers.writer import Reader, TransitionWriter, translate_errors
from offline_cql.render.message import print_message
from offline_cql.transitions import Transitions

FORMAT = 5  # of rows and metadata; a change makes every data set be read again


def load(reader: Reader) -> Transitions:
    """Return a reader's transitions from the cache; read and validate them first if they are new.

    Of several processes that ask at once, one reads. Raises DataError for invalid data.
    """
    fingerprint = {"format": FORMAT, "kind": type(reader).__name__, **reader.fingerprint()}
    key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    root = cache_root()
    with remedied(root, CACHE_REMEDY):
        return _load(reader, root, key)


def _load(reader: Reader, root: Path, key: str) -> Transitions:
    if (cached := _load_cached(root, key)[0]) is not None:
        return cached
    with exclusive(root / "locks" / key, f"reading {reader.dataset_id}"):
        cached, damage = _load_cached(root, key)  # another process may have stored it meanwhile
        if cached is not None:
            return cached
        if damage:
            print_message(f"warning: {damage}; reading the data again")
        metadata = _read(reader, root, key)
        note = {"metadata": metadata, "checksum": _checksum(metadata)}
        write_json(_metadata_path(root, key), note)
        return load_rows(root / "content" / metadata["sha256"], metadata)


def _metadata_path(root: Path, key: str) -> Path:
    return root / "metadata" / f"{key}.json"


def _load_cached(root: Path, key: str) -> tuple[Transitions | None, str]:
    """Return the transitions; or None, and the damage to the cache if there is one."""
    path = _metadata_path(root, key)
    if not path.is_file():
        return None, ""
    try:
        note = read_json(path, {"metadata": dict, "checksum": str}, remedy="it is replaced")
        metadata = note["metadata"]
        if note["checksum"] != _checksum(metadata):
            return None, f"{path} is corrupt: its checksum is not that of its content"
        with translate_errors(path):  # any content may have its checksum
            if not all(isinstance(count, int) for count in metadata["repairs"].values()):
                raise ValueError("the repairs are no counts")
            folder = root / "content" / metadata["sha256"]
            check_files(folder, metadata)
            return load_rows(folder, metadata), ""
    except DataError as error:
        return None, str(error)


def _checksum(metadata: dict[str, Any]) -> str:
    """Return the checksum of a JSON object, whatever the order of its keys."""
    return xxhash.xxh3_64_hexdigest(json.dumps(metadata, sort_keys=True).encode())


def _read(reader: Reader, root: Path, key: str) -> dict[str, Any]:
    """Read the data into content/<sha256> and return their metadata."""
    building = root / "building" / key
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir(parents=True)
    try:
        with TransitionWriter(reader.dataset_id, reader.spaces(), building) as writer:
            reader.read(writer)
            writer.finish()
            metadata = writer.metadata()
        _metadata_path(root, key).parent.mkdir(parents=True, exist_ok=True)
        _store(building, root, metadata)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return metadata


def _store(building: Path, root: Path, metadata: dict[str, Any]) -> None:
    """Move the folder to content/<sha256>, unless the same content is there and complete."""
    final = root / "content" / metadata["sha256"]
    final.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(root / "locks" / metadata["sha256"], "storing the same data"):
        try:
            check_files(final, metadata)  # another reader had the same content
        except DataError:
            shutil.rmtree(final, ignore_errors=True)
            building.rename(final)
