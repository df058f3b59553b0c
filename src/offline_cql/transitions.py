"""The logged data as the learner sees them: one row per transition, actions in [-1, 1].

Holds what every other part agrees on: the spaces, the one affine map between internal and
environment actions, the arrays of a data set and the batch that a loss reads. Knows nothing of
files, environments, networks or training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # recording and loading data must not pay for importing torch
    from torch import Tensor

FloatArray = npt.NDArray[np.floating[Any]]


class DataError(Exception):
    """Data that cannot be used as they are; one line says what, where and the remedy."""

    exit_code = 2


@dataclass(frozen=True)
class Spaces:
    """Sizes and bounds of an environment's flat observation and of its action.

    action_dim is the dimension of a continuous action or the number of discrete ones;
    action_low and action_high are in the environment's units, empty when discrete.
    """

    observation_dim: int
    action_dim: int
    discrete: bool
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]


@dataclass(frozen=True)
class ActionMap:
    """The affine map between actions inside, in [-1, 1], and in the environment's bounds.

    low, high: one pair per dimension, in environment units. Raises DataError when a bound is
    infinite or NaN, or when a pair spans nothing. Neither direction clips.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise DataError(
                f"action bounds must come in pairs, found {len(self.low)} low and "
                f"{len(self.high)} high"
            )
        for index, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not np.isfinite(high - low) or not low < high:
                raise DataError(
                    f"action dimension {index} has bounds [{low}, {high}]; they must be finite "
                    "and span an interval: rescale the environment's actions"
                )

    @cached_property
    def _center(self) -> npt.NDArray[np.float64]:
        return (np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64)) / 2

    @cached_property
    def _half(self) -> npt.NDArray[np.float64]:
        return (np.asarray(self.high, np.float64) - np.asarray(self.low, np.float64)) / 2

    def to_internal(self, actions: FloatArray) -> FloatArray:
        """Actions [..., A] in environment units as [-1, 1]; keeps the dtype."""
        return ((actions - self._center) / self._half).astype(actions.dtype)

    def to_environment(self, actions: FloatArray) -> FloatArray:
        """Actions [..., A] in [-1, 1] in environment units; keeps the dtype."""
        return (self._center + self._half * actions).astype(actions.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Transitions:
    """A data set in memory, N transitions of E whole episodes, in the order they were logged.

    observations, next_observations [N, D] float32; actions [N, A] float32 in [-1, 1], or [N]
    int64; rewards [N] float32 in the environment's units; terminated, truncated [N] bool, never
    both; episodes [N] int32, the index 0..E-1 of the episode. sha256 identifies the content.
    Raises DataError when lengths or dimensions disagree, or when there is no transition.
    """

    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32] | npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    next_observations: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    episodes: npt.NDArray[np.int32]
    spaces: Spaces
    dataset_id: str
    sha256: str

    def __post_init__(self) -> None:
        size, dim = len(self), self.spaces.observation_dim
        action = () if self.spaces.discrete else (self.spaces.action_dim,)
        expected = {
            "observations": (size, dim),
            "actions": (size, *action),
            "rewards": (size,),
            "next_observations": (size, dim),
            "terminated": (size,),
            "truncated": (size,),
            "episodes": (size,),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise DataError(f"{self.dataset_id}: {name} has shape {found}, expected {shape}")
        if size == 0:
            raise DataError(f"{self.dataset_id} holds no transitions")

    def __len__(self) -> int:
        return len(self.rewards)

    def __repr__(self) -> str:
        return (
            f"Transitions({self.dataset_id}: {len(self):,} transitions in "
            f"{int(self.episodes[-1]) + 1:,} episodes, observations {self.observations.shape}, "
            f"actions {self.actions.shape} {self.actions.dtype}, sha256 {self.sha256[:12]})"
        )

    def episode_returns(self) -> npt.NDArray[np.float64]:
        """Undiscounted sum of rewards of each episode, [E], in the environment's units."""
        rewards = self.rewards.astype(np.float64)
        return np.bincount(self.episodes, weights=rewards).astype(np.float64)


def content_sha256(spaces: Spaces, *arrays: npt.NDArray[Any]) -> str:
    """Identity of data: a digest over the spaces and each array's type, shape and bytes."""
    digest = hashlib.sha256(repr(spaces).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Batch(NamedTuple):
    """What a loss sees: tensors of shape [B, ...] in one update, [U, B, ...] in a block.

    action in [-1, 1] or an index; reward scaled and shifted; discount = gamma * (1 - terminated),
    so that a truncated transition still bootstraps.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
