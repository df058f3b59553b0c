"""Checksums of stored bytes, per chunk: a flipped bit is found when a data set is opened.

xxh3 is not cryptographic: it detects decay and accidents, not an attacker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import xxhash

from offline_cql.errors import DataError
from offline_cql.io import read_json, write_json

CHUNK_BYTES = 2**26  # per checksum
MANIFEST = "manifest.json"
READ_BYTES = 2**20  # at a time: they stay in the processor's cache


class ChunkChecksums:
    """The checksums of a file's chunks, from its bytes in any pieces."""

    def __init__(self) -> None:
        self._complete: list[str] = []
        self._open, self._size = xxhash.xxh3_64(), 0

    def update(self, data: memoryview) -> None:
        """Add the next bytes, a contiguous view of any type."""
        data = data.cast("B")
        while data:
            piece = data[: CHUNK_BYTES - self._size]
            self._open.update(piece)
            self._size += len(piece)
            data = data[len(piece) :]
            if self._size == CHUNK_BYTES:
                self._complete.append(self._open.hexdigest())
                self._open, self._size = xxhash.xxh3_64(), 0

    def values(self) -> list[str]:
        """Return the checksum of each chunk; the last one may be shorter."""
        return [*self._complete, *([self._open.hexdigest()] if self._size else [])]


def file_checksums(path: Path) -> list[str]:
    """Return the checksums of a file's chunks."""
    checksums = ChunkChecksums()
    for block in _blocks(path):
        checksums.update(block)
    return checksums.values()


def _blocks(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(READ_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield view[:count]


def write_manifest(folder: Path) -> None:
    """Write the checksums of a folder's files to manifest.json beside the folder."""
    files = {path.name: file_checksums(path) for path in sorted(folder.iterdir())}
    write_json(folder.parent / MANIFEST, {"files": files})


def verify_manifest(folder: Path, remedy: str) -> None:
    """Raise DataError unless a folder's files are as manifest.json says, if it exists."""
    path = folder.parent / MANIFEST
    if not path.is_file():
        return
    remedy = f"{remedy}; delete {path} if the change was yours"
    files = read_json(path, {"files": dict}, remedy=remedy)["files"]
    if not all(isinstance(checksums, list) for checksums in files.values()):
        raise DataError(f"{path} is corrupt: {remedy}")
    verify(folder, files, remedy)


def verify(folder: Path, files: dict[str, list[str]], remedy: str) -> None:
    """Raise DataError unless every file of a folder has these checksums."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing: {remedy}")
        actual = file_checksums(path)
        if actual == expected:
            continue
        pairs = enumerate(zip(actual, expected, strict=False))
        shorter = min(len(actual), len(expected))
        chunk = next((number for number, (a, b) in pairs if a != b), shorter)
        raise DataError(
            f"{path} is corrupt: the checksum of its bytes from {chunk * CHUNK_BYTES:,} on has "
            f"changed since it was written: {remedy}"
        )
