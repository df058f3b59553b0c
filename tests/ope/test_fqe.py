"""Guarantee: fitted Q evaluation recovers known values, with an interval that covers them."""

from typing import Any

import numpy as np
import pytest
import torch
from support.builders import continuous_data
from support.tables import Process, log_episodes, random_process

from offline_cql.config import OpeConfig
from offline_cql.ope.estimate import Estimate
from offline_cql.ope.fqe import DeterministicPolicy, FittedQEvaluation
from offline_cql.transitions import Spaces, Transitions

SMALL: dict[str, Any] = {
    **{"method": "fqe", "ensemble_size": 10, "hidden": [], "updates": 1_500, "batch_size": 128},
    **{"learning_rate": 0.01, "polyak": 0.05, "seed": 0},
}


def fqe(data: Transitions, policy: DeterministicPolicy, gamma: float, **settings: Any) -> Estimate:
    ope = OpeConfig(**SMALL | settings)
    return FittedQEvaluation(data, policy, ope, gamma=gamma).fit().estimate()


def policy_of(process: Process) -> DeterministicPolicy:
    """Return the process's policy as a function of one-hot states."""
    actions = torch.from_numpy(process.policy)
    return lambda observation: actions[observation.argmax(dim=1)]


def test_the_interval_covers_a_known_value():
    process = random_process(0)
    data, _ = log_episodes(process, seed=0, episodes=150)
    estimate = fqe(data, policy_of(process), gamma=process.gamma)
    assert estimate.low < process.value < estimate.high
    assert estimate.high - estimate.low < 2.5


def test_two_steps_by_hand():
    """State 0 pays 1 and leads to state 1, which pays 3 and ends: 1 + 0.5 · 3 = 2.5.

    The other action pays −5 everywhere; the data contain both, the policy never takes it.
    """
    rows = [(0, 0, 1.0, 1, False), (1, 0, 3.0, 1, True), (0, 1, -5.0, 0, True)] * 20
    state, action, reward, next_state, terminated = (np.array(c) for c in zip(*rows, strict=True))
    one_hot = np.eye(2, dtype=np.float32)
    data = Transitions.pack(
        observations=one_hot[state],
        actions=action,
        rewards=reward,
        next_observations=one_hot[next_state],
        terminated=terminated,
        episodes=np.repeat(np.arange(40), [2, 1] * 20),
        spaces=Spaces(2, 2, True, (), ()),
        dataset_id="test/two-v0",
    )

    def action_zero(observation: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(observation), dtype=torch.long)

    assert fqe(data, action_zero, gamma=0.5).value == pytest.approx(2.5, abs=0.05)


def test_values_scale_with_the_rewards():
    """Rewards times 1,000 give the value times 1,000."""
    process = random_process(3)
    data, _ = log_episodes(process, seed=0, episodes=50)
    small = fqe(data, policy_of(process), gamma=process.gamma, updates=300)
    data.rows[:, data.columns.reward] *= 1_000
    large = fqe(data, policy_of(process), gamma=process.gamma, updates=300)
    assert large.value == pytest.approx(1_000 * small.value, rel=0.01)


def test_continuous_actions_have_an_estimate():
    data = continuous_data(64)
    small = {"updates": 20, "hidden": [8]}
    estimate = fqe(data, lambda states: torch.zeros(len(states), 2), gamma=0.9, **small)
    assert estimate.low < estimate.value < estimate.high


def test_the_same_seed_gives_the_same_estimate():
    process = random_process(3)
    data, _ = log_episodes(process, seed=0, episodes=20)
    options = {"gamma": process.gamma, "updates": 20}
    first, second = (fqe(data, policy_of(process), **options) for _ in range(2))
    assert first == second
