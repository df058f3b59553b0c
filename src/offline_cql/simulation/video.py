"""Videos of a policy in its simulator: animated GIFs, which need no encoder."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from offline_cql.agents import Agent
from offline_cql.config import EnvConfig
from offline_cql.errors import SimulatorError
from offline_cql.io import write_atomically
from offline_cql.simulation.environments import (
    import_package,
    imported_packages,
    make_simulators,
)
from offline_cql.simulation.evaluation import greedy_policy
from offline_cql.simulation.isolation import run_isolated
from offline_cql.simulation.rollouts import BatchPolicy, roll_out

LARGEST_SIDE = 320  # pixels
FRAMES_PER_SECOND = 25
REMEDY = "set evaluation.video=0, or install what it draws with (MuJoCo: a display, EGL or OSMesa)"


def film(
    agent: Agent,
    env: EnvConfig,
    path: Path,
    *,
    episodes: int,
    seed: int,
    time_limit: float | None = None,
) -> None:
    """Write an animated GIF of episodes of the deterministic policy, one after the other.

    seed: of the evaluation, whose first environment has the same episodes. Raises PolicyError, and
    SimulatorError also where the simulator cannot draw.
    """
    work = partial(film_episodes, env, path, episodes, seed, imported_packages())
    run_isolated(work, greedy_policy(agent), time_limit=time_limit)


def film_episodes(
    env: EnvConfig,
    path: Path,
    episodes: int,
    seed: int,
    packages: Iterable[str],
    policy: BatchPolicy,
) -> None:
    """Play the episodes and write the file; packages: as of `play_episodes`."""
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        os.environ.setdefault("MUJOCO_GL", "egl")  # of this process: MuJoCo draws without a display
    for package in packages:
        import_package(package)
    drawn = env.model_copy(update={"arguments": {**env.arguments, "render_mode": "rgb_array"}})
    (environment,) = make_simulators(drawn, 1)
    with Camera(environment) as camera:
        camera.reset(seed=seed)  # tried first: an error in a rollout would be the simulator's
        camera.images.clear()
        roll_out([camera], policy, episodes_each=episodes, seed=seed)
        write_gif(path, camera.images, seconds_per_image=camera.stride / camera.rate)


class Camera(gym.Wrapper[Any, Any, Any, Any]):  # type: ignore[misc]
    """Draws the first state of each episode, its last one, and enough between for the eye."""

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        self.rate = float(environment.metadata.get("render_fps") or FRAMES_PER_SECOND)
        self.stride = max(1, round(self.rate / FRAMES_PER_SECOND))  # steps per image
        self.images: list[Image.Image] = []
        self.steps = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**options)
        self.steps = 0
        self.draw()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps % self.stride == 0 or terminated or truncated:
            self.draw()
        return observation, reward, terminated, truncated, info

    def draw(self) -> None:
        """Keep an image of the state. Raises SimulatorError where there is none."""
        name = self.spec.id if self.spec else str(self.env)
        try:
            pixels = np.asarray(self.render())
            image = Image.fromarray(pixels)
        except Exception as error:  # of code that is not ours, for want of a display or a package
            raise SimulatorError(f"{name} draws nothing ({error}); {REMEDY}") from error
        image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        self.images.append(image.quantize(64))


def write_gif(path: Path, images: list[Image.Image], *, seconds_per_image: float) -> None:
    """Write images as an animated GIF that repeats."""
    content = io.BytesIO()
    first, *others = images
    milliseconds = max(20, round(1000 * seconds_per_image))  # browsers slow down shorter ones
    first.save(content, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())
