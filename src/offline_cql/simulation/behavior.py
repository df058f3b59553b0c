"""Behavior policies: the policies that acted in the simulated data sets, in NumPy alone.

Pendulum and cart-pole are driven by short scripts, the MuJoCo tasks by small networks that ship
with the package (`behaviors/<env>-<level>.npz`). `mixture` returns the policies of each
quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.simulation.rollouts import BatchPolicy
from offline_cql.transitions import ActionMap, Spaces

Array = npt.NDArray[Any]
Behavior = BatchPolicy  # observations [K, D], indices [K], starts [K] -> environment actions

SHIPPED = Path(__file__).parent / "behaviors"
RANDOM = "random"  # the quality that every environment has
# The range that the shipped networks were trained with.
LOG_STD_RANGE = (-5.0, 2.0)


@dataclass(frozen=True)
class Component:
    """One policy of a mixture; share: its fraction of the steps, in (0, 1].

    build(spaces, count, rng) creates the policy for `count` environments stepped side by side.
    """

    name: str
    share: float
    build: Callable[[Spaces, int, np.random.Generator], Behavior]


def mixture(env_name: str, quality: str) -> tuple[Component, ...]:
    """Return the policies of a quality of an environment's data. Raises DataError without any."""
    if (env_name, quality) in SCRIPTED:
        return SCRIPTED[env_name, quality]
    if quality == RANDOM:
        return (_trained_component(env_name, RANDOM, 1.0),)
    if quality not in TRAINED or not list(SHIPPED.glob(f"{env_name}-*.npz")):
        env_names = sorted({name for name, _ in SCRIPTED} | set(shipped_levels()))
        raise DataError(
            f"no behavior policy for env={env_name} dataset.quality={quality}; there are "
            f"{', '.join(env_names)} with mixed (scripted) or {', '.join(TRAINED)} (networks)"
        )
    levels = TRAINED[quality]
    return tuple(_trained_component(env_name, level, 1 / len(levels)) for level in levels)


def shipped_levels() -> dict[str, list[str]]:
    """Return the levels of the shipped networks by environment."""
    levels: dict[str, list[str]] = {}
    for path in sorted(SHIPPED.glob("*.npz")):
        env_name, level = path.stem.split("-", 1)
        levels.setdefault(env_name, []).append(level)
    return levels


class RandomActions:
    """Uniform random actions, each repeated for `hold` steps of an episode."""

    def __init__(self, spaces: Spaces, count: int, rng: np.random.Generator, hold: int = 1):
        self.spaces, self.rng, self.hold = spaces, rng, hold
        self.left = np.zeros(count, dtype=int)
        self.held = self._draw(count)

    def _draw(self, count: int) -> Array:
        if self.spaces.discrete:
            return self.rng.integers(self.spaces.action_dim, size=count)
        low, high = self.spaces.action_low, self.spaces.action_high
        return self.rng.uniform(low, high, (count, self.spaces.action_dim)).astype(np.float32)

    def __call__(self, observations: Array, indices: Array, starts: Array) -> Array:
        self.left[indices[starts]] = 0
        due = indices[self.left[indices] == 0]
        self.held[due] = self._draw(len(due))
        self.left[due] = self.hold
        self.left[indices] -= 1
        return np.asarray(self.held[indices])


class PendulumController:
    """Swings Pendulum-v1 up by pumping energy and balances it by feedback, with Gaussian noise.

    noise: standard deviation of the torque's noise, in environment units (bounds ±2).
    """

    def __init__(self, rng: np.random.Generator, noise: float):
        self.rng, self.noise = rng, noise

    def __call__(self, observations: Array, indices: Array, starts: Array) -> Array:
        cos, sin, speed = observations.T
        # Per unit of inertia, (1/3) m l^2: theta'' = 15 sin(theta) + 3 u, upright at 0.
        missing = 15.0 - (speed**2 / 2 + 15.0 * cos)
        swing_up = missing * np.where(speed >= 0, 1.0, -1.0)
        balance = -(10.0 * np.arctan2(sin, cos) + 3.0 * speed)
        torque = np.clip(np.where(cos > 0.85, balance, swing_up), -2.0, 2.0)
        # Added within the bounds, or the large torques of the swing-up would drown it.
        torque += self.noise * self.rng.standard_normal(len(torque))
        return np.asarray(np.clip(torque, -2.0, 2.0)[:, None], dtype=np.float32)


class CartpoleController:
    """Balances CartPole-v1 and keeps its cart near the middle; 1 pushes right.

    noise: part of the steps with a random push. blind: part of the steps, among those where the
    pole leans left, with a push to the right all the same. This fault is no symmetric noise, which
    cloning would average out: where it has the majority, a clone pushes right too.
    """

    def __init__(self, rng: np.random.Generator, noise: float, blind: float = 0.0):
        self.rng, self.noise, self.blind = rng, noise, blind

    def __call__(self, observations: Array, indices: Array, starts: Array) -> Array:
        position, velocity, angle, spin = observations.T
        push = 0.1 * position + 0.2 * velocity + angle + 0.3 * spin > 0
        blind, noisy = self.rng.random((2, len(push))) < [[self.blind], [self.noise]]
        push = np.where(blind & (angle < -0.01), True, push)
        return np.where(noisy, self.rng.integers(2, size=len(push)), push).astype(np.int64)


class Network:
    """A tanh-Gaussian policy of two hidden layers, from its shipped arrays; always with its noise.

    w0, b0, w1, b1: hidden layers, x @ w + b and ReLU; w_mean, b_mean, w_log_std, b_log_std: heads.
    """

    def __init__(self, arrays: Mapping[str, Array], spaces: Spaces, rng: np.random.Generator):
        self.arrays, self.rng = arrays, rng
        self.actions = ActionMap(spaces.action_low, spaces.action_high)

    def __call__(self, observations: Array, indices: Array, starts: Array) -> Array:
        net = self.arrays
        hidden = np.maximum(observations @ net["w0"] + net["b0"], 0.0)
        hidden = np.maximum(hidden @ net["w1"] + net["b1"], 0.0)
        log_std = np.clip(hidden @ net["w_log_std"] + net["b_log_std"], *LOG_STD_RANGE)
        noise = self.rng.standard_normal(log_std.shape, dtype=np.float32)
        mean = hidden @ net["w_mean"] + net["b_mean"]
        return self.actions.to_environment(np.tanh(mean + np.exp(log_std) * noise))


def load_behavior(env_name: str, level: str, spaces: Spaces, rng: np.random.Generator) -> Behavior:
    """Return a shipped network. Raises DataError if it is missing or made for other spaces."""
    path = SHIPPED / f"{env_name}-{level}.npz"
    if not path.is_file():
        raise DataError(
            f"no behavior policy {level!r} ships for {env_name}; there are "
            f"{', '.join(shipped_levels().get(env_name, [])) or 'none'}"
        )
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.float32) for name in file.files}
    inside, outside = arrays["w0"].shape[0], arrays["w_mean"].shape[1]
    if spaces.discrete or (inside, outside) != (spaces.observation_dim, spaces.action_dim):
        raise DataError(
            f"{path.name} maps {inside} observations to {outside} actions; {env_name} has {spaces}"
        )
    return Network(arrays, spaces, rng)


def _trained_component(env_name: str, level: str, share: float) -> Component:
    if level == RANDOM:
        return Component(level, share, RandomActions)
    return Component(
        level, share, lambda spaces, _, rng: load_behavior(env_name, level, spaces, rng)
    )


# The recipes: shares of the steps. Each episode has one policy from its start to its end.
SCRIPTED: dict[tuple[str, str], tuple[Component, ...]] = {
    ("pendulum", "mixed"): (
        Component("held random", 0.40, lambda s, n, rng: RandomActions(s, n, rng, hold=5)),
        Component("noisy", 0.35, lambda s, n, rng: PendulumController(rng, noise=1.65)),
        Component("good", 0.25, lambda s, n, rng: PendulumController(rng, noise=0.3)),
    ),
    ("cartpole", "mixed"): (
        Component("random", 0.05, RandomActions),
        Component("one-sided", 0.75, lambda s, n, rng: CartpoleController(rng, 0.2, blind=0.65)),
        Component("good", 0.20, lambda s, n, rng: CartpoleController(rng, 0.2)),
    ),
}
TRAINED: dict[str, tuple[str, ...]] = {  # equal shares
    "medium": ("medium",),
    "expert": ("expert",),
    "medium-expert": ("medium", "expert"),
    "medium-replay": (RANDOM, "replay-1", "replay-2", "replay-3", "replay-4", "medium"),
}
