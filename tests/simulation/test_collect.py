"""Guarantee: a recording is exact and repeatable, complete or absent, and readable by Minari."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time

import minari
import minari.cli
import numpy as np
import pytest
from support.envs import dataset_config, env_config, episode_length
from typer.testing import CliRunner

from offline_cql.errors import DataError, PolicyError
from offline_cql.readers import load
from offline_cql.readers.minari import storage
from offline_cql.readers.minari.store import MinariReader, dataset_path
from offline_cql.render import progress
from offline_cql.simulation import collect as recording
from offline_cql.simulation.behavior import SCRIPTED, Component, RandomActions
from offline_cql.simulation.collect import dataset_id, ensure_recorded, record
from offline_cql.transitions import Transitions

MARKER = env_config("marker", "Marker-v0")
PENDULUM = env_config("pendulum", "Pendulum-v1")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setitem(
        SCRIPTED,
        ("marker", "mixed"),
        (Component("one", 0.3, RandomActions), Component("two", 0.7, RandomActions)),
    )
    return tmp_path


def load_transitions(name) -> Transitions:
    return load(MinariReader(name))


def stored_files(store):
    """Return the files of the store without namespaces and locks."""
    files = (path.relative_to(store) for path in store.rglob("*") if path.is_file())
    return {str(p) for p in files if p.parts[0] != ".locks" and p.name != "namespace_metadata.json"}


def nan_policy(calls, action=np.nan):
    """Return a policy whose actions become `action` after `calls` calls."""
    numbers = itertools.count()

    def policy(observations, indices, starts):
        value = action if next(numbers) >= calls else 1.0
        return np.full((len(observations), 2), value, np.float32)

    return policy


def test_the_size_is_exact_when_components_and_environments_do_not_divide_it():
    """101 steps over two components and ten environments."""
    name = record(MARKER, dataset_config("marker", 101))
    assert name == "sim/marker/mixed_101-v0"
    assert len(load_transitions(name)) == 101
    assert minari.load_dataset(name).total_steps == 101


def test_fewer_steps_than_environments_can_be_recorded():
    assert len(load_transitions(record(MARKER, dataset_config("marker", 3)))) == 3


def test_the_default_size_has_the_plain_id():
    assert dataset_id(dataset_config("hopper", 100_000, "medium")) == "sim/hopper/medium-v0"
    million = dataset_config("hopper", 1_000_000, "medium-expert")
    assert dataset_id(million) == "sim/hopper/medium-expert_1000000-v0"


def test_every_environment_makes_its_quota_of_steps(monkeypatch):
    """Episodes have 2 or 7 steps: the first 600 steps would have too many short ones."""
    rollouts = []
    roll_out = recording.roll_out

    def log_rollouts(environments, policy, **options):
        rollouts.append((options["steps_each"], roll_out(environments, policy, **options)))
        return rollouts[-1][1]

    monkeypatch.setattr(recording, "roll_out", log_rollouts)
    record(MARKER, dataset_config("marker", 600))
    assert [quotas for quotas, _ in rollouts] == [[18] * 10, [42] * 10]
    for (quota, *_), episodes in rollouts:
        boundaries = np.cumsum([len(episode) for episode in episodes])
        assert set(range(quota, 10 * quota + 1, quota)) <= set(boundaries.tolist())


def test_stored_episodes_equal_the_environments_steps():
    """Marker's observation is (seed mod 1000, step), its reward the number of the step."""
    name = record(MARKER, dataset_config("marker", 200))
    lengths, cut = [], 0
    dataset = minari.load_dataset(name)
    for episode, metadata in zip(
        dataset, dataset.storage.get_episode_metadata(range(len(dataset))), strict=True
    ):
        steps, seed = len(episode), metadata["seed"]
        assert episode.observations.dtype == np.float64
        np.testing.assert_array_equal(episode.observations[:, 0], seed % 1000)
        np.testing.assert_array_equal(episode.observations[:, 1], np.arange(steps + 1))
        np.testing.assert_array_equal(episode.rewards, np.arange(1, steps + 1))
        whole = steps == episode_length(seed)
        assert bool(episode.terminations[-1]) == (whole and seed % 2 == 0)
        assert bool(episode.truncations[-1]) == (not episode.terminations[-1])
        lengths.append(steps)
        cut += not whole
    assert sum(lengths) == 200
    assert cut <= 20  # at most one for each environment and component
    assert load_transitions(name).episode_returns().sum() == sum(n * (n + 1) / 2 for n in lengths)


def test_actions_are_stored_in_the_environments_units_and_span_them():
    name = record(MARKER, dataset_config("marker", 600))
    actions = np.concatenate([e.actions for e in minari.load_dataset(name)])
    np.testing.assert_allclose(actions.min(axis=0), [-1, 0], atol=0.1)
    np.testing.assert_allclose(actions.max(axis=0), [3, 2], atol=0.1)
    internal = load_transitions(name).actions
    np.testing.assert_allclose(internal, (actions - [1, 1]) / [2, 1], atol=1e-6)


@pytest.mark.parametrize("env", [PENDULUM, env_config("cartpole", "CartPole-v1")])
def test_a_seed_fixes_the_content(env):
    def sha256(seed):
        name = record(env, dataset_config(env.name, 500), seed=seed, overwrite=True)
        return load_transitions(name).sha256

    assert sha256(0) == sha256(0)
    assert sha256(0) != sha256(1)


def test_another_seed_gives_other_episodes_not_another_order():
    def seeds_and_actions(seed):
        dataset = minari.load_dataset(
            record(MARKER, dataset_config("marker", 100), seed=seed, overwrite=True)
        )
        metadata = dataset.storage.get_episode_metadata(range(len(dataset)))
        actions = np.concatenate([episode.actions for episode in dataset])
        return {entry["seed"] for entry in metadata}, set(actions[:, 0].tolist())

    for first, second in zip(seeds_and_actions(0), seeds_and_actions(1), strict=True):
        assert first.isdisjoint(second)


def test_minari_loads_a_recording():
    name = record(PENDULUM, dataset_config("pendulum", 400))
    assert list(minari.list_local_datasets()) == [name]
    dataset = minari.load_dataset(name)
    assert dataset.recover_environment(eval_env=True).spec.id == "Pendulum-v1"
    assert "total_steps" in repr(dataset.sample_episodes(1)[0])
    assert minari.get_normalized_score(dataset, np.array([5.0])).tolist() == [0.5]
    shown = CliRunner().invoke(minari.cli.app, ["show", name])
    assert shown.exit_code == 0
    assert "400" in shown.output
    assert "held random" in shown.output


def metadata_of(name):
    return json.loads((dataset_path(name) / "data" / "metadata.json").read_text())


def test_metadata_describe_the_behavior_policies():
    """10 pendulum episodes of 200 steps; the parts hold their shares of the steps."""
    metadata = metadata_of(record(PENDULUM, dataset_config("pendulum", 2_000)))
    steps = {part["name"]: part["steps"] for part in metadata["behavior"]}
    assert steps == {"held random": 800, "noisy": 700, "good": 500}
    assert metadata["ref_max_score"] == 10.0


def test_the_mean_of_a_part_leaves_out_cut_episodes():
    """Whole Marker episodes return 3 or 28; nothing else may enter the mean of either part."""
    for part in metadata_of(record(MARKER, dataset_config("marker", 300)))["behavior"]:
        share = (part["return_mean"] - 3) / 25
        deviation = 25 * np.sqrt(share * (1 - share))
        assert part["return_std"] == pytest.approx(deviation)


def test_recording_needs_no_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setitem(sys.modules, "jax.tree_util", None)
    assert len(load_transitions(record(MARKER, dataset_config("marker", 50)))) == 50


def test_an_existing_recording_is_not_replaced():
    config = dataset_config("marker", 50)
    name = ensure_recorded(MARKER, config)
    first = load_transitions(name).sha256
    assert ensure_recorded(MARKER, config, seed=1) == name
    assert load_transitions(name).sha256 == first


def test_recording_again_requires_overwrite():
    config = dataset_config("marker", 50)
    first = load_transitions(record(MARKER, config)).sha256
    with pytest.raises(DataError, match="already recorded; overwrite=true"):
        record(MARKER, config, seed=1)
    record(MARKER, config, seed=1, overwrite=True)
    assert load_transitions(dataset_id(config)).sha256 != first


def test_a_users_policy_is_recorded_under_its_own_id():
    def constant_policy(observations, indices, starts):
        return np.tile(np.array([0.5, 1], np.float32), (len(observations), 1))

    config = dataset_config("marker", 30, quality="run-1")
    name = record(MARKER, config, behavior=constant_policy)
    assert name == "sim/marker/run-1_30-v0"
    np.testing.assert_allclose(load_transitions(name).actions, [[-0.25, 0]] * 30)


def test_a_nan_action_leaves_nothing_behind(store):
    config = dataset_config("marker", 100)
    with pytest.raises(PolicyError, match="nan"):
        record(MARKER, config, behavior=nan_policy(5))
    assert stored_files(store) == set()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interruption_while_writing_leaves_the_store_as_it_was(store, monkeypatch, overwrite):
    config = dataset_config("marker", 50)
    if overwrite:
        first = load_transitions(record(MARKER, config)).sha256
    before = stored_files(store)

    def interrupt(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            record(MARKER, config, seed=1, overwrite=overwrite)
    assert stored_files(store) == before
    if overwrite:
        assert load_transitions(dataset_id(config)).sha256 == first


KILLED = """
import os
from minari.dataset._storages.hdf5_storage import HDF5Storage
from support.envs import dataset_config, env_config
from offline_cql.simulation.collect import record

write = HDF5Storage.update_episodes
HDF5Storage.update_episodes = lambda self, episodes: (write(self, episodes[:2]), os._exit(9))
record(env_config("pendulum", "Pendulum-v1"), dataset_config("pendulum", 800))
"""


def test_a_killed_recording_is_ignored_and_replaced(store):
    """A process is killed while Minari writes; the next call removes its files and records."""
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ | paths, timeout=60)
    assert killed.returncode == 9
    assert any(path.startswith(".recording") for path in stored_files(store))
    assert minari.list_local_datasets() == {}
    config = dataset_config("pendulum", 800)
    with pytest.raises(DataError, match="not in the local store"):
        load_transitions(dataset_id(config))
    assert len(load_transitions(ensure_recorded(PENDULUM, config))) == 800
    assert all(path.startswith("sim/pendulum/mixed_800-v0/") for path in stored_files(store))


def test_two_threads_record_once(monkeypatch, capsys):
    """The lock is held per open file, so two threads exclude each other as two processes do."""
    recordings = []
    record_once = recording._record

    def slow(*arguments):
        recordings.append(1)
        time.sleep(0.3)
        record_once(*arguments)

    monkeypatch.setattr(recording, "_record", slow)
    config = dataset_config("marker", 50)
    call = {"target": ensure_recorded, "args": (MARKER, config), "daemon": True}
    threads = [threading.Thread(**call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert recordings == [1]
    assert "another process is recording sim/marker/mixed_50-v0" in capsys.readouterr().err


def test_an_id_outside_the_store_is_refused(store):
    with pytest.raises(DataError, match="must look like"):
        record(MARKER, dataset_config("../../evil", 50))
    assert not (store.parent / "evil").exists()


def test_a_progress_bar_appears_for_long_recordings_only(monkeypatch, capsys):
    record(MARKER, dataset_config("marker", 50))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    record(MARKER, dataset_config("marker", 60))
    shown = capsys.readouterr()
    assert "sim/marker/mixed_60-v0" in shown.err
    assert shown.out == ""
