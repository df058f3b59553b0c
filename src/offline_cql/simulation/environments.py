"""Stepping Gymnasium environments with a batched policy: for recording data and for evaluation.

Several environments are stepped in turn, with one policy call per step for all that are still
running. Each one has a fixed quota of episodes or steps, so short episodes are not favored.
Knows nothing of data sets, networks, normalization or training.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from offline_cql.config import EnvConfig
from offline_cql.errors import PolicyError, SimulatorError
from offline_cql.spaces import FlatObservation, PartObservation, flat_spaces
from offline_cql.transitions import BOUND_TOLERANCE, Spaces

Array = npt.NDArray[Any]
Environment: TypeAlias = "gym.Env[Any, Any]"

# Extra of this package, and the package of environments that it installs; the lighter one first.
EXTRAS = {"minigrid": "minigrid", "robotics": "gymnasium_robotics"}


class BatchPolicy(Protocol):
    """Actions for the environments that are still running.

    observations [K, D] float32; indices [K], which environments; starts [K] bool, first step of
    an episode. Returns [K, A] in environment units, or [K] integers.
    """

    def __call__(
        self,
        observations: npt.NDArray[np.float32],
        indices: npt.NDArray[np.int64],
        starts: npt.NDArray[np.bool_],
    ) -> Array: ...


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode, or the part of it that fitted the quota (then its last step is truncated).

    observations [T+1, D] in the environment's dtype; actions [T, A] in environment units or [T]
    int64; rewards [T] float64; terminated, truncated [T] bool; seed: what reset() was given;
    cut: whether the quota, not the environment, ended it.
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
        """Undiscounted sum of rewards."""
        return float(self.rewards.sum())

    def __len__(self) -> int:
        return len(self.rewards)


def make_environments(
    env_id: str,
    count: int,
    *,
    observation_keys: Sequence[str] | None = None,
    shift: Sequence[float] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> list[Environment]:
    """`count` instances of a registered environment, with flat observations as `spaces` lays out.

    observation_keys: those taken from a Dict observation, None for all; shift: added to the first
    numbers of the flat observation (data in other coordinates); arguments: of gym.make.
    Raises SimulatorError if there is no such environment, DataError for an observation that
    has no flat form.
    """
    _register(env_id)
    try:
        made = [
            gym.make(env_id, disable_env_checker=True, **(arguments or {})) for _ in range(count)
        ]
    except (gym.error.Error, TypeError) as error:  # TypeError: an argument that it does not take
        raise SimulatorError(f"environment {env_id!r} cannot be made: {error}") from error
    return [_flat(environment, observation_keys, shift) for environment in made]


def _register(env_id: str) -> None:
    """Import the optional packages, one after the other, until the environment is known."""
    missing = []
    for extra, package in EXTRAS.items():
        if env_id in gym.registry:
            return
        try:
            gym.register_envs(importlib.import_module(package))
        except ModuleNotFoundError as error:
            if error.name != package:  # a fault inside the package
                raise
            missing.append(f"pip install 'offline-cql[{extra}]'")
    if env_id not in gym.registry and missing:
        try:
            gym.spec(env_id)  # an older or newer version of it may be known: gym says so
        except gym.error.Error as error:
            known = str(error).rstrip(".")
            remedy = " or ".join(missing)
            raise SimulatorError(f"{known}; packages that may have it: {remedy}") from error


def _flat(
    environment: Environment, keys: Sequence[str] | None, shift: Sequence[float] | None
) -> Environment:
    space = environment.observation_space
    plain = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    changed = not plain or keys is not None or shift
    return FlatObservation(environment, keys, shift or ()) if changed else environment


def make_simulators(env: EnvConfig, count: int) -> list[Environment]:
    """`count` of the settings' simulators. Raises as make_environments does."""
    assert env.id is not None  # the schema allows no rollouts without a simulator
    keys, shift = env.observation_keys, env.observation_shift
    made = make_environments(
        env.id, count, observation_keys=keys, shift=shift, arguments=env.arguments
    )
    columns, constants = env.observation_columns, env.observation_constants or []
    return made if columns is None else [PartObservation(e, columns, constants) for e in made]


def spaces_of(env: Environment) -> Spaces:
    """Sizes and bounds of an environment. Raises DataError for spaces that are not supported."""
    return flat_spaces(env.observation_space, env.action_space)


def roll_out(
    environments: Sequence[Environment],
    policy: BatchPolicy,
    *,
    seed: int,
    episodes_each: int | None = None,
    steps_each: int | Sequence[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Episode]:
    """Episodes in order of environment, then of time; the environments stay open.

    Exactly one quota: episodes_each, or steps_each (one number, or one per environment), where
    the last episode is truncated at the quota. Each reset's seed is a function of (seed, index
    of the environment, index of the episode). on_step is told how many steps were just made and
    how many episodes ended by them.
    Raises PolicyError and SimulatorError.
    """
    if (episodes_each is None) == (steps_each is None):
        raise ValueError("give either episodes_each or steps_each")
    spaces = spaces_of(environments[0])
    steps = [steps_each] * len(environments) if isinstance(steps_each, int) else steps_each
    runs = [
        _Run(env, index, seed, episodes_each, steps[index] if steps is not None else None)
        for index, env in enumerate(environments)
    ]
    active = [run for run in runs if not run.finished]
    for run in active:
        run.reset()
    while active:
        observations = np.array([run.observation for run in active], dtype=np.float32)
        _refuse_unusable_observations(observations, active)
        indices = np.array([run.index for run in active])
        starts = np.array([not run.rewards for run in active])
        actions = _checked(policy(observations, indices, starts), spaces, active)
        over = [run.step(action) for run, action in zip(active, actions, strict=True)]
        if on_step is not None:
            on_step(len(active), sum(over))
        if any(over):
            active = [run for run in active if not run.finished]
    return [episode for run in runs for episode in run.episodes]


class _Run:
    """One environment on its way through its quota, and the episode it is in."""

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
    def place(self) -> str:
        name = self.env.spec.id if self.env.spec else str(self.env)
        where = f"episode {len(self.episodes)}, step {len(self.rewards)}"
        return f"{name} (environment {self.index}, {where}, reset seed {self.reset_seed})"

    def reset(self) -> None:
        entropy = [self.seed, self.index, len(self.episodes)]
        self.reset_seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        self.observations: list[Array] = []
        self.actions: list[Array] = []
        self.rewards: list[float] = []
        try:
            self.observation, _ = self.env.reset(seed=self.reset_seed)
        except Exception as error:  # foreign code: name the place, then let it end the roll-out
            raise SimulatorError(f"{self.place} raised in reset: {error!r}") from error
        self.observations.append(np.array(self.observation))

    def step(self, action: Array) -> bool:
        """Make one step; True when it ended an episode (and began the next, within the quota)."""
        try:
            # The environment gets a value of its own: some keep or change what they are given.
            result = self.env.step(action.copy() if action.ndim else action)
        except Exception as error:  # foreign code, as above
            raise SimulatorError(f"{self.place} raised in step: {error!r}") from error
        self.observation, reward, terminated, truncated, _ = result
        value = float(reward)
        if not math.isfinite(value):
            raise SimulatorError(f"{self.place} returned the reward {value}")
        self.observations.append(np.array(self.observation))
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
        if not np.isfinite(observations[-1]).all():  # the last one may reach no policy
            raise SimulatorError(f"{self.place} returned a last observation with NaN or infinity")
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


def _refuse_unusable_observations(observations: Array, runs: list[_Run]) -> None:
    bad = ~np.isfinite(observations).all(axis=1)
    if bad.any():
        place = runs[int(bad.argmax())].place
        raise SimulatorError(f"{place} returned an observation with NaN or infinity")


def _checked(actions: Array, spaces: Spaces, runs: list[_Run]) -> Array:
    """The policy's actions, [K, A] of the environment's dtype or [K] int64, or a PolicyError."""
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
        # Written so that NaN, which compares as false, is bad too.
        bad = ~((actions >= low - slack) & (actions <= high + slack)).all(axis=1)
        bounds = f"{spaces.action_low} … {spaces.action_high}"
        actions = actions.astype(runs[0].env.action_space.dtype)
    if bad.any():
        first = int(bad.argmax())
        raise PolicyError(f"{runs[first].place}: action {actions[first]} is not within {bounds}")
    return actions
