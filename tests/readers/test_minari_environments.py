"""Guarantee: rows that Minari's own collector stored equal the observations of our simulators.

Both run the same environment with the same seed and actions.
"""

import gymnasium as gym
import minari
import numpy as np
import pytest
from support import envs

from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader
from offline_cql.simulation.environments import make_environments, spaces_of
from offline_cql.simulation.rollouts import roll_out

NAME = "sim/tiny/collected-v0"
SEEDS = (4, 11, 2)

pytestmark = pytest.mark.filterwarnings("ignore")  # Minari asks for an author

TEXT = gym.spaces.Text(60)  # minigrid's mission space cannot be stored
CASES = [
    ("Pendulum-v1", None, 12),
    ("CartPole-v1", None, 12),
    ("Nested-v0", None, 4),
    ("Nested-v0", ["goal"], 4),
    ("PointMaze_UMaze-v3", None, 12),
    ("PointMaze_UMaze-v3", ["observation"], 12),
    ("AntMaze_UMaze-v4", ["achieved_goal", "observation"], 6),
    ("FrankaKitchen-v1", None, 4),
    ("MiniGrid-FourRooms-v0", None, 12),
    ("MiniGrid-FourRooms-v0", ["image"], 12),
]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))


def raw(env_id):
    """Return the environment that Gymnasium makes, after our package registered it."""
    (flat,) = make_environments(env_id, 1)
    flat.close()
    return gym.make(env_id)


def collect(env_id, steps, data_format):
    """Record episodes with Minari's collector; return the actions [E, T, ...] of each."""
    env = raw(env_id)
    space = env.observation_space
    if "MiniGrid" in env_id:
        space = gym.spaces.Dict({**space.spaces, "mission": TEXT})
        # Its rewards are int 0 or float, which Minari's own Arrow reader cannot join.
        env = gym.wrappers.TransformReward(env, float)
    collector = minari.DataCollector(env, observation_space=space, data_format=data_format)
    env.action_space.seed(0)
    actions = []
    for seed in SEEDS:
        collector.reset(seed=seed)
        actions.append([env.action_space.sample() for _ in range(steps)])
        for action in actions[-1]:
            _, _, terminated, truncated, _ = collector.step(action)
            if terminated or truncated:
                break
    collector.create_dataset(dataset_id=NAME, eval_env=env_id)
    collector.close()
    return actions


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(("env_id", "keys", "steps"), CASES)
def test_stored_rows_equal_the_simulators(env_id, keys, steps, data_format):
    actions = collect(env_id, steps, data_format)
    data = load(MinariReader(NAME, observation_keys=keys))
    (simulator,) = make_environments(env_id, 1, observation_keys=keys)
    assert spaces_of(simulator) == data.spaces
    assert len(data.ends) == len(SEEDS)
    row = 0
    for seed, episode in zip(SEEDS, actions, strict=True):
        observation, _ = simulator.reset(seed=seed)
        for action in episode[: data.lengths[SEEDS.index(seed)]]:
            np.testing.assert_array_equal(data.observations[row], np.float32(observation))
            observation, reward, terminated, _, _ = simulator.step(action)
            np.testing.assert_array_equal(data.next_observations[row], np.float32(observation))
            assert data.rewards[row] == np.float32(reward)
            assert data.terminated[row] == terminated
            row += 1
    assert row == len(data)
    simulator.close()


def test_an_observation_equals_gymnasiums_flatten():
    """Text, which Gymnasium would flatten too, is left out."""
    for env_id in ("PointMaze_UMaze-v3", "FrankaKitchen-v1", "Nested-v0"):
        env = raw(env_id)
        (flat,) = make_environments(env_id, 1)
        parts = {k: s for k, s in env.observation_space.spaces.items() if k != "mission"}
        space = gym.spaces.Dict(parts)
        expected = gym.spaces.utils.flatten(space, {k: env.reset(seed=3)[0][k] for k in parts})
        np.testing.assert_array_equal(flat.reset(seed=3)[0], expected)


def test_the_ant_in_the_maze_has_d4rls_29_numbers():
    """The position, then the 27 numbers of the key observation: qpos and qvel, in order."""
    keys = ["achieved_goal", "observation"]
    (env,) = make_environments("AntMaze_UMaze-v4", 1, observation_keys=keys)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        observation = env.step(env.action_space.sample())[0]
    data = env.unwrapped.ant_env.data
    np.testing.assert_array_equal(observation, np.concatenate([data.qpos[:15], data.qvel[:14]]))


def test_rollouts_of_a_nested_simulator_are_flat():
    (env,) = make_environments("Nested-v0", 1)

    def policy(observations, indices, starts):
        return np.zeros(len(observations), np.int64)

    (episode,) = roll_out([env], policy, seed=0, episodes_each=1)
    expected = [envs.nested_row(episode.seed % 1000, time) for time in range(5)]
    np.testing.assert_array_equal(episode.observations, expected)
