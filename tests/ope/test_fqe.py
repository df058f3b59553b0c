"""Promise: fitted Q evaluation finds a known value and says how sure it is of it."""

import numpy as np
import pytest
import torch
from support.builders import continuous_data
from support.tables import Process, logged, random_process

from offline_cql.ope.estimate import episode_draws, spread
from offline_cql.ope.fqe import FittedQ, FqeSettings, PolicyActions, policy_actions
from offline_cql.transitions import Spaces, Transitions

SMALL = {
    "ensemble_size": 10,
    "hidden": [],
    "updates": 1_500,
    "batch_size": 128,
    "learning_rate": 0.01,
    "polyak": 0.05,
    "seed": 0,
}


def table_actions(process: Process, data: Transitions) -> PolicyActions:
    """What the process's policy does in the data's states."""
    policy = torch.from_numpy(process.policy)
    return policy_actions(data, lambda observation: policy[observation.argmax(dim=1)])


def test_the_interval_covers_a_known_value():
    process = random_process(0)
    data, _ = logged(process, seed=0, episodes=150)
    found = (
        FittedQ(data, table_actions(process, data), FqeSettings(**SMALL, gamma=process.gamma))
        .fit()
        .estimate()
    )
    assert found.low < process.truth < found.high
    assert found.high - found.low < 2.5


def test_two_steps_by_hand():
    """State 0 pays 1 and leads to state 1, which pays 3 and ends: 1 + 0.5 · 3 = 2.5.

    The other action pays −5 everywhere; the data show both, the policy never takes it.
    """
    rows = [(0, 0, 1.0, 1, False), (1, 0, 3.0, 1, True), (0, 1, -5.0, 0, True)] * 20
    state, action, reward, after, terminal = (np.array(c) for c in zip(*rows, strict=True))
    one_hot = np.eye(2, dtype=np.float32)
    data = Transitions.pack(
        observations=one_hot[state],
        actions=action,
        rewards=reward,
        next_observations=one_hot[after],
        terminated=terminal,
        episodes=np.repeat(np.arange(40), [2, 1] * 20),
        spaces=Spaces(2, 2, True, (), ()),
        dataset_id="test/two-v0",
    )
    always = policy_actions(
        data, lambda observation: torch.zeros(len(observation), dtype=torch.long)
    )
    found = FittedQ(data, always, FqeSettings(**SMALL, gamma=0.5)).fit().estimate()
    assert found.value == pytest.approx(2.5, abs=0.05)


def test_values_keep_the_rewards_units():
    """Rewards times 1,000 give the value times 1,000."""
    process = random_process(3)
    data, _ = logged(process, seed=0, episodes=50)
    actions = table_actions(process, data)
    settings = FqeSettings(**{**SMALL, "updates": 300}, gamma=process.gamma)
    small = FittedQ(data, actions, settings).fit().estimate()
    data.rows[:, data.columns.reward] *= 1_000
    large = FittedQ(data, actions, settings).fit().estimate()
    assert large.value == pytest.approx(1_000 * small.value, rel=0.01)


def test_continuous_actions_are_evaluated_too():
    data = continuous_data(64)
    settings = FqeSettings(**{**SMALL, "updates": 20, "hidden": [8]}, gamma=0.9)
    found = (
        FittedQ(
            data,
            policy_actions(data, lambda observation: torch.zeros(len(observation), 2)),
            settings,
        )
        .fit()
        .estimate()
    )
    assert found.low < found.value < found.high


def test_the_same_seed_gives_the_same_estimate():
    process = random_process(3)
    data, _ = logged(process, seed=0, episodes=20)
    settings = FqeSettings(**{**SMALL, "updates": 20}, gamma=process.gamma)
    actions = table_actions(process, data)
    first, second = (FittedQ(data, actions, settings).fit().estimate() for _ in range(2))
    assert first == second


def test_draws_are_as_many_as_episodes():
    draws = episode_draws(7, 5, np.random.default_rng(0))
    assert draws.shape == (5, 7)
    assert draws.sum(axis=1).tolist() == [7.0] * 5
    assert len({tuple(row) for row in draws.tolist()}) > 1


def test_an_interval_is_students_t_about_the_mean():
    """Five replicates with mean 2 and standard deviation 1: 2 ± 2.776."""
    low, high = spread(np.array([2.0, 2.0, 2.0, 2.0 - 2**0.5, 2.0 + 2**0.5]))[1:]
    assert (low, high) == (pytest.approx(2 - 2.776, abs=1e-3), pytest.approx(2 + 2.776, abs=1e-3))
