"""Guarantee: arrays, data frames and files become the transitions that they contain."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from support.config import settings
from support.train import SIZE

from offline_cql import ConfigError, DataError, Dataset, collect
from offline_cql.errors import PolicyError
from offline_cql.simulation.collect import dataset_id

N, D, A = 40, 11, 2  # eleven columns: obs_10 must not come before obs_2
OBSERVATIONS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
ACTIONS = np.random.default_rng(1).uniform(-3, 3, (N, A)).astype(np.float32)
REWARDS = np.arange(N, dtype=np.float64)
LAST = np.arange(N) % 10 == 9
TRUNCATED = LAST & (np.arange(N) >= 30)  # the last of four episodes
TERMINATED = LAST & ~TRUNCATED


def from_arrays(folder: Path, **changed: Any) -> Dataset:
    arrays = {
        "observations": OBSERVATIONS,
        "actions": ACTIONS,
        "rewards": REWARDS,
        "terminated": TERMINATED,
        "truncated": TRUNCATED,
    }
    return Dataset.from_arrays(**arrays | changed, folder=folder)


def test_arrays_are_the_transitions_that_they_contain(tmp_path: Path):
    """The step after which the observation is unknown, the truncated one, is left out."""
    transitions = from_arrays(tmp_path).transitions
    assert len(transitions) == N - 1
    assert transitions.ends.tolist() == [10, 20, 30, 39]
    np.testing.assert_array_equal(transitions.observations, OBSERVATIONS[:-1])
    inside = ~LAST[:-1]
    np.testing.assert_array_equal(transitions.next_observations[inside], OBSERVATIONS[1:][inside])
    np.testing.assert_array_equal(transitions.rewards, REWARDS[:-1])
    np.testing.assert_array_equal(transitions.terminated, TERMINATED[:-1])
    low, high = ACTIONS.min(axis=0), ACTIONS.max(axis=0)
    expected = (ACTIONS[:-1] - (high + low) / 2) / ((high - low) / 2)
    np.testing.assert_allclose(transitions.actions, expected, atol=1e-6)


def test_next_observations_keep_truncated_steps(tmp_path: Path):
    following = OBSERVATIONS + 1
    transitions = from_arrays(tmp_path, next_observations=following).transitions
    assert len(transitions) == N
    np.testing.assert_array_equal(transitions.next_observations, following)


def test_integers_are_discrete_actions_and_columns_of_one_are_accepted(tmp_path: Path):
    """d3rlpy stores rewards and terminals as [N, 1]."""
    actions = np.arange(N) % 3
    dataset = from_arrays(
        tmp_path, actions=actions[:, None], rewards=REWARDS[:, None], terminated=LAST[:, None]
    )
    assert dataset.transitions.spaces.discrete
    np.testing.assert_array_equal(dataset.transitions.actions, actions)
    assert len(dataset) == N


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"observations": OBSERVATIONS[:, 0]},
            r"observations has shape \(40,\), expected \[N, D\]",
        ),
        ({"observations": np.zeros((N, 4, 4, 3), np.uint8)}, "images are read from Minari"),
        ({"actions": ACTIONS[:5]}, r"action has shape \(5, 2\), expected 40 steps"),
        ({"rewards": REWARDS[:5]}, r"reward has shape \(5,\), expected 40 steps"),
        ({"actions": np.arange(N) % 2 * 2}, r"0 … K - 1, each taken at least once, not \[0, 2\]"),
        ({"next_observations": OBSERVATIONS[:, 1:]}, "must have the shape of observations"),
        ({"terminated": np.where(LAST, "True", "False")}, "terminated has dtype <U5"),
        ({"terminated": np.where(LAST, 1.0, np.nan)}, "terminated must be booleans, or 0 and 1"),
        ({"truncated": LAST * 2}, "truncated must be booleans, or 0 and 1"),
        ({"terminated": [None] * N}, "terminated has dtype object"),
        ({"actions": np.arange(N) % 3 * 1.0}, "pass integers .* or discrete=False for amounts"),
        ({"actions": np.eye(3)[np.arange(N) % 3]}, "argmax"),
        ({"actions": ACTIONS, "discrete": True}, r"discrete actions have shape \(40, 2\)"),
        ({"rewards": REWARDS * 1j}, "rewards has dtype complex128, expected numbers"),
        ({"rewards": 1.0}, r"reward has shape \(\), expected 40 steps"),
        ({"observations": [[1.0], [1.0, 2.0]]}, "observations is no array"),
        ({"observations": torch.zeros(N, 1, requires_grad=True)}, "observations is no array"),
        ({"rewards": np.ma.masked_less(REWARDS, 3)}, "rewards has masked values"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, changed: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        from_arrays(tmp_path, **changed)
    assert list(tmp_path.iterdir()) == []


def test_types_of_actions_and_arrays(tmp_path: Path):
    """Booleans are choices; HDF5 files may be big-endian."""
    assert from_arrays(tmp_path, actions=np.arange(N) % 2 == 0).transitions.spaces.discrete
    whole = (np.arange(N) % 3).astype(float)
    assert not from_arrays(tmp_path, actions=whole, discrete=False).transitions.spaces.discrete
    assert from_arrays(tmp_path, actions=whole, discrete=True).transitions.spaces.discrete
    big = from_arrays(tmp_path, rewards=REWARDS.astype(">f8"), terminated=LAST * 1.0)
    np.testing.assert_array_equal(big.transitions.rewards, REWARDS)
    assert from_arrays(tmp_path, rewards=REWARDS.astype(np.longdouble)).transitions.rewards[3] == 3


def test_values_are_validated_when_they_are_read(tmp_path: Path):
    with pytest.raises(DataError, match="NaN"):
        len(from_arrays(tmp_path, observations=OBSERVATIONS * np.nan))


def test_equal_arrays_are_one_file(tmp_path: Path):
    assert from_arrays(tmp_path).settings == from_arrays(tmp_path).settings
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_of_a_data_frame_are_named(tmp_path: Path):
    columns = {"state": REWARDS, "dose": ACTIONS[:, 0], "gain": REWARDS, "end": LAST}
    frame = pa.table(columns)
    names = {"observation": ["state"], "action": "dose", "reward": "gain", "terminated": "end"}
    dataset = Dataset.from_dataframe(frame, **names, folder=tmp_path)
    np.testing.assert_array_equal(dataset.transitions.observations[:, 0], REWARDS)
    (file,) = tmp_path.iterdir()
    same = Dataset.from_parquet(file, **names)
    np.testing.assert_array_equal(same.transitions.rows, dataset.transitions.rows)


def test_categories_and_missing_values_of_a_data_frame(tmp_path: Path):
    gaps = [None if row % 4 == 0 else 1.0 for row in range(len(REWARDS))]
    columns = {"age": gaps, "größe": ["l", "m"] * (len(REWARDS) // 2), "dose": ACTIONS[:, 0]}
    dataset = Dataset.from_dataframe(
        pa.table(columns | {"gain": REWARDS, "end": LAST}),
        **{"observation": ["age", "größe"], "action": "dose", "reward": "gain"},
        **{"terminated": "end", "categories": ["größe"], "missing": "fill"},
        folder=tmp_path,
    )
    names = ("age", "age missing", "größe=l", "größe=m")
    assert dataset.transitions.observation_names == names
    assert dataset.transitions.observations[0].tolist() == [1, 1, 1, 0]


def down(observation: np.ndarray) -> int:
    return 1


def test_a_function_is_recorded_in_any_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    lake = ["env=gymnasium", "env.id=FrozenLake-v1", "dataset.size=60", "seed=1"]
    dataset = collect(lake, policy=down)
    assert dataset.transitions.dataset_id == "sim/frozenlake-v1/down_60-v0"
    assert (dataset.transitions.actions == 1).all()
    assert dataset.settings[:2] == lake[:2]  # its simulator, for training and evaluation
    assert "is already recorded" not in capfd.readouterr().out
    assert (collect(lake, policy=down).transitions.rows == dataset.transitions.rows).all()
    assert "is already recorded" in capfd.readouterr().out
    anonymous = collect(lake, policy=lambda observation: int(observation[0] == 1))
    assert anonymous.transitions.dataset_id == "sim/frozenlake-v1/policy_60-v0"
    with pytest.raises(DataError, match=r"already recorded, but not as .* with seed 2: .* seed 1"):
        collect([*lake[:-1], "seed=2"], policy=down)
    with pytest.raises(DataError, match=r"already recorded, but not .*: other env\.arguments"):
        collect([*lake, "env.arguments={is_slippery: false}"], policy=down)
    typed = collect([*lake, "dataset.id=mine/lake-v3"], policy=down)
    assert typed.transitions.dataset_id == "mine/lake-v3"
    with pytest.raises(PolicyError, match="policy=policy raised KeyError"):
        collect([*lake, "overwrite=true"], policy=lambda observation: {}[0])


def test_columns_of_a_data_frame_may_have_numbers_as_names(tmp_path: Path):
    frame = pd.DataFrame(np.column_stack([OBSERVATIONS[:, :2], ACTIONS[:, 0], REWARDS, LAST]))
    names = {"observation": [0, 1], "action": 2, "reward": 3, "terminated": 4}
    dataset = Dataset.from_dataframe(frame, **names, folder=tmp_path)
    np.testing.assert_allclose(dataset.transitions.observations, OBSERVATIONS[:, :2])


def test_what_is_no_frame_or_no_column_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="must be a list of KEY=VALUE, not 'env=hopper'"):
        Dataset("env=hopper")
    with pytest.raises(DataError, match="the data frame is not a table"):
        Dataset.from_dataframe(3, observation=["x"], action="a", reward="r", folder=tmp_path)
    with pytest.raises(TypeError, match="weight is not a column"):
        Dataset.from_parquet("logs.parquet", weight="w")


def test_a_data_set_of_minari_is_read_and_audited(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    stored = dataset_id(settings("env=pendulum", f"dataset.size={SIZE}").dataset)
    dataset = Dataset.from_minari(stored, env="pendulum")
    assert len(dataset) == SIZE
    audit = dataset.audit(["out=audit"])
    assert audit.dataset_id == stored
    assert (tmp_path / "audit" / "audit.html").exists()
    with pytest.raises(ConfigError, match="strct is unknown; did you mean strict"):
        dataset.audit(["strct=true"])
