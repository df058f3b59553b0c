"""Episodes as Minari stores them: T+1 observations for T of everything else, checked and joined.

Knows nothing of files: minari_hdf5.py and minari_arrow.py take them from there.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from minari.dataset.minari_storage import is_image_space
from PIL import Image

from offline_cql.errors import DataError
from offline_cql.readers.writer import CHUNK, Steps, TransitionWriter
from offline_cql.render.progress import ProgressBar
from offline_cql.spaces import Layout, Leaf

Array = npt.NDArray[Any]

FLAGS = ("terminations", "truncations")
CHUNK_BYTES = 256 << 20  # of pictures, joined at a time


@dataclass(frozen=True, eq=False)
class Stored:
    """What the checked metadata of a data set say, and what of it is wanted."""

    dataset_id: str
    folder: Path  # with metadata.json
    format: str
    steps: int
    episodes: int
    layout: Layout
    action: gym.Space[Any]
    encoded: bool  # pictures are kept as JPEG

    def is_picture(self, leaf: Leaf) -> bool:
        """Whether the leaf's values are JPEG files."""
        return self.encoded and is_image_space(leaf.space)

    def check_count(self, found: int) -> None:
        """Raises DataError when the files hold another number of episodes than promised."""
        if found != self.episodes:
            raise DataError(
                f"{self.dataset_id} has {found} episodes, metadata.json says "
                f"{self.episodes}: record or download it again"
            )


@dataclass(frozen=True, eq=False)
class Episode:
    """One stored episode. observations: of each leaf [T+1, ...]; the rest [T, ...]."""

    place: str
    observations: list[Array]
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        if steps == 0:
            raise DataError(f"{self.place} is empty")
        lengths = [("observations", len(leaf), steps + 1) for leaf in self.observations]
        lengths += [(name, len(getattr(self, name)), steps) for name in ("actions", *FLAGS)]
        for name, length, fitting in lengths:  # the observation after the last action, too
            if length != fitting:
                raise DataError(
                    f"{self.place} of {steps} steps has {length} {name}, expected {fitting}"
                )
        early = np.flatnonzero((self.terminations | self.truncations)[:-1])
        if early.size:
            raise DataError(f"{self.place} ends at step {early[0]} but goes on to step {steps - 1}")

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in self.observations)


def check_array(place: str, dtype: np.dtype[Any], shape: tuple[int, ...], inner: Any) -> None:
    """Refuses, before it is read, what is no array [T, *inner] of numbers."""
    if dtype.kind not in "biuf":
        raise DataError(f"{place} has dtype {dtype}, expected numbers")
    if not shape or math.prod(shape[1:]) != math.prod(inner):
        expected = (*shape[:1], *inner)
        raise DataError(f"{place} has the shape {shape}, expected {expected}")


def stored_shape(space: gym.Space[Any]) -> tuple[int, ...]:
    """Of one value; () for Discrete, whose one-hot is made here."""
    return tuple(space.shape or ())


def flags(place: str, values: Array) -> npt.NDArray[np.bool_]:
    """Ends of episodes [T]. Raises DataError for numbers that are no truth values."""
    if values.dtype.kind == "f":
        raise DataError(f"{place} has dtype {values.dtype}, expected booleans")
    return values.reshape(len(values)).astype(bool)


def pictures(place: str, leaf: Leaf, files: Iterable[Any]) -> Array:
    """JPEG files as [T, *shape] uint8. Raises DataError when one has another size."""
    decoded = []
    for file in files:
        with Image.open(io.BytesIO(bytes(file)), formats=["JPEG"]) as picture:
            width, height = picture.size
            if (height, width) != leaf.space.shape[:2]:
                raise DataError(
                    f"{place} has a picture of {height} x {width}, expected {leaf.space.shape}"
                )
            decoded.append(np.asarray(picture, np.uint8))
    return np.stack(decoded)


def write_episodes(stored: Stored, episodes: Iterable[Episode], writer: TransitionWriter) -> None:
    """All episodes, end to end, in pieces of about writer.CHUNK steps."""
    with ProgressBar(f"reading {stored.dataset_id}", stored.steps) as bar:
        waiting: list[Episode] = []
        for episode in episodes:
            waiting.append(episode)
            held = sum(each.nbytes for each in waiting) if stored.layout.images else 0
            if sum(map(len, waiting)) >= CHUNK or held >= CHUNK_BYTES:
                bar.advance(_add(stored, writer, waiting))
                waiting = []
        if waiting:
            _add(stored, writer, waiting)


def _add(stored: Stored, writer: TransitionWriter, episodes: list[Episode]) -> int:
    """Whole episodes through the writer; how many steps they were."""
    last = np.cumsum([len(episode) for episode in episodes]) - 1
    terminated = np.concatenate([episode.terminations for episode in episodes])
    truncated = np.concatenate([episode.truncations for episode in episodes])
    unmarked = last[~(terminated | truncated)[last]]
    writer.count_repair("episodes_without_an_end", len(unmarked))
    truncated[unmarked] = True
    layout = stored.layout
    writer.count_repair("steps_without_their_text", len(terminated) * bool(layout.texts))

    def rows(part: slice) -> Array:
        leaves = zip(*(episode.observations for episode in episodes), strict=True)
        return layout.rows([np.concatenate([each[part] for each in leaf]) for leaf in leaves])

    writer.append(
        Steps(
            observations=rows(slice(None, -1)),
            actions=np.concatenate([e.actions for e in episodes]),
            rewards=np.concatenate([e.rewards for e in episodes]),
            next_observations=rows(slice(1, None)),
            terminated=terminated,
            truncated=truncated,
        )
    )
    return len(terminated)
