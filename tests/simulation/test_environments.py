"""Guarantee: rollouts have fixed quotas and repeatable seeds; NaN and infinity are errors."""

import subprocess
import sys
from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
from support.config import settings
from support.envs import Marker, episode_length

from offline_cql.commands.load_data import simulator_settings
from offline_cql.errors import ConfigError, DataError, PolicyError, SimulatorError
from offline_cql.simulation.environments import make_environments, make_simulators
from offline_cql.simulation.rollouts import roll_out
from offline_cql.spaces import FlatObservation, PartObservation, flat_spaces, layout


def constant_policy(observations, indices, starts):
    """Return the center of Marker's action space for every environment."""
    return np.tile(np.array([1, 1], np.float32), (len(observations), 1))


def roll_out_markers(count, policy=constant_policy, **options):
    return roll_out(make_environments("Marker-v0", count), policy, **options)


def d4rl_simulator(env):
    """Return the simulator that gives the observations of D4RL's data."""
    pytest.importorskip("gymnasium_robotics")
    config = settings(f"env={env}", "dataset=d4rl")
    (environment,) = make_simulators(simulator_settings(config.env, config.dataset), 1)
    return environment


def test_every_environment_runs_its_quota_of_episodes():
    """An environment with short episodes runs no more of them than the others."""
    episodes = roll_out_markers(6, seed=0, episodes_each=3)
    assert len(episodes) == 18
    assert len({len(e) for e in episodes}) == 2
    assert all(len(e) == episode_length(e.seed) for e in episodes)
    first = [e.seed for e in roll_out([Marker()], constant_policy, seed=0, episodes_each=3)]
    assert [e.seed for e in episodes[:3]] == first  # in order of environment, then of time


def test_observations_and_rewards_belong_to_their_episode_and_step():
    for episode in roll_out_markers(3, seed=4, episodes_each=4):
        steps = len(episode)
        np.testing.assert_array_equal(episode.observations[:, 0], episode.seed % 1000)
        np.testing.assert_array_equal(episode.observations[:, 1], np.arange(steps + 1))
        np.testing.assert_array_equal(episode.rewards, np.arange(1, steps + 1))
        assert episode.return_ == steps * (steps + 1) / 2
        assert episode.actions.shape == (steps, 2)
        assert episode.observations.dtype == np.float64


def test_time_limits_truncate_and_terminal_states_terminate():
    for episode in roll_out_markers(4, seed=1, episodes_each=3):
        assert not episode.terminated[:-1].any()
        assert not episode.truncated[:-1].any()
        assert bool(episode.terminated[-1]) == (episode.seed % 2 == 0)
        assert bool(episode.truncated[-1]) == (episode.seed % 2 == 1)
        assert not episode.cut


def test_every_environment_makes_its_quota_of_steps():
    episodes = roll_out_markers(3, seed=0, steps_each=[5, 17, 0])
    boundary = next(k for k in range(len(episodes)) if sum(map(len, episodes[: k + 1])) == 5)
    assert sum(map(len, episodes)) == 22
    last = episodes[boundary]
    assert len(last) < episode_length(last.seed) or not last.cut


def test_the_last_episode_is_truncated_at_the_quota():
    """Odd seeds make 7 steps, so 3 steps are never the end of such an episode."""
    for seed in range(8):
        (*_, last) = roll_out([Marker()], constant_policy, seed=seed, steps_each=3)
        if last.cut:
            assert last.truncated[-1]
            assert not last.terminated[-1]
            return
    raise AssertionError("no episode was cut")


def test_the_policy_is_called_once_per_step_with_the_running_environments():
    calls = []

    def policy(observations, indices, starts):
        calls.append((indices.tolist(), starts.tolist(), observations.dtype))
        return constant_policy(observations, indices, starts)

    progress = []
    note = {"on_step": lambda *counts: progress.append(counts)}
    episodes = roll_out([Marker(), Marker()], policy, seed=0, steps_each=[1, 3], **note)
    assert [indices for indices, _, _ in calls] == [[0, 1], [1], [1]]
    assert calls[0][1] == [True, True]
    assert calls[1][1] == [False]
    assert {dtype for *_, dtype in calls} == {np.dtype(np.float32)}
    assert [steps for steps, _ in progress] == [2, 1, 1]
    assert sum(ended for _, ended in progress) == len(episodes)


def test_starts_mark_exactly_the_first_steps():
    flags = []

    def policy(observations, indices, starts):
        flags.extend(zip(observations[:, 1] == 0, starts, strict=True))
        return constant_policy(observations, indices, starts)

    roll_out_markers(3, policy, seed=2, episodes_each=3)
    assert all(first == start for first, start in flags)
    assert sum(start for _, start in flags) == 9


def test_seeds_repeat_and_differ_between_environments_episodes_and_runs():
    def seeds(seed):
        return [episode.seed for episode in roll_out_markers(3, seed=seed, episodes_each=3)]

    assert seeds(0) == seeds(0)
    assert len(set(seeds(0) + seeds(1))) == 18


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.1, -1.1])
def test_a_non_finite_or_out_of_bounds_action_fails(value):
    def policy(observations, indices, starts):
        actions = constant_policy(observations, indices, starts)
        actions[-1, 0] = value
        return actions

    with pytest.raises(PolicyError, match=r"environment 1, episode 0, step 0.*is not within"):
        roll_out([Marker(), Marker()], policy, seed=0, steps_each=2)


def test_an_action_of_the_wrong_shape_fails():
    with pytest.raises(PolicyError, match=r"\(1,\), expected \(1, 2\)"):
        roll_out([Marker()], lambda *_: np.zeros(1, np.float32), seed=0, steps_each=2)


@pytest.mark.parametrize("actions", [np.array([2]), np.array([-1]), np.array([0.5])])
def test_an_invalid_discrete_action_fails(actions):
    with pytest.raises(PolicyError):
        roll_out(make_environments("CartPole-v1", 1), lambda *_: actions, seed=0, steps_each=2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "step 1, .*raised in step.*the simulator broke"),
        ("observation", "step 2, .*NaN"),
        ("reward", "step 1, .*reward inf"),
    ],
)
@pytest.mark.parametrize("steps", [2, 5])  # the fault at the very end of the quota, and inside
def test_a_simulator_error_names_environment_and_step(fault, message, steps):
    """Seed 1 draws odd reset seeds: episodes of 7 steps, so that step 5 lies inside one."""
    with pytest.raises(SimulatorError, match=message):
        roll_out([Marker(fault)], constant_policy, seed=1, steps_each=steps)


def test_an_unknown_environment_is_named():
    with pytest.raises(ConfigError, match="Pendulom-v1"):
        make_environments("Pendulom-v1", 1)


BOX = gym.spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (gym.spaces.Sequence(BOX), BOX, "observation space Sequence.* is not supported"),
        (gym.spaces.Text(5), BOX, "holds no numbers"),
        (gym.spaces.Dict({}), BOX, "holds no numbers"),
        (BOX, gym.spaces.MultiDiscrete([2, 2]), "flat Box .* of floats and a Discrete"),
        (BOX, gym.spaces.Box(0, 3, (1,), np.int64), "flat Box .* of floats"),
        (BOX, gym.spaces.Box(-np.inf, np.inf, (1,)), "must be finite"),
        (BOX, gym.spaces.Discrete(3, start=1), "a Discrete from 0 are: wrap"),
    ],
)
def test_unsupported_spaces_are_refused(observation, action, message):
    with pytest.raises(DataError, match=message):
        flat_spaces(observation, action)


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (gym.spaces.Box(0, 255, (8, 6, 3), np.uint8), 144),
        (gym.spaces.Discrete(5), 5),
        (gym.spaces.MultiDiscrete([2, 3]), 5),
        (gym.spaces.MultiBinary((2, 2)), 4),
        (gym.spaces.Tuple((BOX, gym.spaces.Discrete(3))), 5),
        (gym.spaces.Dict({"b": BOX, "a": gym.spaces.Dict({"c": BOX})}), 4),
    ],
)
def test_flat_observations_equal_gymnasiums_flatten(space, size):
    """Sizes, and the same numbers as Gymnasium's own flatten."""
    assert flat_spaces(space, BOX).observation_dim == size
    space.seed(1)
    for _ in range(3):
        sample = space.sample()
        row = layout(space).row(sample)
        np.testing.assert_array_equal(row, gym.spaces.utils.flatten(space, sample))
        assert (row.dtype == np.uint8) == (space.dtype == np.uint8)


def test_keys_are_in_alphabetical_order_also_for_an_ordered_dict():
    """Gymnasium keeps the order of an OrderedDict; a stored data set does not."""
    space = gym.spaces.Dict(OrderedDict(b=gym.spaces.Discrete(2), a=gym.spaces.Discrete(3)))
    assert list(space.spaces) == ["b", "a"]
    assert layout(space).row({"b": 1, "a": 0}).tolist() == [1, 0, 0, 0, 1]


def test_an_environment_with_plain_observations_is_not_wrapped():
    (env,) = make_environments("Marker-v0", 1)
    assert not isinstance(env, FlatObservation)


def test_arguments_reach_the_environment():
    (env,) = make_environments("Marker-v0", 1, arguments={"fault": "raise"})
    assert env.unwrapped.fault == "raise"
    with pytest.raises(SimulatorError, match=r"Marker-v0.*unexpected keyword"):
        make_environments("Marker-v0", 1, arguments={"flaw": "raise"})


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("PointMaze_UMaze-v3", "gymnasium_robotics", "robotics"),
        ("MiniGrid-FourRooms-v0", "minigrid", "minigrid"),
    ],
)
def test_a_missing_package_is_named_with_the_command(env_id, package, extra):
    code = f"""
import sys
sys.modules[{package!r}] = None
from offline_cql.simulation.environments import make_environments
make_environments({env_id!r}, 1)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = process.stderr.strip().splitlines()[-1]
    assert f"packages that may have it: pip install 'offline-cql[{extra}]'" in last
    assert "ConfigError" in last
    assert env_id.split("-v")[0] in last


def test_a_shift_moves_the_first_numbers_of_every_observation():
    (env,) = make_environments("Marker-v0", 1, shift=[100.0])
    (episode,) = roll_out([env], constant_policy, seed=0, episodes_each=1)
    np.testing.assert_array_equal(episode.observations[:, 0], episode.seed % 1000 + 100)
    np.testing.assert_array_equal(episode.observations[:, 1], np.arange(len(episode) + 1))


def test_the_shifted_antmaze_has_d4rls_start_and_goal():
    """The ant starts near (0, 0) and the goal lies near (0, 8), within a cell's noise of 1."""
    maze = [[1, 1, 1, 1, 1], [1, "g", 0, 0, 1], [1, 1, 1, 0, 1], [1, "r", 0, 0, 1], [1, 1, 1, 1, 1]]
    (env,) = make_environments(
        "AntMaze_UMaze-v4",
        1,
        observation_keys=["achieved_goal", "observation"],
        shift=[4.0, 4.0],
        arguments={"maze_map": maze, "continuing_task": False},
    )
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        assert np.abs(observation[:2]).max() <= 1.2
        goal = env.unwrapped.goal
        assert np.abs(goal + 4 - [0, 8]).max() <= 1
    ant = env.unwrapped.ant_env
    ant.set_state(np.concatenate([goal, ant.data.qpos[2:]]), ant.data.qvel)
    _, reward, terminated, _, _ = env.step(np.zeros(8, np.float32))
    assert (reward, terminated) == (1.0, True)


# --- Simulators with D4RL's observations ----------------------------------------------------------

MAZE = ["#####", "#GOO#", "###O#", "#OOO#", "#####"]  # of maze2d-umaze: rows along x


def test_the_pointmaze_has_its_free_cells_where_d4rls_data_have_them():
    """A cell's center is at its row and column less 0.2; starts lie within 0.25 of it."""
    environment = d4rl_simulator("pointmaze_umaze")
    cells = set()
    for seed in range(60):
        observation, _ = environment.reset(seed=seed)
        assert observation.shape == (4,)
        position = observation[:2] + 0.2
        cell = np.rint(position).astype(int)
        assert np.abs(position - cell).max() <= 0.2501
        cells.add(tuple(cell.tolist()))
    environment.close()
    free = {(x, y) for x in range(5) for y in range(5) if MAZE[x][y] == "O"}
    assert cells == free


@pytest.mark.parametrize(("env", "fourth"), [("kitchen", 19), ("kitchen_mixed", 11)])
def test_the_kitchen_of_d4rl_gives_positions_and_the_goal(env: str, fourth: int):
    """9 joints, 21 positions of objects, 30 numbers of the goal; the arm starts as D4RL's does."""
    environment = d4rl_simulator(env)
    observation, _ = environment.reset(seed=0)
    environment.close()
    assert observation.shape == (60,)
    assert environment.observation_space.shape == (60,)
    start = [0.148, -1.768, 1.844, -2.477, 0.260, 0.713, 1.595, 0.048, 0.037]
    assert np.allclose(observation[:9], start, atol=0.01)
    assert observation[23:26] == pytest.approx([-0.269, 0.35, 1.619], abs=0.01)  # the kettle
    goal = observation[30:]
    assert goal[22] == -0.75
    assert goal[fourth] != 0
    assert (goal != 0).sum() == (9 if env == "kitchen" else 10)


def test_selected_columns_and_constants_are_in_order():
    (environment,) = make_environments("Pendulum-v1", 1)
    part = PartObservation(environment, [2, 0], [7.0])
    whole, _ = environment.reset(seed=1)
    observation, _ = part.reset(seed=1)
    assert observation.tolist() == [whole[2], whole[0], 7.0]
    assert part.observation_space.contains(observation)
