"""Logged data in memory: spaces, the affine action map, the arrays of a data set, a batch.

One row per transition, actions in [-1, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.features import Features

if TYPE_CHECKING:  # collecting and loading data must not import torch: it takes seconds
    from torch import Tensor

FloatArray = npt.NDArray[np.floating[Any]]

# Rounding by which a float32 action may exceed its bounds, relative to their span.
BOUND_TOLERANCE = 1e-6


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
    """The affine map between internal actions in [-1, 1] and actions in the environment's bounds.

    low, high: one pair per dimension, in environment units. Raises DataError when a bound is
    infinite or NaN, or when low >= high. Neither direction clips.
    `networks.ActionBounds` is the same map for tensors.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise DataError(
                f"action bounds must come in pairs, not {len(self.low)} low and "
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
        """Return actions [..., A] in environment units in [-1, 1]; keeps the dtype."""
        return ((actions - self._center) / self._half).astype(actions.dtype)

    def to_environment(self, actions: FloatArray) -> FloatArray:
        """Return actions [..., A] in [-1, 1] in environment units; keeps the dtype."""
        return (self._center + self._half * actions).astype(actions.dtype)


class Columns(NamedTuple):
    """The positions of a transition's parts in its packed row of `width` float32 numbers.

    The action, the reward and `terminated` (0 or 1) lie between the two observations, so that one
    gather of rows fetches a whole batch. Image observations are stored apart, as uint8.
    """

    observation: slice
    action: slice
    reward: int
    terminated: int
    next_observation: slice
    width: int


def columns(spaces: Spaces, *, images: bool = False) -> Columns:
    """Return the columns: observation | action | reward | terminated | next observation."""
    size = 0 if images else spaces.observation_dim
    reward = size + (1 if spaces.discrete else spaces.action_dim)
    return Columns(
        observation=slice(0, size),
        action=slice(size, reward),
        reward=reward,
        terminated=reward + 1,
        next_observation=slice(reward + 2, reward + 2 + size),
        width=reward + 2 + size,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Transitions:
    """A data set: N transitions of E whole episodes, in the order they were logged, one row each.

    rows [N, W] float32 in the order of `columns`, actions in [-1, 1] or their index, rewards in the
    environment's units; ends [E] int64, the row after each episode's last; images [N, 2, D] uint8,
    observation and next observation, or None; propensities [N] float32, the behavior's
    probability (density, in the environment's units) of the logged action, or None; durations [N]
    float32, the time of each step in units of dataset.time_unit, or None: 1.
    rows and images may be memory maps, larger than the memory. sha256 identifies the content.
    repairs: what was repaired while reading, by name, with how often (`readers.writer`).
    Raises DataError when shapes disagree or when there is no transition.
    """

    rows: npt.NDArray[np.float32]
    ends: npt.NDArray[np.int64]
    spaces: Spaces
    dataset_id: str
    sha256: str
    images: npt.NDArray[np.uint8] | None = None
    propensities: npt.NDArray[np.float32] | None = None
    durations: npt.NDArray[np.float32] | None = None
    observation_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()  # of the dimensions, or of the discrete actions
    features: Features | None = None  # of a table: how its columns become observations
    repairs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = len(self.rows)
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "rows": (self.rows, (size, self.columns.width)),
            "images": (self.images, (size, 2, self.spaces.observation_dim)),
            "propensities": (self.propensities, (size,)),
            "durations": (self.durations, (size,)),
        }
        for name, (array, shape) in expected.items():
            if array is not None and array.shape != shape:
                raise DataError(
                    f"{self.dataset_id}: {name} has shape {array.shape}, expected {shape}"
                )
        if size == 0:
            raise DataError(f"{self.dataset_id} holds no transitions")
        if (
            not len(self.ends)
            or self.ends[-1] != size
            or (np.diff(self.ends, prepend=0) <= 0).any()
        ):
            raise DataError(f"{self.dataset_id}: episodes must end in order, the last at {size}")

    @classmethod
    def pack(
        cls,
        *,
        observations: npt.NDArray[Any],
        actions: npt.NDArray[Any],
        rewards: npt.NDArray[Any],
        next_observations: npt.NDArray[Any],
        terminated: npt.NDArray[np.bool_],
        episodes: npt.NDArray[Any],
        spaces: Spaces,
        dataset_id: str,
    ) -> Transitions:
        """Pack arrays in memory; actions are internal: [N, A] in [-1, 1], or [N] integers.

        episodes [N]: the number of the episode, in any numbering that changes between episodes.
        """
        size, packed = len(rewards), columns(spaces)
        rows = np.empty((size, packed.width), np.float32)
        action = () if spaces.discrete else (spaces.action_dim,)
        for name, array, shape in (
            ("observations", observations, (size, spaces.observation_dim)),
            ("actions", actions, (size, *action)),
            ("rewards", rewards, (size,)),
            ("next_observations", next_observations, (size, spaces.observation_dim)),
            ("terminated", terminated, (size,)),
            ("episodes", episodes, (size,)),
        ):
            if array.shape != shape:
                raise DataError(f"{dataset_id}: {name} has shape {array.shape}, expected {shape}")
        rows[:, packed.observation] = observations
        rows[:, packed.action] = actions[:, None] if spaces.discrete else actions
        rows[:, packed.reward] = rewards
        rows[:, packed.terminated] = terminated
        rows[:, packed.next_observation] = next_observations
        ends = np.append(np.flatnonzero(np.diff(episodes)) + 1, size).astype(np.int64)
        sha256 = content_sha256(spaces, {"rows": array_sha256(rows), "ends": array_sha256(ends)})
        return cls(rows, ends, spaces, dataset_id, sha256)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Transitions({self.dataset_id}: {len(self):,} transitions in {len(self.ends):,} "
            f"episodes, observations {self.observations.shape} {self.observations.dtype}, "
            f"actions {self.actions.shape} {self.actions.dtype}, sha256 {self.sha256[:12]})"
        )

    @cached_property
    def columns(self) -> Columns:
        return columns(self.spaces, images=self.images is not None)

    @property
    def observations(self) -> npt.NDArray[Any]:
        """Observations [N, D] float32, or uint8 for images; a view."""
        return self.rows[:, self.columns.observation] if self.images is None else self.images[:, 0]

    @property
    def next_observations(self) -> npt.NDArray[Any]:
        """Observations [N, D] float32, or uint8 for images; a view."""
        columns = self.columns.next_observation
        return self.rows[:, columns] if self.images is None else self.images[:, 1]

    @property
    def actions(self) -> npt.NDArray[Any]:
        """Actions [N, A] float32 in [-1, 1], a view, or [N] int64."""
        actions = self.rows[:, self.columns.action]
        return actions[:, 0].astype(np.int64) if self.spaces.discrete else actions

    @property
    def rewards(self) -> npt.NDArray[np.float32]:
        """Rewards [N] in the environment's units; a view."""
        return self.rows[:, self.columns.reward]

    @property
    def terminated(self) -> npt.NDArray[np.bool_]:
        """Flags [N] of the steps with which the task ended."""
        ended: npt.NDArray[np.bool_] = self.rows[:, self.columns.terminated] != 0
        return ended

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """Flags [N] of the steps at which an episode ended without the task's end. Never both."""
        last = np.zeros(len(self), dtype=bool)
        last[self.ends - 1] = True
        return last & ~self.terminated

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The row of each episode's first transition, [E]."""
        return np.append(0, self.ends[:-1]).astype(np.int64)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Transitions of each episode, [E]."""
        return np.diff(self.ends, prepend=0)

    @property
    def episodes(self) -> npt.NDArray[np.int32]:
        """The episode of each transition, 0 … E − 1, [N]."""
        return np.repeat(np.arange(len(self.ends), dtype=np.int32), self.lengths)

    def discounts(self, gamma: float) -> float | npt.NDArray[np.float64]:
        """Return the discount of a step; [N] where steps take different times."""
        return gamma if self.durations is None else gamma ** self.durations.astype(np.float64)

    @property
    def elapsed(self) -> npt.NDArray[np.float64]:
        """The time since the start of the episode at each step, [N]; without durations, steps."""
        if self.durations is None:
            return (np.arange(len(self)) - np.repeat(self.starts, self.lengths)).astype(np.float64)
        times = np.cumsum(self.durations, dtype=np.float64) - self.durations
        since: npt.NDArray[np.float64] = times - np.repeat(times[self.starts], self.lengths)
        return since

    def episode_times(self) -> npt.NDArray[np.float64]:
        """Return the time that each episode takes, [E]; without durations, its steps."""
        if self.durations is None:
            return self.lengths.astype(np.float64)
        return np.add.reduceat(self.durations.astype(np.float64), self.starts)

    def episode_returns(self) -> npt.NDArray[np.float64]:
        """Return each episode's undiscounted sum of rewards, [E], in the environment's units."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts)


def array_sha256(array: npt.NDArray[Any]) -> str:
    """Return the digest of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data).hexdigest()


def content_sha256(spaces: Spaces, digests: Mapping[str, str]) -> str:
    """Return the identity of data: a digest over the spaces and the digests of their arrays."""
    return hashlib.sha256(repr((spaces, sorted(digests.items()))).encode()).hexdigest()


class Batch(NamedTuple):
    """The transitions of one update, tensors [B, …], or of a block of K updates, [K, B, …].

    action in [-1, 1] or an index; reward scaled and shifted; discount = gamma * (1 - terminated),
    so that a truncated transition still bootstraps; return_to_go: the discounted sum of the rewards
    that followed in the data, where a truncated episode continues at its mean reward;
    cloning_weight: of the transition in cloning, and with cql.return_weighted in the penalty and at
    the actor's Q, with mean 1 over the data.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    return_to_go: Tensor
    cloning_weight: Tensor

    def clip_actions(self, limit: float | None) -> Batch:
        """Return the batch with its continuous actions in [-limit, limit]; itself without limit."""
        return self if limit is None else self._replace(action=self.action.clamp(-limit, limit))
