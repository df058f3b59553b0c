"""Guarantee: every D4RL task with a simulator has a preset, with references and rollouts."""

import functools
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.config import CONF, run_entry_point, settings
from support.train import TINY

from offline_cql.commands.load_data import load_transitions, simulator_settings
from offline_cql.config import TrainConfig
from offline_cql.config.command_line import check
from offline_cql.errors import ConfigError, DataError
from offline_cql.readers.d4rl import tasks

LOCOMOTION = ("halfcheetah", "hopper", "walker2d", "ant")
ADROIT = ("pen", "hammer", "door", "relocate")
MAZES, VARIANTS = ("medium", "large"), ("play", "diverse")


def commands() -> dict[str, tuple[str, ...]]:
    """Return the arguments by task of D4RL: a preset, the environment and the quality."""
    typed: dict[str, tuple[str, ...]] = {}

    def add(task: str, preset: str, env: str, *quality: str) -> None:
        chosen = (f"dataset.quality={name}" for name in quality)
        typed[task] = (f"experiment=d4rl/{preset}", f"env={env}", *chosen)

    replay = ("random", "medium", "expert", "medium-replay", "medium-expert", "full-replay")
    for env, quality in product(LOCOMOTION, replay):
        add(f"{env}-{quality}-v2", "locomotion", env, quality)
    for env, quality in product(ADROIT, ("human", "cloned", "expert")):
        add(f"{env}-{quality}-v1", "adroit", env, quality)
    for maze in ("umaze", "umaze_diverse", *(f"{m}_{k}" for m in MAZES for k in VARIANTS)):
        add(f"antmaze-{maze.replace('_', '-')}-v2", "antmaze", f"antmaze_{maze}")
    for maze, dense in product(("umaze", "medium", "large", "open"), ("", "-dense")):
        env = f"pointmaze_{maze}{dense.replace('-', '_')}"
        add(f"maze2d-{maze}{dense}-v{0 if maze == 'open' else 1}", "maze2d", env)
    for quality in ("complete", "partial"):
        add(f"kitchen-{quality}-v0", "kitchen", "kitchen", quality)
    add("kitchen-mixed-v0", "kitchen", "kitchen_mixed")
    return typed


PRESETS = commands()


def domain(task: str) -> str:
    return task.partition("-")[0]


@functools.cache
def preset(task: str) -> TrainConfig:
    return settings(*PRESETS[task])


def simulator(config: TrainConfig) -> str | None:
    return simulator_settings(config.env, config.dataset).id


def newest(pattern: str) -> set[str]:
    """Return the newest version of each task whose name matches."""
    latest: dict[str, str] = {}
    for task in sorted(tasks()):
        if re.fullmatch(pattern, task):
            latest[task.rpartition("-v")[0]] = task
    return set(latest.values())


def test_every_task_with_an_installed_simulator_has_a_preset():
    expected = newest(
        rf"({'|'.join(LOCOMOTION)})-(random|medium|expert|medium-replay|medium-expert|full-replay)"
        rf"-v2|antmaze-.*-v2|({'|'.join(ADROIT)})-.*-v1|kitchen-.*|maze2d-(?!eval).*"
    )
    assert len(expected) == 24 + 6 + 12 + 3 + 8
    assert set(PRESETS) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_task_d4rls_references_and_a_simulator(name: str):
    config, task = preset(name), tasks()[name]
    assert (config.dataset.source, config.dataset.id) == ("d4rl", name)
    assert config.dataset.name == f"d4rl-{name}"
    assert config.env.reference_source == "D4RL"
    assert config.env.reference_min == task["ref_min"]
    assert config.env.reference_max == task["ref_max"]
    assert simulator(config) is not None
    assert config.evaluation.episodes > 0


RATES, LAYERS = ("actor_learning_rate", "temperature_learning_rate"), ("actor", "critic")


def summary(name: str) -> dict[str, Any]:
    cql, network, dataset = (getattr(preset(name), part) for part in ("cql", "network", "dataset"))
    return {
        **{"alpha": cql.alpha, "target_gap": cql.target_gap, "gap_min": cql.gap_min},
        **{"multiplier": cql.multiplier_initial, "backup": cql.backup, "cloning": cql.bc_updates},
        "rates": tuple(getattr(cql, rate) for rate in RATES),
        "layers": tuple(len(getattr(network, f"{kind}_hidden")) for kind in LAYERS),
        "normalize": network.normalize_observations,
        "reward": (dataset.reward_scale, dataset.reward_shift),
    }


CORL = {
    **{"alpha": 10.0, "target_gap": None, "gap_min": None, "multiplier": None},
    **{"backup": "sampled", "cloning": 0, "rates": (3e-5, 3e-5), "layers": (3, 3)},
    **{"normalize": True, "reward": (1.0, 0.0)},
}
LAGRANGE = CORL | {"target_gap": 5.0, "multiplier": float(np.e)}
ANTMAZE = {
    **{"alpha": 5.0, "target_gap": 0.8, "gap_min": -200.0, "backup": "max", "rates": (1e-4, 1e-4)},
    **{"layers": (3, 5), "normalize": False, "reward": (10.0, -5.0)},
}
SETTINGS = {
    **dict.fromkeys(LOCOMOTION, CORL),
    **dict.fromkeys(ADROIT, CORL | {"alpha": 1.0, "rates": (1e-4, 1e-4)}),
    **{"maze2d": LAGRANGE, "antmaze": LAGRANGE | ANTMAZE},
}


@pytest.mark.parametrize("name", [name for name in PRESETS if domain(name) != "kitchen"])
def test_settings_equal_corls_of_the_domain(name: str):
    assert summary(name) == SETTINGS[domain(name)]


def test_the_kitchen_has_the_default_settings():
    config = preset("kitchen-mixed-v0")
    default = settings("env=kitchen", "dataset=d4rl", "evaluation=none")
    cql = default.cql.model_copy(update={"decay_until": config.updates})
    assert (config.cql, config.network) == (cql, default.network)


def test_the_command_line_wins_over_a_preset():
    hopper = ("experiment=d4rl/locomotion", "env=hopper")
    config = settings(*hopper, "cql.alpha=5", "updates=10")
    assert (config.cql.alpha, config.updates) == (5.0, 10)
    config = settings(*hopper, "cql=paper", "dataset.quality=random")
    assert (config.cql.name, config.dataset.id) == ("paper", "hopper-random-v2")


def test_a_mistyped_preset_is_refused_with_a_similar_name():
    arguments = ["experiment=d4rl/locomotoin"]
    with pytest.raises(ConfigError, match="did you mean experiment/d4rl=locomotion"):
        check(arguments, schema=TrainConfig, entry_point=CONF.parent / "train.py")


# --- dataset=d4rl without a preset -----------------------------------------------------------


def test_environment_and_quality_determine_the_task_and_d4rls_simulator():
    config = settings("env=hopper", "dataset=d4rl", "dataset.quality=medium-replay")
    assert (config.dataset.id, simulator(config)) == ("hopper-medium-replay-v2", "Hopper-v4")
    other = settings("env=hopper", "dataset=d4rl", "dataset.id=hopper-medium-v0")
    assert (other.dataset.id, other.dataset.name) == ("hopper-medium-v0", "d4rl-hopper-medium-v0")
    logged = settings("env=logged", "dataset=d4rl", "dataset.id=carla-lane-v0")
    assert (logged.dataset.id, simulator(logged)) == ("carla-lane-v0", None)


@pytest.fixture
def local(tmp_path, monkeypatch) -> Path:
    """Write a small hopper-medium-replay-v2, three and a half episodes, to $D4RL_DATASET_DIR."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "d4rl").mkdir()
    generator, size = np.random.default_rng(0), 350
    with h5py.File(tmp_path / "d4rl" / "hopper_medium_replay-v2.hdf5", "w") as file:
        file["observations"] = generator.normal(size=(size, 11)).astype(np.float32)
        file["actions"] = generator.uniform(-1, 1, (size, 3)).astype(np.float32)
        file["rewards"] = np.ones((size, 1), np.float32)
        file["terminals"] = np.arange(size) == 98
        file["timeouts"] = np.isin(np.arange(size), (198, 298))
        file["metadata/algorithm"] = "SAC"
    return tmp_path


def test_a_file_of_other_sizes_than_the_simulators_is_refused(local: Path):
    path = local / "d4rl" / "hopper_medium_replay-v2.hdf5"
    config = settings("env=halfcheetah", "dataset=d4rl", f"dataset.path={path}")
    with pytest.raises(
        DataError, match="observations of 11 and actions of 3 numbers; the simulator"
    ):
        load_transitions(config.env, config.dataset)
    config = settings("env=logged", "dataset=d4rl", f"dataset.path={path}")
    transitions = load_transitions(config.env, config.dataset)
    assert (transitions.dataset_id, len(transitions)) == ("hopper_medium_replay-v2", 347)


def test_a_local_file_is_trained_on_and_evaluated(local: Path):
    arguments = [
        *(setting for setting in TINY if not setting.startswith(("dataset.", "evaluation"))),
        *("env=hopper", "dataset=d4rl", "dataset.quality=medium-replay", "updates=20"),
        *("evaluation.episodes=1", "evaluation.environments=1", f"run_dir={local / 'run'}"),
    ]
    done = run_entry_point("train", *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads((local / "run" / "metadata.json").read_text())
    result = json.loads((local / "run" / "result.json").read_text())
    assert record["dataset"]["id"] == "hopper-medium-replay-v2"
    assert (result["status"], result["episodes"]) == ("finished", 1)
    assert result["behavior_return"] == 99  # of the three whole episodes
    span = 3234.3 - -20.272305
    score = 100 * (result["return_mean"] - -20.272305) / span
    assert result["normalized_score"] == pytest.approx(score)
