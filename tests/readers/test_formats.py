"""Guarantee: the same episodes are read as the same transitions from every format.

Twelve episodes of 1 to 12 steps, every other one terminated, the rest truncated. Observations state
their episode and step, so that a shift by one row anywhere is detected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from minari.data_collector import EpisodeBuffer
from support.config import settings
from support.minari_case import write_minari
from support.table_case import write

from offline_cql.commands.load_data import load_transitions
from offline_cql.transitions import Transitions

EPISODES = 12
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
TABLE = (
    "dataset=table",
    "dataset.columns.action_low=[-1,-1]",
    "dataset.columns.action_high=[1,1]",
)


@dataclass(frozen=True)
class Episode:
    """An episode whose observations [T+1, 3] are (episode, step, a random number)."""

    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    terminated: bool


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    draw = np.random.default_rng(0)
    result = []
    for number in range(EPISODES):
        length = number + 1
        steps = np.arange(length + 1, dtype=np.float32)
        observations = np.stack(
            [np.full(length + 1, number), steps, draw.normal(size=length + 1)], axis=1
        ).astype(np.float32)
        result.append(
            Episode(
                observations,
                draw.uniform(-1, 1, (length, 2)).astype(np.float32),
                draw.normal(size=length).astype(np.float32),
                terminated=number % 2 == 0,
            )
        )
    return result


def ends(episode: Episode) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the flags terminated and truncated, [T] each."""
    last = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
    return last & episode.terminated, last & (not episode.terminated)


# --- Writers, each by the library that defines its format ----------------------------------


def as_minari(data_format: str, episodes: list[Episode], folder: Path) -> tuple[str, ...]:
    name = f"test/marks-{data_format}-v0"
    buffers = [
        EpisodeBuffer(
            observations=e.observations,
            actions=e.actions,
            rewards=e.rewards,
            terminations=ends(e)[0],
            truncations=ends(e)[1],
            infos={},
        )
        for e in episodes
    ]
    observation = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    write_minari(name, buffers, data_format, observation=observation, action=BOX)
    return ("dataset=minari", f"dataset.id={name}")


def as_d4rl(episodes: list[Episode], folder: Path) -> tuple[str, ...]:
    """Write D4RL's layout, in which a truncated episode of T steps has T+1 rows.

    Readers drop the last row of a truncated episode, which holds its final observation, and the
    last row of the file; one row is added for it.
    """
    columns: dict[str, list[npt.NDArray[np.generic]]] = {
        name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")
    }
    for e in episodes:
        extra = 0 if e.terminated else 1
        count = len(e.rewards) + extra
        columns["observations"].append(e.observations[:count])
        columns["actions"].append(np.pad(e.actions, [(0, extra), (0, 0)]))
        columns["rewards"].append(np.pad(e.rewards, (0, extra)))
        columns["terminals"].append(np.pad(ends(e)[0], (0, extra)))
        columns["timeouts"].append((np.arange(count) == count - 1) & (not e.terminated))
    for parts in columns.values():
        parts.append(np.zeros_like(parts[0][:1]))
    path = folder / "marks.hdf5"
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            file[name] = np.concatenate(parts)
    return ("dataset=d4rl", f"dataset.path={path}")


def table(episodes: list[Episode]) -> dict[str, npt.NDArray[np.generic]]:
    """Return columns with their default names, next observations included."""
    count = [len(e.rewards) for e in episodes]
    before = np.concatenate([e.observations[:-1] for e in episodes])
    after = np.concatenate([e.observations[1:] for e in episodes])
    actions = np.concatenate([e.actions for e in episodes])
    flags = [np.concatenate(column) for column in zip(*map(ends, episodes), strict=True)]
    return {
        **{f"obs_{k}": before[:, k] for k in range(3)},
        **{f"action_{k}": actions[:, k] for k in range(2)},
        "reward": np.concatenate([e.rewards for e in episodes]),
        "episode": np.repeat(np.arange(EPISODES), count),
        "step": np.concatenate([np.arange(n) for n in count]),
        "terminated": flags[0],
        "truncated": flags[1],
        **{f"next_obs_{k}": after[:, k] for k in range(3)},
    }


def as_table(suffix: str, episodes: list[Episode], folder: Path) -> tuple[str, ...]:
    return (*TABLE, f"dataset.path={write(folder / f'marks.{suffix}', table(episodes))}")


Writer = Callable[[list[Episode], Path], tuple[str, ...]]
WRITERS: dict[str, Writer] = {
    "minari_hdf5": partial(as_minari, "hdf5"),
    "minari_arrow": partial(as_minari, "arrow"),
    "d4rl": as_d4rl,
    "parquet": partial(as_table, "parquet"),
    "csv": partial(as_table, "csv"),
    "npz": partial(as_table, "npz"),
}


# --- Reading -------------------------------------------------------------------------------


def read(name: str, episodes: list[Episode], folder: Path) -> Transitions:
    config = settings("env=logged", *WRITERS[name](episodes, folder))
    return load_transitions(config.env, config.dataset)


@pytest.fixture(autouse=True)
def temporary_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", WRITERS)
def test_every_step_is_read_in_its_place(name: str, episodes: list[Episode], tmp_path: Path):
    data = read(name, episodes, tmp_path)
    count = np.arange(1, EPISODES + 1)
    number = np.repeat(np.arange(EPISODES), count)
    step = np.concatenate([np.arange(n) for n in count])
    last = step == number
    assert np.array_equal(data.observations[:, :2], np.stack([number, step], axis=1))
    bootstraps = ~(last & (number % 2 == 0))  # D4RL has no observation after a terminal step
    following = data.next_observations[bootstraps][:, :2]
    assert np.array_equal(following, np.stack([number, step + 1], axis=1)[bootstraps])
    assert np.array_equal(data.actions, np.concatenate([e.actions for e in episodes]))
    assert np.array_equal(data.rewards, np.concatenate([e.rewards for e in episodes]))
    assert np.array_equal(data.terminated, last & (number % 2 == 0))
    assert np.array_equal(data.truncated, last & (number % 2 == 1))
    assert np.array_equal(data.ends, np.cumsum(count))
    total = sum(float(e.rewards.sum(dtype=np.float64)) for e in episodes)
    assert data.episode_returns().sum() == pytest.approx(total, abs=1e-9)


def test_all_formats_except_d4rls_have_the_same_hash(episodes: list[Episode], tmp_path: Path):
    """D4RL has another next observation at terminal steps; no update uses it."""
    names = [name for name in WRITERS if name != "d4rl"]
    hashes = {name: read(name, episodes, tmp_path).sha256 for name in names}
    assert len(set(hashes.values())) == 1, hashes
