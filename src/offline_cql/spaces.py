"""Gymnasium's spaces as flat rows of numbers: one rule for data sets and for simulators.

A Dict is laid out by its keys in alphabetical order, at every level; a Tuple by position; a Box row
by row; Discrete and MultiDiscrete as one-hot; MultiBinary as it is. That is what
gymnasium.spaces.utils.flatten does. Text is left out: it holds no
numbers, and where it is constant (minigrid's mission in most tasks) it carries no information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from offline_cql.errors import DataError
from offline_cql.transitions import ActionMap, Spaces

Array = npt.NDArray[Any]
Space: TypeAlias = "gym.Space[Any]"

MOST_NAMES = 1_000  # columns; with more the names are left out
ACTION_SPACES = (
    "a flat Box [A] of floats and a Discrete from 0 are: wrap the environment, as with "
    "gymnasium.wrappers.TransformAction"
)


@dataclass(frozen=True, eq=False)
class Leaf:
    """One part of a nested observation space, and the numbers that it takes.

    path: keys of Dicts, positions of Tuples; `size` numbers after flattening.
    """

    path: tuple[str | int, ...]
    space: Space
    size: int

    @property
    def name(self) -> str:
        return "/".join(map(str, self.path)) or "observation"


@dataclass(frozen=True, eq=False)
class Layout:
    """The leaves of an observation space in the order in which they are laid out."""

    leaves: tuple[Leaf, ...]
    texts: tuple[str, ...]  # names of what was left out

    @property
    def size(self) -> int:
        return sum(leaf.size for leaf in self.leaves)

    @property
    def images(self) -> bool:
        """True for images only: every number is a byte, rows stay uint8."""
        return all(isinstance(leaf.space, Box) and _bytes(leaf.space) for leaf in self.leaves)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a row: uint8 for images, else float32 or float64."""
        if self.images:
            return np.dtype(np.uint8)
        boxes = [leaf.space.dtype for leaf in self.leaves if isinstance(leaf.space, Box)]
        dtype: np.dtype[Any] = np.result_type(np.float32, *boxes)
        return dtype

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, `goal.0`, `direction=2`; none for a plain Box or for images."""
        if not any(leaf.path for leaf in self.leaves) or self.size > MOST_NAMES:
            return ()
        return tuple(name for leaf in self.leaves for name in _names(leaf))

    def rows(self, values: Sequence[Array]) -> Array:
        """Return rows [T, D] of each leaf's T values; uint8 for images only."""
        parts = [flat_leaf(leaf, array) for leaf, array in zip(self.leaves, values, strict=True)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return whole if self.images or whole.dtype != np.uint8 else whole.astype(np.float32)

    def row(self, observation: Any) -> Array:
        """Return the row [D] of one observation of a simulator."""
        values = [np.asarray(select_leaf(observation, leaf))[None] for leaf in self.leaves]
        row: Array = self.rows(values)[0]
        return row


def select_leaf(observation: Any, leaf: Leaf) -> Any:
    """Return the leaf's part of a nested observation."""
    for key in leaf.path:
        observation = observation[key]
    return observation


def layout(space: Space, keys: Sequence[str] | None = None) -> Layout:
    """Return the layout of an observation space; keys: those taken from a Dict, None for all.

    Raises DataError for a space without numbers, one that is not supported, or keys that are
    not its own.
    """
    if keys is not None:
        space = _select_keys(space, keys)
    leaves: list[Leaf] = []
    texts: list[str] = []

    def walk(part: Space, path: tuple[str | int, ...]) -> None:
        if isinstance(part, Dict):
            for key in sorted(part.spaces):
                walk(part.spaces[key], (*path, key))
        elif isinstance(part, Tuple):
            for position, space_at in enumerate(part.spaces):
                walk(space_at, (*path, position))
        elif part.dtype is not None and part.dtype.kind == "U":  # Text and the like
            texts.append("/".join(map(str, path)))
        else:
            leaves.append(Leaf(path, part, _size(part)))

    walk(space, ())
    if not sum(leaf.size for leaf in leaves):
        raise DataError(f"observation space {space} holds no numbers")
    return Layout(tuple(leaves), tuple(texts))


def _select_keys(space: Space, keys: Sequence[str]) -> Space:
    if not isinstance(space, Dict):
        raise DataError(f"env.observation_keys={list(keys)} needs a Dict, not the space {space}")
    unknown = [key for key in keys if key not in space.spaces]
    if unknown or not keys:
        raise DataError(
            f"env.observation_keys={list(keys)} must be among {sorted(space.spaces)}, "
            "the keys of the observation"
        )
    return Dict({key: space.spaces[key] for key in keys})


def _size(space: Space) -> int:
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, Box | MultiBinary):
        return int(np.prod(space.shape))
    raise DataError(
        f"observation space {space} is not supported; Box, Discrete, MultiDiscrete, MultiBinary "
        "and Dicts and Tuples of them are"
    )


def _bytes(space: Space) -> bool:
    return bool(space.dtype == np.uint8)


def _names(leaf: Leaf) -> list[str]:
    if isinstance(leaf.space, Discrete):
        start = int(leaf.space.start)
        return [f"{leaf.name}={start + index}" for index in range(leaf.size)]
    return [f"{leaf.name}.{index}" for index in range(leaf.size)]


def flat_leaf(leaf: Leaf, values: Array) -> Array:
    """Return [T, size] for T values of the leaf. Raises DataError for one outside its space."""
    if isinstance(leaf.space, Discrete):
        return _one_hot(leaf, values.reshape(len(values), 1), [leaf.size], [leaf.space.start])
    if isinstance(leaf.space, MultiDiscrete):
        counts, starts = leaf.space.nvec.ravel(), leaf.space.start.ravel()
        return _one_hot(leaf, values.reshape(len(values), -1), counts, starts)
    return values.reshape(len(values), leaf.size)


def _one_hot(leaf: Leaf, values: Array, counts: Sequence[int], starts: Sequence[int]) -> Array:
    """Return one-hot columns [T, sum of counts], float32, for values [T, K] of K categories."""
    index = values - np.asarray(starts)
    outside = (index < 0) | (index >= np.asarray(counts)) | (index != np.floor(index))
    if outside.any():
        first = values[tuple(np.argwhere(outside)[0])]
        raise DataError(f"observations: {leaf.name} has the value {first}, outside {leaf.space}")
    hot = np.zeros((len(values), int(np.sum(counts))), np.float32)
    columns = index.astype(np.int64) + np.concatenate([[0], np.cumsum(counts)[:-1]])
    np.put_along_axis(hot, columns, 1.0, axis=1)
    return hot


def flat_spaces(observation: Space, action: Space, keys: Sequence[str] | None = None) -> Spaces:
    """Return sizes and bounds of a pair of spaces. Raises DataError for unsupported ones."""
    size = layout(observation, keys).size
    if isinstance(action, Discrete):
        if action.start != 0:
            raise DataError(f"action space {action} is not supported; {ACTION_SPACES}")
        return Spaces(size, int(action.n), True, (), ())
    floating = isinstance(action, Box) and np.issubdtype(action.dtype, np.floating)
    if not isinstance(action, Box) or not floating or len(action.shape) != 1:
        raise DataError(f"action space {action} is not supported; {ACTION_SPACES}")
    bounds = ActionMap(tuple(action.low.tolist()), tuple(action.high.tolist()))
    return Spaces(size, action.shape[0], False, bounds.low, bounds.high)


class FlatObservation(gym.ObservationWrapper[Any, Any, Any]):  # type: ignore[misc]
    """An environment whose observations are rows as in `layout`.

    shift: added to the first numbers of each row.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        keys: Sequence[str] | None = None,
        shift: Sequence[float] = (),
    ):
        super().__init__(env)
        self.layout, self.shift = layout(env.observation_space, keys), shift
        low, high = (0, 255) if self.layout.images else (-np.inf, np.inf)
        self.observation_space = Box(low, high, (self.layout.size,), self.layout.dtype.type)

    def observation(self, observation: Any) -> Array:
        row = self.layout.row(observation).astype(self.layout.dtype)
        row[: len(self.shift)] += np.asarray(self.shift, row.dtype)
        return row


class PartObservation(gym.ObservationWrapper[Any, Any, Any]):  # type: ignore[misc]
    """A flat observation's columns in another order, followed by constants.

    For data with other numbers than the simulator: a part of them and a fixed goal.
    """

    def __init__(self, env: gym.Env[Any, Any], columns: Sequence[int], constants: Sequence[float]):
        super().__init__(env)
        self.columns = np.asarray(columns, int)
        self.constants = np.asarray(constants, env.observation_space.dtype)
        size = len(self.columns) + len(self.constants)
        self.observation_space = Box(-np.inf, np.inf, (size,), env.observation_space.dtype.type)

    def observation(self, observation: Any) -> Array:
        return np.concatenate([observation[self.columns], self.constants])
