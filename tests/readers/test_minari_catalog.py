"""Every data set of the remote catalog has a command, and every task's simulator can be made."""

import pytest
from support.config import CONF, compose_config, settings

from offline_cql.readers.minari.download import catalog
from offline_cql.simulation.environments import make_environments, spaces_of

ENVIRONMENTS = sorted(path.stem for path in CONF.glob("env/*.yaml") if path.stem != "base")
QUALITIES = (
    *("random", "simple", "medium", "expert", "human", "cloned"),
    *("complete", "partial", "mixed", "fourrooms", "fourrooms-random"),
)
# No task of their own: env=logged dataset.id=…
BY_ID = {
    *("atari/breakout/expert-v0", "atari/pong/expert-v0"),
    *("minigrid/BabyAI-GoToLocal/optimal-v0", "minigrid/BabyAI-GoToLocal/optimal-fullobs-v0"),
    *("D4RL/kitchen/complete-v1", "D4RL/kitchen/mixed-v1", "D4RL/kitchen/partial-v1"),
}
# Observations, actions, whether discrete: of the simulator, as the data have them.
SIZES = {
    "ant": (105, 8, False),
    "antmaze_large_diverse": (31, 8, False),
    "antmaze_large_play": (31, 8, False),
    "antmaze_medium_diverse": (31, 8, False),
    "antmaze_medium_play": (31, 8, False),
    "antmaze_umaze": (31, 8, False),
    "antmaze_umaze_diverse": (31, 8, False),
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


def named() -> dict[str, str]:
    """Data set id to the simulator of the task that names it."""
    found = {}
    for env in ENVIRONMENTS:
        if compose_config(f"env={env}").env.minari_id is None:
            continue
        config = compose_config(f"env={env}", "dataset=minari")
        for quality in QUALITIES:
            config.dataset.quality = quality
            found[str(config.dataset.id)] = str(config.env.id)
    return found


def test_every_id_of_the_catalogue_is_named_by_a_task():
    known, tasks = catalog(), named()
    assert set(known) - set(tasks) == BY_ID
    for name in set(known) & set(tasks):
        assert tasks[name] == known[name]["env"]


def test_a_quality_finds_the_data_set():
    config = settings("env=hopper", "dataset=minari", "dataset.quality=medium")
    assert (config.dataset.id, config.env.id) == ("mujoco/hopper/medium-v0", "Hopper-v5")
    entry_point = settings("env=door", "dataset=minari", "dataset.quality=human")
    assert entry_point.dataset.id == "D4RL/door/human-v2"
    assert settings("env=pointmaze_large_dense", "dataset=minari").dataset.id == (
        "D4RL/pointmaze/large-dense-v2"
    )


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_any_other_is_reached_by_its_id(name):
    config = settings("env=logged", "dataset=minari", f"dataset.id={name}", "evaluation=none")
    assert config.dataset.id == name


def test_every_task_has_a_size_here():
    assert set(SIZES) == set(ENVIRONMENTS) - {"logged"}


@pytest.mark.parametrize("env", sorted(SIZES))
def test_a_tasks_simulator_can_be_made(env):
    config = compose_config(f"env={env}").env
    (simulator,) = make_environments(config.id, 1, observation_keys=config.observation_keys)
    spaces = spaces_of(simulator)
    assert (spaces.observation_dim, spaces.action_dim, spaces.discrete) == SIZES[env]
    assert simulator.reset(seed=0)[0].shape == (spaces.observation_dim,)
    simulator.close()
