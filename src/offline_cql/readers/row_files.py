"""Packed transitions as the files of a folder: appended to, then mapped into memory.

rows.f32, ends.i64 and, where there are any, images.u8 and propensities.f32, without headers: what
they hold is written beside them (`about`). Knows nothing of sources, nor what a good row is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.transitions import Spaces, Transitions, columns

Array = npt.NDArray[Any]

ROWS, ENDS, IMAGES, PROPENSITIES = "rows.f32", "ends.i64", "images.u8", "propensities.f32"


class RowFiles:
    """The files of a folder while they are written, with their lengths and digests so far."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lengths: dict[str, int] = {}
        self._open: dict[str, tuple[BinaryIO, Any]] = {}

    def append(self, name: str, values: Array) -> None:
        if name not in self._open:
            self._open[name] = ((self.folder / name).open("wb"), hashlib.sha256())
            self.lengths[name] = 0
        file, digest = self._open[name]
        block = np.ascontiguousarray(values)
        file.write(block.data)
        digest.update(block.data)
        self.lengths[name] += block.nbytes

    def digests(self) -> dict[str, str]:
        """sha256 of what is in each file, by the first part of its name."""
        return {n.partition(".")[0]: digest.hexdigest() for n, (_, digest) in self._open.items()}

    def close(self) -> None:
        for file, _ in self._open.values():
            file.close()


def load_rows(folder: Path, about: dict[str, Any]) -> Transitions:
    """Transitions over the files of a folder. Raises DataError when one has another size."""
    for name, length in about["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != length:
            missing = "is missing" if found is None else f"has {found} bytes, expected {length}"
            raise DataError(f"{path} {missing}: delete {folder}")
    plain = about["spaces"]
    spaces = Spaces(
        observation_dim=plain["observation_dim"],
        action_dim=plain["action_dim"],
        discrete=plain["discrete"],
        action_low=tuple(plain["action_low"]),
        action_high=tuple(plain["action_high"]),
    )
    size, images = about["size"], IMAGES in about["files"]

    def mapped(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Array:
        # Copy on write: torch wants memory that it may write to; nothing does.
        return np.memmap(folder / name, dtype, mode="c", shape=shape) if size else np.empty(shape)

    width = columns(spaces, images=images).width
    own = PROPENSITIES in about["files"]
    return Transitions(
        rows=mapped(ROWS, np.float32, (size, width)),
        ends=np.fromfile(folder / ENDS, np.int64),
        images=mapped(IMAGES, np.uint8, (size, 2, spaces.observation_dim)) if images else None,
        propensities=mapped(PROPENSITIES, np.float32, (size,)) if own else None,
        spaces=spaces,
        dataset_id=about["dataset_id"],
        sha256=about["sha256"],
        observation_names=tuple(about["observation_names"]),
        action_names=tuple(about["action_names"]),
        repairs=about["repairs"],
    )
