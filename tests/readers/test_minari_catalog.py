"""Guarantee: every data set of Minari's catalog has a command; every simulator can be made."""

import pytest
from support.config import CONF, compose_config, settings

from offline_cql.readers.minari.download import catalog
from offline_cql.simulation.environments import make_environments, spaces_of

ENVIRONMENTS = sorted({path.stem for path in CONF.glob("env/*.yaml")} - {"base", "gymnasium"})
QUALITIES = (
    *("random", "simple", "medium", "expert", "human", "cloned"),
    *("complete", "partial", "mixed", "fourrooms", "fourrooms-random"),
)
# Data sets without a task in conf/env: they are read with env=logged dataset.id=…
BY_ID = {
    *("atari/breakout/expert-v0", "atari/pong/expert-v0"),
    *("minigrid/BabyAI-GoToLocal/optimal-v0", "minigrid/BabyAI-GoToLocal/optimal-fullobs-v0"),
    *("D4RL/kitchen/complete-v1", "D4RL/kitchen/mixed-v1", "D4RL/kitchen/partial-v1"),
}
# Observation dimensions, action dimensions (or actions), discrete: of the simulator and the data.
SIZES = {
    "ant": (105, 8, False),
    **{f"antmaze_{x}": (31, 8, False) for x in ("umaze", "umaze_diverse")},
    **{f"antmaze_{x}_diverse": (31, 8, False) for x in ("large", "medium")},
    **{f"antmaze_{x}_play": (31, 8, False) for x in ("large", "medium")},
    "cartpole": (4, 2, True),
    "door": (39, 28, False),
    "fourrooms": (151, 7, True),
    "halfcheetah": (17, 6, False),
    "hammer": (46, 26, False),
    "hopper": (11, 3, False),
    "humanoid": (348, 17, False),
    "humanoidstandup": (348, 17, False),
    "inverted_double_pendulum": (9, 1, False),
    "inverted_pendulum": (4, 1, False),
    "kitchen": (59, 9, False),
    "kitchen_mixed": (59, 9, False),
    "pen": (45, 24, False),
    "pendulum": (3, 1, False),
    **{f"pointmaze_{x}": (8, 2, False) for x in ("open", "umaze", "medium", "large")},
    **{f"pointmaze_{x}_dense": (8, 2, False) for x in ("open", "umaze", "medium", "large")},
    "pusher": (23, 7, False),
    "reacher": (10, 2, False),
    "relocate": (39, 30, False),
    "swimmer": (8, 2, False),
    "walker2d": (17, 6, False),
}


def simulators_by_dataset() -> dict[str, str]:
    """Return the simulator of the task that names a data set, by data set id."""
    simulators = {}
    for env in ENVIRONMENTS:
        if compose_config(f"env={env}").env.minari_id is None:
            continue
        config = compose_config(f"env={env}", "dataset=minari")
        for quality in QUALITIES:
            config.dataset.quality = quality
            simulators[str(config.dataset.id)] = str(config.env.id)
    return simulators


def test_every_id_of_the_catalog_is_named_by_a_task():
    datasets, simulators = catalog(), simulators_by_dataset()
    assert set(datasets) - set(simulators) == BY_ID
    for name in set(datasets) & set(simulators):
        assert simulators[name] == datasets[name]["env"]


def test_environment_and_quality_determine_the_id():
    config = settings("env=hopper", "dataset=minari", "dataset.quality=medium")
    assert (config.dataset.id, config.env.id) == ("mujoco/hopper/medium-v0", "Hopper-v5")
    config = settings("env=door", "dataset=minari", "dataset.quality=human")
    assert config.dataset.id == "D4RL/door/human-v2"
    assert settings("env=pointmaze_large_dense", "dataset=minari").dataset.id == (
        "D4RL/pointmaze/large-dense-v2"
    )


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_a_data_set_without_a_task_is_named_by_its_id(name):
    config = settings("env=logged", "dataset=minari", f"dataset.id={name}", "evaluation=none")
    assert config.dataset.id == name


def test_sizes_are_listed_for_every_task():
    assert set(SIZES) == set(ENVIRONMENTS) - {"logged"}


@pytest.mark.parametrize("env", sorted(SIZES))
def test_a_tasks_simulator_has_the_sizes_of_its_data(env):
    config = compose_config(f"env={env}").env
    (simulator,) = make_environments(config.id, 1, observation_keys=config.observation_keys)
    spaces = spaces_of(simulator)
    assert (spaces.observation_dim, spaces.action_dim, spaces.discrete) == SIZES[env]
    assert simulator.reset(seed=0)[0].shape == (spaces.observation_dim,)
    simulator.close()
