"""Guarantee: the same episodes are read as the same transitions from every format.

Twelve episodes of 1 to 12 steps, every other one terminated, the rest truncated. Observations state
their episode and step, so that a shift by one row anywhere is detected.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from support.config import settings
from support.minari_case import episode, write_minari
from support.table_case import write

from offline_cql.commands.load_data import load_transitions
from offline_cql.transitions import Transitions

COUNT = np.arange(1, 13)  # steps per episode
NUMBER = np.repeat(np.arange(12), COUNT)  # the episode of each step
STEP = np.concatenate([np.arange(count) for count in COUNT])
LAST = STEP == NUMBER
EPISODES = [
    episode(number, number + 1, end="truncations" if number % 2 else "terminations")
    for number in range(12)
]
BOUNDS = ("dataset.columns.action_low=[-1,-1]", "dataset.columns.action_high=[1,1]")


def join(name: str, part: slice = slice(None)) -> npt.NDArray[Any]:
    """Return one array of all episodes, of each the part."""
    return np.concatenate([getattr(e, name)[part] for e in EPISODES])


# --- Writers, each by the library that defines its format ----------------------------------


def as_minari(data_format: str, folder: Path) -> tuple[str, ...]:
    name = f"test/marks-{data_format}-v0"
    box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    write_minari(name, EPISODES, data_format, action=box)
    return ("dataset=minari", f"dataset.id={name}")


def as_d4rl(folder: Path) -> tuple[str, ...]:
    """Write D4RL's layout, in which a truncated episode of T steps has T+1 rows.

    Readers drop the last row of a truncated episode, which holds its final observation, and the
    last row of the file; one row is added for it.
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards")}
    rows |= {"terminals": [], "timeouts": []}
    for e in EPISODES:
        extra = int(e.truncations[-1])
        count = len(e.rewards) + extra
        rows["observations"].append(e.observations[:count])
        rows["actions"].append(np.pad(e.actions, [(0, extra), (0, 0)]))
        rows["rewards"].append(np.pad(e.rewards, (0, extra)))
        rows["terminals"].append(np.pad(e.terminations, (0, extra)))
        rows["timeouts"].append((np.arange(count) == count - 1) & bool(extra))
    with h5py.File(folder / "marks.hdf5", "w") as file:
        for name, parts in rows.items():
            file[name] = np.concatenate([*parts, np.zeros_like(parts[0][:1])])
    return ("dataset=d4rl", f"dataset.path={folder}/marks.hdf5")


def as_table(suffix: str, folder: Path) -> tuple[str, ...]:
    """Write columns with their default names, next observations included."""
    before, after = join("observations", slice(-1)), join("observations", slice(1, None))
    columns = {
        **{f"obs_{k}": before[:, k] for k in range(2)},
        **{f"action_{k}": join("actions")[:, k] for k in range(2)},
        "reward": join("rewards"),
        "episode": NUMBER,
        "step": STEP,
        "terminated": join("terminations"),
        "truncated": join("truncations"),
        **{f"next_obs_{k}": after[:, k] for k in range(2)},
    }
    path = write(folder / f"marks.{suffix}", columns)
    return ("dataset=table", *BOUNDS, f"dataset.path={path}")


WRITERS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "minari_hdf5": partial(as_minari, "hdf5"),
    "minari_arrow": partial(as_minari, "arrow"),
    "d4rl": as_d4rl,
    **{suffix: partial(as_table, suffix) for suffix in ("parquet", "csv", "npz")},
}


# --- Reading -------------------------------------------------------------------------------


def read(name: str, folder: Path) -> Transitions:
    config = settings("env=logged", *WRITERS[name](folder))
    return load_transitions(config.env, config.dataset)


@pytest.fixture(autouse=True)
def temporary_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", WRITERS)
def test_every_step_is_read_in_its_place(name: str, tmp_path: Path):
    data = read(name, tmp_path)
    assert np.array_equal(data.observations, np.stack([NUMBER, STEP], axis=1))
    bootstraps = ~join("terminations")  # D4RL has no observation after a terminal step
    expected = np.stack([NUMBER, STEP + 1], axis=1)
    assert np.array_equal(data.next_observations[bootstraps], expected[bootstraps])
    assert np.array_equal(data.actions, join("actions"))
    assert np.array_equal(data.rewards, 100 * NUMBER + STEP)
    assert np.array_equal(data.terminated, LAST & (NUMBER % 2 == 0))
    assert np.array_equal(data.truncated, LAST & (NUMBER % 2 == 1))
    assert np.array_equal(data.ends, np.cumsum(COUNT))
    assert data.episode_returns().tolist() == [e.rewards.sum() for e in EPISODES]


def test_all_formats_except_d4rls_have_the_same_hash(tmp_path: Path):
    """D4RL has another next observation at terminal steps; no update uses it."""
    hashes = {name: read(name, tmp_path).sha256 for name in WRITERS if name != "d4rl"}
    assert len(set(hashes.values())) == 1, hashes
