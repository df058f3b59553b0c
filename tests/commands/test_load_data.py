"""Guarantee: the settings select the data; data that do not fit the simulator are an error."""

from pathlib import Path
from typing import Any

import pytest
from support.config import settings as composed_settings
from support.train import SIZE

from offline_cql.commands.load_data import READERS, environment_spaces, is_local, load_transitions
from offline_cql.config import SOURCES
from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader
from offline_cql.simulation.collect import dataset_id
from offline_cql.transitions import Spaces, Transitions

pytestmark = pytest.mark.usefixtures("recorded")

PENDULUM, CARTPOLE = f"sim/pendulum/mixed_{SIZE}-v0", f"sim/cartpole/mixed_{SIZE}-v0"
SMALL = f"dataset.size={SIZE}"
FROM_STORE = "dataset=minari"


def load_data(*overrides: str) -> Transitions:
    config = composed_settings(*overrides)
    return load_transitions(config.env, config.dataset)


def test_every_source_of_the_schema_is_one():
    assert set(READERS) == set(SOURCES)


def test_data_are_local_once_they_are_on_this_machine(tmp_path: Path, monkeypatch: Any):
    def local(*overrides: str) -> bool:
        return is_local(composed_settings(*overrides).dataset)

    assert local("env=cartpole", SMALL)
    assert not local("env=cartpole", "dataset.size=777")
    assert local("env=cartpole", FROM_STORE, f"dataset.id={CARTPOLE}")
    assert not local("env=cartpole", FROM_STORE, "dataset.id=D4RL/pen/human-v2")
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    assert not local("env=hopper", "dataset=d4rl")
    (tmp_path / "hopper_medium-v2.hdf5").touch()
    assert local("env=hopper", "dataset=d4rl")
    # Reading a path reports that it is missing.
    assert local("env=hopper", "dataset=d4rl", "dataset.path=none.hdf5")
    assert local("env=logged", "dataset=table", "dataset.path=none.csv")


# --- The simulator --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "spaces"),
    [
        ("pendulum", Spaces(3, 1, False, (-2.0,), (2.0,))),
        ("cartpole", Spaces(4, 2, True, (), ())),
        ("logged", None),
    ],
)
def test_the_spaces_are_those_of_the_simulator(env: str, spaces: Spaces | None):
    table = ("dataset=table", "dataset.path=logs.csv") if env == "logged" else ()
    assert environment_spaces(composed_settings(f"env={env}", *table).env) == spaces


@pytest.mark.parametrize(
    ("env", "other"), [("pendulum", CARTPOLE), ("cartpole", PENDULUM)], ids=["discrete", "not"]
)
def test_data_of_another_environment_are_refused(env: str, other: str):
    message = rf"{other} does not fit env={env}: the data have Spaces\(.*, the environment Spaces\("
    with pytest.raises(DataError, match=message):
        load_data(f"env={env}", FROM_STORE, f"dataset.id={other}")


# --- Each source ----------------------------------------------------------------------------------


def test_simulated_data_are_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    small = ("env=cartpole", "dataset.size=60", "batch_size=32")
    first = load_data(*small)
    assert (first.dataset_id, len(first)) == ("sim/cartpole/mixed_60-v0", 60)
    stamp = (tmp_path / first.dataset_id / "data" / "main_data.hdf5").stat()
    again = load_data(*small)
    assert (tmp_path / first.dataset_id / "data" / "main_data.hdf5").stat() == stamp
    assert again.sha256 == first.sha256


def test_a_minari_id_needs_no_simulator():
    data = load_data("env=logged", FROM_STORE, f"dataset.id={PENDULUM}")
    simulated = load_data("env=pendulum", SMALL)
    assert dataset_id(composed_settings("env=pendulum", SMALL).dataset) == PENDULUM
    assert (data.sha256, data.spaces) == (simulated.sha256, simulated.spaces)
    assert data.sha256 == load(MinariReader(PENDULUM)).sha256


def test_a_table_is_read_from_its_path(tmp_path: Path):
    path = tmp_path / "logs.csv"
    path.write_text(
        "obs_x,action,reward,episode,terminated\n"
        "0.5,0,1,0,0\n1.5,1,2,0,1\n2.5,0,4,1,0\n3.5,1,8,1,1\n"
    )
    data = load_data("env=logged", "dataset=table", f"dataset.path={path}")
    assert data.spaces == Spaces(1, 2, True, (), ())
    assert data.observations.ravel().tolist() == [0.5, 1.5, 2.5, 3.5]
    assert data.rewards.tolist() == [1, 2, 4, 8]
    assert data.ends.tolist() == [2, 4]
    assert data.terminated.tolist() == [False, True, False, True]
