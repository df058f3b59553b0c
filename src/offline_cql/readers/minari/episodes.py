"""Episodes as Minari stores them: T+1 observations, T of everything else.

hdf5.py and arrow.py read them from files; here they are validated and passed to the writer.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from minari.dataset.minari_storage import is_image_space
from PIL import Image

from offline_cql.errors import DataError
from offline_cql.readers.row_files import Array
from offline_cql.readers.writer import CHUNK, Steps, TransitionWriter
from offline_cql.render.progress import ProgressBar
from offline_cql.spaces import Layout, Leaf
from offline_cql.transitions import Spaces

FLAGS = ("terminations", "truncations")
CHUNK_BYTES = 256 << 20  # of images, concatenated at a time


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """The validated metadata of a data set, and the layout of the observations to read."""

    dataset_id: str
    folder: Path  # the one with metadata.json
    format: str
    steps: int
    episodes: int
    layout: Layout
    action: gym.Space[Any]
    spaces: Spaces
    jpeg: bool  # images are stored as JPEG

    def is_jpeg(self, leaf: Leaf) -> bool:
        """Return True if the values of this part of the observation are JPEG files."""
        return self.jpeg and is_image_space(leaf.space)

    def check_count(self, episodes: int) -> None:
        """Raise DataError unless the files hold as many episodes as metadata.json states."""
        if episodes != self.episodes:
            raise DataError(
                f"{self.dataset_id} has {episodes} episodes, metadata.json states "
                f"{self.episodes}: record or download it again"
            )


@dataclass(frozen=True, eq=False)
class Episode:
    """One stored episode. observations: [T+1, ...] per leaf of the space; the rest [T, ...].

    name: of the episode, for messages. Raises DataError when lengths do not fit.
    """

    name: str
    observations: list[Array]
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        if steps == 0:
            raise DataError(f"{self.name} is empty")
        lengths = [("observations", len(leaf), steps + 1) for leaf in self.observations]
        lengths += [(name, len(getattr(self, name)), steps) for name in ("actions", *FLAGS)]
        for array, length, expected in lengths:
            if length != expected:
                raise DataError(
                    f"{self.name} of {steps} steps has {length} {array}, expected {expected}"
                )
        early = np.flatnonzero((self.terminations | self.truncations)[:-1])
        if early.size:
            raise DataError(
                f"{self.name} ends at step {early[0]} but continues to step {steps - 1}"
            )

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def nbytes(self) -> int:
        """Size of the observations."""
        return sum(leaf.nbytes for leaf in self.observations)


def check_array(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], inner: Any) -> None:
    """Raise DataError unless an array that is about to be read is [T, *inner] numbers."""
    if dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {dtype}, expected numbers")
    if not shape or math.prod(shape[1:]) != math.prod(inner):
        expected = (*shape[:1], *inner)
        raise DataError(f"{name} has shape {shape}, expected {expected}")


def stored_shape(space: gym.Space[Any]) -> tuple[int, ...]:
    """Return the shape of one stored value; () for Discrete, which is stored as an index."""
    return tuple(space.shape or ())


def build_episode(
    stored: StoredDataset,
    number: int,
    array: Callable[[str, tuple[int, ...]], Array],
    leaf: Callable[[Leaf], Array],
) -> Episode:
    """Return an episode of arrays that a format reads.

    array(name, inner): [T, *inner] numbers of actions, rewards or a flag; leaf: [T+1, ...] of one
    part of the observations. Raises DataError for flags of floats.
    """
    name = f"{stored.dataset_id}: episode {number}"
    flags = [array(flag, ()) for flag in FLAGS]
    for flag, values in zip(FLAGS, flags, strict=True):
        if values.dtype.kind == "f":
            raise DataError(f"{name}: {flag} has dtype {values.dtype}, expected booleans")
    return Episode(
        name,
        [leaf(part) for part in stored.layout.leaves],
        array("actions", stored_shape(stored.action)),
        array("rewards", ()),
        *(values.astype(bool) for values in flags),
    )


def decode_images(name: str, leaf: Leaf, files: Iterable[Any]) -> Array:
    """Return JPEG files as [T, *shape] uint8. Raises DataError when one has another size."""
    images = []
    for file in files:
        with Image.open(io.BytesIO(bytes(file)), formats=["JPEG"]) as image:
            width, height = image.size
            if (height, width) != leaf.space.shape[:2]:
                raise DataError(
                    f"{name} has an image of {height} x {width}, expected {leaf.space.shape}"
                )
            images.append(np.asarray(image, np.uint8))
    return np.stack(images)


def write_episodes(
    stored: StoredDataset, episodes: Iterable[Episode], writer: TransitionWriter
) -> None:
    """Pass whole episodes to the writer in chunks of about writer.CHUNK steps."""
    with ProgressBar(f"reading {stored.dataset_id}", stored.steps) as bar:
        chunk: list[Episode] = []
        for episode in episodes:
            chunk.append(episode)
            nbytes = sum(part.nbytes for part in chunk) if stored.layout.images else 0
            if sum(map(len, chunk)) >= CHUNK or nbytes >= CHUNK_BYTES:
                bar.advance(_append(stored, writer, chunk))
                chunk = []
        if chunk:
            _append(stored, writer, chunk)


def _append(stored: StoredDataset, writer: TransitionWriter, episodes: list[Episode]) -> int:
    """Append the steps of whole episodes to the writer; return their number."""
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
        return layout.rows([np.concatenate([array[part] for array in leaf]) for leaf in leaves])

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
