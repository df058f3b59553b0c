"""Guarantee: a table written as a Minari data set holds the same transitions."""

from pathlib import Path

import minari
import numpy as np
import pytest
from support.config import compose_config
from support.table_case import episodes, load_table, write

from offline_cql.commands.collect import collect
from offline_cql.errors import ConfigError, DataError
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))


def collect_table(path: Path, *overrides: str) -> str:
    arguments = ("env=logged", "dataset=table", f"dataset.path={path}", *overrides)
    return collect(compose_config(*arguments, entry_point="collect"))


@pytest.mark.parametrize("discrete", [False, True])
def test_the_same_transitions_come_back(discrete: bool, tmp_path: Path):
    """The second episode is truncated: its last row is dropped, the row before ends it."""
    columns = episodes([5, 4, 3], ["T", "U", "T"])
    columns["action_0"] = np.random.default_rng(0).normal(size=12)
    if discrete:
        del columns["action_0"], columns["action_1"]
        columns["action"] = ["left", "right"] * 6
    path = write(tmp_path / "My logs.parquet", columns)
    identifier = collect_table(path)
    assert identifier == "logs/my-logs-v0"
    table, stored = load_table(path), load(MinariReader(identifier))
    np.testing.assert_array_equal(stored.rows, table.rows)
    np.testing.assert_array_equal(stored.ends, table.ends)
    assert stored.spaces == table.spaces
    assert stored.observation_names == ("obs_0", "obs_1")
    if discrete:
        assert stored.action_names == ("left", "right")
    assert minari.load_dataset(identifier).total_steps == len(table) == 11


def test_it_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "logs.parquet", episodes([5, 4], ["T", "T"]))
    assert collect_table(path, "dataset.id=mine/first-v0") == "mine/first-v0"
    write(path, episodes([5, 4, 7], ["T", "T", "T"]))
    collect_table(path, "dataset.id=mine/first-v0")
    assert "already stored; overwrite=true writes it again" in capsys.readouterr().out
    assert len(load(MinariReader("mine/first-v0"))) == 9
    collect_table(path, "dataset.id=mine/first-v0", "overwrite=true")
    assert len(load(MinariReader("mine/first-v0"))) == 16


def test_next_observations_of_other_steps_are_refused(tmp_path: Path):
    columns = episodes([3, 3], ["T", "T"])
    columns |= {"next_obs_0": np.zeros(6), "next_obs_1": np.full(6, 9.0)}
    with pytest.raises(DataError, match="the next observations of 4 steps are not those of the"):
        collect_table(write(tmp_path / "logs.parquet", columns))


def test_a_policy_has_no_effect_on_a_table(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", episodes([5], ["T"]))
    with pytest.raises(ConfigError, match="policy=random has no effect with dataset=table"):
        collect_table(path, "policy=random")
