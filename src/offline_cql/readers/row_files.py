"""Transitions as the files of a folder: written by appending, then mapped into memory.

rows.f32, ends.i64 and, where there are any, images.u8, propensities.f32 and durations.f32. They
have no headers: sizes and names are in the metadata that the writer returns.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.features import Features
from offline_cql.io import located
from offline_cql.readers.checksums import ChunkChecksums, verify
from offline_cql.transitions import Spaces, Transitions, columns

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]

ROWS, ENDS, IMAGES = "rows.f32", "ends.i64", "images.u8"
PROPENSITIES, DURATIONS = "propensities.f32", "durations.f32"


class RowFiles:
    """The files of a folder while they are written: lengths in bytes, digests and checksums."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lengths: dict[str, int] = {}
        self._open: dict[str, tuple[BinaryIO, Any, ChunkChecksums]] = {}

    def append(self, name: str, values: Array) -> None:
        """Append the bytes of an array to a file, which is created on first use."""
        if name not in self._open:
            opened: BinaryIO = (self.folder / name).open("wb")
            self._open[name] = (opened, hashlib.sha256(), ChunkChecksums())
            self.lengths[name] = 0
        file, digest, checksums = self._open[name]
        block = np.ascontiguousarray(values)
        with located(self.folder / name):
            file.write(block.data)
        digest.update(block.data)
        checksums.update(block.data)
        self.lengths[name] += block.nbytes

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file's content by the name before the dot."""
        return {
            name.partition(".")[0]: digest.hexdigest()
            for name, (_, digest, _) in self._open.items()
        }

    def checksums(self) -> dict[str, list[str]]:
        """Return the checksums of each file's chunks."""
        return {name: checksums.values() for name, (_, _, checksums) in sorted(self._open.items())}

    def close(self) -> None:
        """Close the files, which writes what is left in their buffers."""
        for name, (file, _, _) in self._open.items():
            with located(self.folder / name):
                file.close()


def load_rows(folder: Path, metadata: dict[str, Any]) -> Transitions:
    """Map the files of a folder as transitions."""
    values: dict[str, Any] = metadata["spaces"]  # JSON has lists for tuples
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    spaces = Spaces(**values)
    size, has_images = metadata["size"], IMAGES in metadata["files"]

    def memory_map(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Array:
        # Copy on write: torch requires writable memory, although nothing writes to it.
        return np.memmap(folder / name, dtype, mode="c", shape=shape) if size else np.empty(shape)

    width = columns(spaces, images=has_images).width
    images = propensities = durations = None
    if has_images:
        images = memory_map(IMAGES, np.uint8, (size, 2, spaces.observation_dim))
    if PROPENSITIES in metadata["files"]:
        propensities = memory_map(PROPENSITIES, np.float32, (size,))
    if DURATIONS in metadata["files"]:
        durations = memory_map(DURATIONS, np.float32, (size,))
    return Transitions(
        rows=memory_map(ROWS, np.float32, (size, width)),
        ends=np.fromfile(folder / ENDS, np.int64),
        images=images,
        propensities=propensities,
        durations=durations,
        spaces=spaces,
        dataset_id=metadata["dataset_id"],
        sha256=metadata["sha256"],
        observation_names=tuple(metadata["observation_names"]),
        action_names=tuple(metadata["action_names"]),
        features=None if (content := metadata["features"]) is None else Features.from_json(content),
        repairs=metadata["repairs"],
    )


def check_files(folder: Path, metadata: dict[str, Any]) -> None:
    """Raise DataError if a file is missing or does not have the bytes that were written."""
    for name, expected in metadata["files"].items():
        path = folder / name
        if path.is_file() and (actual := path.stat().st_size) != expected:
            raise DataError(f"{path} has {actual} bytes, expected {expected}: delete {folder}")
    verify(folder, metadata["checksums"], remedy=f"delete {folder}")
