"""Register small environments with predictable observations and rewards."""

import ctypes
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

from offline_cql.config import EnvConfig


class Marker(gym.Env[Any, Any]):
    """An environment that observes (reset seed mod 1000, step) and rewards with the step.

    Actions lie in [-1, 3] x [0, 2]. Episodes of even seeds terminate after 2 steps, those of odd
    ones are truncated after 7. `fault`: the kind of error at step 2 (raise, observation, reward).
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(
        np.array([-1, 0], np.float32), np.array([3, 2], np.float32), dtype=np.float32
    )

    def __init__(self, fault: str | None = None):
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.marker, self.time = seed % 1000, 0
        self.memory = np.array([self.marker, 0.0])
        return self.memory, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        self.memory[1] = self.time  # the same array every time, as some environments do
        reward: float = self.time
        if self.time == 2 and self.fault:
            if self.fault == "raise":
                raise RuntimeError("the simulator broke")
            if self.fault == "observation":
                self.memory[0] = np.nan
            if self.fault == "reward":
                reward = np.inf
        ended, even = self.time == episode_length(self.marker), self.marker % 2 == 0
        return self.memory, reward, ended and even, ended and not even, {}


def episode_length(seed: int) -> int:
    """Return the number of steps of a Marker episode that was reset with this seed."""
    return 2 if seed % 2 == 0 else 7


if "Marker-v0" not in gym.registry:
    gym.register("Marker-v0", entry_point="support.envs:Marker")


class Nested(gym.Env[Any, Any]):
    """An environment with every kind of observation that can be flattened, three levels deep.

    Its flat observation, in alphabetical order of keys: body/0 (2 x 2: seed, step, 0.5, -0.5),
    body/1 (3 bits of the step), goal/kind (one-hot of step mod 3, numbered from 5), goal/place
    (seed, seed + step); the mission is text. Episodes have 4 steps.
    """

    observation_space = gym.spaces.Dict(
        {
            "mission": gym.spaces.Text(20),
            "goal": gym.spaces.Dict(
                {
                    "place": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64),
                    "kind": gym.spaces.Discrete(3, start=5),
                }
            ),
            "body": gym.spaces.Tuple(
                (gym.spaces.Box(-1e6, 1e6, (2, 2), np.float32), gym.spaces.MultiBinary(3))
            ),
        }
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.marker, self.time = (seed or 0) % 1000, 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.observe(), 1.0, self.time == 4, False, {}

    def observe(self) -> dict[str, Any]:
        """Return the nested observation of the current step."""
        return {
            "mission": f"go to {self.time}",
            "goal": {
                "place": np.array([self.marker, self.marker + self.time], np.float64),
                "kind": 5 + self.time % 3,
            },
            "body": (
                np.array([[self.marker, self.time], [0.5, -0.5]], np.float32),
                np.array([self.time >> bit & 1 for bit in range(3)], np.int8),
            ),
        }


def nested_row(seed: int, time: int) -> list[float]:
    """Return Nested's flat observation as its docstring lists it."""
    bits = [float(time >> bit & 1) for bit in range(3)]
    kind = [float(time % 3 == index) for index in range(3)]
    return [seed, time, 0.5, -0.5, *bits, *kind, seed, seed + time]


if "Nested-v0" not in gym.registry:
    gym.register("Nested-v0", entry_point="support.envs:Nested")


def env_config(name: str, env_id: str) -> Any:
    """Return the settings of an environment whose data can be simulated."""
    none = dict.fromkeys(("minari_id", "d4rl", "reference_source"))
    return EnvConfig(
        name=name,
        id=env_id,
        qualities=["mixed"],
        quality="mixed",
        reference_min=0.0,
        reference_max=10.0,
        **none,
    )


def dataset_config(name: str, size: int, quality: str = "mixed") -> Any:
    """Return the part of a DatasetConfig that recording reads."""
    return SimpleNamespace(id=f"sim/{name}/{quality}-v0", quality=quality, size=size)


class Faulty(gym.Env[Any, Any]):
    """An environment with Pendulum's spaces and episodes of 3 steps, whose step 2 has a fault.

    raise, exit: an exception; crash: the process ends by SIGKILL; hang: a C function that holds
    the interpreter and never returns; slow: steps of a minute; observation, reward: NaN; large:
    an observation beyond float32; shape: of another size; garbage: a reward of None.
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, fault: str | None = None):
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.time = 0
        return np.zeros(3), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.time += 1
        observation, reward = np.full(3, self.time, np.float64), 1.0
        if self.time == 2:
            observation, reward = self.break_down(observation, reward)
        return observation, reward, False, self.time == 3, {}

    def break_down(self, observation: Any, reward: Any) -> tuple[Any, Any]:
        """Do what the fault is, or return its observation and reward."""
        if self.fault == "raise":
            raise RuntimeError("the simulator broke")
        if self.fault == "exit":
            sys.exit(3)
        if self.fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            ctypes.PyDLL(None).pause()
        if self.fault == "slow":
            time.sleep(60)
        values = {"observation": np.nan, "large": 1e39}
        return {
            "shape": (np.zeros(2), reward),
            "reward": (observation, np.nan),
            "garbage": (observation, None),
        }.get(str(self.fault), (observation + values.get(str(self.fault), 0.0), reward))


if "Faulty-v0" not in gym.registry:
    gym.register("Faulty-v0", entry_point="support.envs:Faulty")


def with_fault(fault: str | None) -> tuple[str, ...]:
    """Return the settings of a run on Pendulum's data that is evaluated in Faulty."""
    return (
        *("env.id=Faulty-v0", f"+env.arguments={{fault:{fault or 'null'}}}", "evaluation=default"),
        *("evaluation.episodes=2", "evaluation.environments=2"),
    )
