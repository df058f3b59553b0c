"""Rollouts: stepping environments with a batched policy, to record data and to evaluate.

Several environments are stepped in turn, with one policy call per step for all that are still
running. Each one has a fixed quota of episodes or steps, so that short episodes are not favored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from offline_cql.errors import PolicyError, SimulatorError
from offline_cql.simulation.environments import Environment, spaces_of
from offline_cql.transitions import BOUND_TOLERANCE, Spaces

Array = npt.NDArray[Any]


class BatchPolicy(Protocol):
    """A function from observations to the actions of the environments that are still running.

    observations [K, D] float32; indices [K] of the environments; starts [K] bool, true at the first
    step of an episode. Returns [K, A] in environment units, or [K] integers.
    """

    def __call__(
        self,
        observations: npt.NDArray[np.float32],
        indices: npt.NDArray[np.int64],
        starts: npt.NDArray[np.bool_],
    ) -> Array: ...


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode, or the part of it within the quota (then its last step is truncated).

    observations [T+1, D] in the environment's dtype; actions [T, A] in environment units or [T]
    int64; rewards [T] float64; terminated, truncated [T] bool; seed: argument of reset();
    cut: true if the quota, not the environment, ended it.
    """

    seed: int
    observations: Array
    actions: Array
    rewards: npt.NDArray[np.float64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    cut: bool

    @property
    def return_(self) -> float:
        """The undiscounted sum of rewards."""
        return float(self.rewards.sum())

    def __len__(self) -> int:
        return len(self.rewards)


def roll_out(
    environments: Sequence[Environment],
    policy: BatchPolicy,
    *,
    seed: int,
    episodes_each: int | None = None,
    steps_each: int | Sequence[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Episode]:
    """Return the episodes in order of environment, then of time; the environments stay open.

    Give exactly one quota: episodes_each, or steps_each (one number, or one per environment), where
    the last episode is truncated at the quota. The seed of each reset is a function of (seed, index
    of the environment, index of the episode). on_step receives the number of steps just made and
    the number of episodes that they ended.
    Raises PolicyError and SimulatorError.
    """
    if (episodes_each is None) == (steps_each is None):
        raise ValueError("give either episodes_each or steps_each")
    spaces = spaces_of(environments[0])
    steps = [steps_each] * len(environments) if isinstance(steps_each, int) else steps_each
    runs = [
        _EnvironmentRollout(
            env, index, seed, episodes_each, steps[index] if steps is not None else None
        )
        for index, env in enumerate(environments)
    ]
    active = [run for run in runs if not run.finished]
    for run in active:
        run.reset()
    while active:
        with np.errstate(over="ignore"):  # beyond float32: infinity, which is refused
            observations = np.array([run.observation for run in active], dtype=np.float32)
        _require_finite(observations, active)
        indices = np.array([run.index for run in active])
        starts = np.array([not run.rewards for run in active])
        actions = _validate_actions(policy(observations, indices, starts), spaces, active)
        over = [run.step(action) for run, action in zip(active, actions, strict=True)]
        if on_step is not None:
            on_step(len(active), sum(over))
        if any(over):
            active = [run for run in active if not run.finished]
    return [episode for run in runs for episode in run.episodes]


class _EnvironmentRollout:
    """One environment with its quota, its finished episodes and the one in progress."""

    def __init__(
        self, env: Environment, index: int, seed: int, episodes: int | None, steps: int | None
    ) -> None:
        self.env, self.index, self.seed = env, index, seed
        self.episodes_left, self.steps_left = episodes, steps
        self.episodes: list[Episode] = []

    @property
    def finished(self) -> bool:
        return self.steps_left == 0 or self.episodes_left == len(self.episodes)

    @property
    def position(self) -> str:
        """The environment, episode, step and seed, for error messages."""
        name = self.env.spec.id if self.env.spec else str(self.env)
        step = f"episode {len(self.episodes)}, step {len(self.rewards)}"
        return f"{name} (environment {self.index}, {step}, reset seed {self.reset_seed})"

    def reset(self) -> None:
        entropy = [self.seed, self.index, len(self.episodes)]
        self.reset_seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        self.observations: list[Array] = []
        self.actions: list[Array] = []
        self.rewards: list[float] = []
        try:
            observation, _ = self.env.reset(seed=self.reset_seed)
        except Exception as error:  # third-party code: say where it happened
            raise SimulatorError(f"{self.position} raised in reset: {error!r}") from error
        self.observe(observation)

    def observe(self, observation: Any) -> None:
        """Keep a copy of an observation. Raises SimulatorError for another shape."""
        space, shape = self.env.observation_space, np.shape(observation)
        if shape != space.shape:
            raise SimulatorError(
                f"{self.position} returned an observation of shape {shape}, expected {space.shape}"
            )
        self.observation = observation
        self.observations.append(np.array(observation))

    def step(self, action: Array) -> bool:
        """Make one step; return True if it ended an episode (the next one has then begun)."""
        try:
            # A copy, because some environments keep or change their argument.
            result = self.env.step(action.copy() if action.ndim else action)
            observation, reward, terminated, truncated, _ = result
        except Exception as error:  # third-party code, as above
            raise SimulatorError(f"{self.position} raised in step: {error!r}") from error
        if not is_finite_number(reward):
            raise SimulatorError(f"{self.position} returned the reward {reward}")
        value = float(reward)
        self.observe(observation)
        self.actions.append(action)
        self.rewards.append(value)
        if self.steps_left is not None:
            self.steps_left -= 1
        ended = bool(terminated or truncated)
        if not ended and self.steps_left != 0:
            return False
        self._close(bool(terminated), cut=not ended)
        if not self.finished:
            self.reset()
        return True

    def _close(self, terminated: bool, *, cut: bool) -> None:
        observations = np.stack(self.observations)
        if not np.isfinite(observations[-1]).all():  # no policy may see the last one
            raise SimulatorError(
                f"{self.position} returned a last observation with NaN or infinity"
            )
        last = np.zeros(len(self.rewards), dtype=bool)
        last[-1] = True
        none = np.zeros_like(last)
        self.episodes.append(
            Episode(
                seed=self.reset_seed,
                observations=observations,
                actions=np.stack(self.actions),
                rewards=np.array(self.rewards, dtype=np.float64),
                terminated=last if terminated else none,
                truncated=none if terminated else last,
                cut=cut,
            )
        )


def is_finite_number(value: Any) -> bool:
    """Return whether a reward is a finite number, of Python's types or NumPy's."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _require_finite(observations: Array, runs: list[_EnvironmentRollout]) -> None:
    bad = ~np.isfinite(observations).all(axis=1)
    if bad.any():
        position = runs[int(bad.argmax())].position
        raise SimulatorError(f"{position} returned an observation with NaN or infinity")


def _validate_actions(actions: Array, spaces: Spaces, runs: list[_EnvironmentRollout]) -> Array:
    """Return the actions as [K, A] of the environment's dtype or [K] int64. Raises PolicyError."""
    expected = (len(runs),) if spaces.discrete else (len(runs), spaces.action_dim)
    if np.shape(actions) != expected:
        raise PolicyError(f"actions have shape {np.shape(actions)}, expected {expected}")
    if spaces.discrete:
        if not np.issubdtype(actions.dtype, np.integer):
            raise PolicyError(f"discrete actions must be integers, found {actions.dtype}")
        bad = (actions < 0) | (actions >= spaces.action_dim)
        bounds = f"0 … {spaces.action_dim - 1}"
        actions = actions.astype(np.int64)
    else:
        low, high = np.array(spaces.action_low), np.array(spaces.action_high)
        slack = BOUND_TOLERANCE * (high - low)
        # Negated, so that NaN, which compares as false, is bad too.
        bad = ~((actions >= low - slack) & (actions <= high + slack)).all(axis=1)
        bounds = f"{spaces.action_low} … {spaces.action_high}"
        actions = actions.astype(runs[0].env.action_space.dtype)
    if bad.any():
        first = int(bad.argmax())
        raise PolicyError(f"{runs[first].position}: action {actions[first]} is not within {bounds}")
    return actions
