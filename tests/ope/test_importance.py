"""Promise: episodes count by how much likelier the policy was to act so; intervals are honest."""

import numpy as np
import pytest
from support.tables import logged, random_process

from offline_cql.ope.importance import (
    cumulative_ratios,
    doubly_robust,
    effective_sample_size,
    weighted_importance_sampling,
)

HALF = np.array([0.5, 0.5, 0.5])
ENDS = np.array([2, 3])  # episodes of two steps and of one


def test_ratios_multiply_within_an_episode_alone():
    """π/β = 2, 2 | 0.5 gives 2, 4 | 0.5."""
    ratios = cumulative_ratios(np.array([1.0, 1.0, 0.25]), HALF, ENDS)
    assert ratios.tolist() == [2.0, 4.0, 0.5]


def test_weighted_importance_sampling_by_hand():
    """Step 0: (2·1 + 0.5·3) / 2.5 = 1.4. Step 1: (4·10 + 0.5·0) / 4.5; discounted by 0.5."""
    found = weighted_importance_sampling(
        np.array([1.0, 10.0, 3.0]),
        np.array([1.0, 1.0, 0.25]),
        HALF,
        ENDS,
        gamma=0.5,
        seed=0,
    )
    assert found.value == pytest.approx(1.4 + 0.5 * 40 / 4.5)
    assert found.method == "wis"


def test_the_behaviors_own_value_is_its_mean_return():
    rewards = np.array([1.0, 2.0, 6.0])
    found = weighted_importance_sampling(rewards, HALF, HALF, ENDS, gamma=0.5, seed=0)
    assert found.value == pytest.approx((1.0 + 0.5 * 2.0 + 6.0) / 2)


def test_doubly_robust_with_a_model_that_knows_nothing_is_importance_sampling():
    rewards, policy, nothing = np.array([1.0, 10.0, 3.0]), np.array([1.0, 1.0, 0.25]), np.zeros(3)
    plain = weighted_importance_sampling(rewards, policy, HALF, ENDS, gamma=0.5, seed=0)
    robust = doubly_robust(
        rewards, policy, HALF, ENDS, q_logged=nothing, value=nothing, gamma=0.5, seed=0
    )
    assert robust.value == pytest.approx(plain.value)


def test_doubly_robust_with_a_perfect_model_has_no_spread():
    """Both episodes start at V = 2 and every reward is what the model says: 2, with no doubt.

    gamma 0.5: episode one has r = 1, 2 with Q = 2, 2; episode two r = 2 with Q = 2.
    """
    found = doubly_robust(
        np.array([1.0, 2.0, 2.0]),
        np.array([1.0, 1.0, 0.25]),
        HALF,
        ENDS,
        q_logged=np.array([2.0, 2.0, 2.0]),
        value=np.array([2.0, 2.0, 2.0]),
        gamma=0.5,
        seed=0,
    )
    # Step 0: V 2 and TD errors (1 − 2)·2 + (2 − 2)·0.5 over 2.5; step 1: V 2·(2 of 2.5), error 0.
    assert found.value == pytest.approx(2 - 2 / 2.5 + 0.5 * 2 * 2 / 2.5)
    assert found.value == pytest.approx(2.0)


def test_effective_sample_size_is_one_when_one_episode_carries_all():
    assert effective_sample_size(HALF, HALF, ENDS) == 2.0
    ratio = np.array([1.0, 1.0, 1e-9])
    assert effective_sample_size(ratio, HALF, ENDS) == pytest.approx(1.0)


def estimates(data, behavior, process):
    states = data.observations.argmax(axis=1)
    policy = (data.actions == process.policy[states]).astype(float)
    arrays = (data.rewards, policy, behavior, data.ends)
    options = {"gamma": process.gamma, "seed": 0}
    transition = process.chance[np.arange(len(process.start)), process.policy]
    reward = process.reward[np.arange(len(process.start)), process.policy]
    v = np.linalg.solve(np.eye(len(reward)) - process.gamma * transition, reward)
    q = process.reward + process.gamma * process.chance @ v
    exact = {"q_logged": q[states, data.actions], "value": v[states]}
    return (
        weighted_importance_sampling(*arrays, **options),
        doubly_robust(*arrays, **exact, **options),
    )


def test_both_approach_the_known_value_of_a_random_process():
    """3 steps, a behavior close to the policy, 20,000 episodes; truth of 3 steps by recursion."""
    process = random_process(1, gamma=0.5)
    data, behavior = logged(process, seed=0, episodes=20_000, steps=3, follow=0.8)
    states = np.arange(len(process.start))
    chance, reward = process.chance[states, process.policy], process.reward[states, process.policy]
    value = np.zeros(len(states))
    for _ in range(3):
        value = reward + 0.5 * chance @ value
    plain, _ = estimates(data, behavior, process)
    assert plain.value == pytest.approx(process.start @ value, abs=0.03)
    assert plain.low < process.start @ value < plain.high
    assert plain.high - plain.low < 0.1


def test_intervals_of_importance_sampling_cover_the_truth():
    """30 data sets, 95 % intervals: at least 26 cover (28.5 expected)."""
    process = random_process(2, gamma=0.5)
    states = np.arange(len(process.start))
    chance, reward = process.chance[states, process.policy], process.reward[states, process.policy]
    value = np.zeros(len(states))
    for _ in range(3):
        value = reward + 0.5 * chance @ value
    truth, covered = process.start @ value, 0
    for seed in range(30):
        data, behavior = logged(process, seed=seed, episodes=500, steps=3, follow=0.7)
        found = estimates(data, behavior, process)[0]
        covered += found.low <= truth <= found.high
    assert covered >= 26
