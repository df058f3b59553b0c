"""Write small Minari data sets with predictable values, in every format."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from offline_cql.readers.minari.store import dataset_path

PLANE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
ACTIONS = gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 1]), dtype=np.float32)


def episode(number: int, steps: int, *, end: str = "terminations", **changes: Any) -> EpisodeBuffer:
    """Return observations (number, step), actions (step, number) / 100, rewards 100 number + step.

    end: terminations, truncations, or another word for neither.
    """
    times = np.arange(steps)
    last = times == steps - 1
    arrays = {
        "observations": np.array([[number, time] for time in range(steps + 1)], np.float64),
        "actions": np.stack([times, np.full(steps, number)], 1).astype(np.float32) / 100,
        "rewards": 100.0 * number + times,
        "terminations": last & (end == "terminations"),
        "truncations": last & (end == "truncations"),
    }
    return EpisodeBuffer(infos={}, **{**arrays, **changes})


def write_minari(
    name: str,
    episodes: Iterable[EpisodeBuffer],
    data_format: str = "hdf5",
    *,
    observation: gym.Space[Any] = PLANE,
    action: gym.Space[Any] = ACTIONS,
    **options: Any,
) -> Path:
    """Write a data set to the local store; return the folder of its files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for an author and an environment
        minari.create_dataset_from_buffers(
            name,
            list(episodes),
            observation_space=observation,
            action_space=action,
            data_format=data_format,
            **options,
        )
    return dataset_path(name) / "data"


def edit_metadata(folder: Path, **changes: Any) -> None:
    """Change keys of metadata.json; None removes a key."""
    metadata = json.loads((folder / "metadata.json").read_text()) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    (folder / "metadata.json").write_text(json.dumps(metadata))
