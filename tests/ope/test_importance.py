"""Guarantee: importance-weighted estimates match hand calculations, and their intervals cover."""

import numpy as np
import pytest
from support.tables import Process, log_episodes, random_process

from offline_cql.ope.estimate import Estimate
from offline_cql.ope.importance import (
    cumulative_ratios,
    doubly_robust,
    effective_episodes,
    weighted_importance_sampling,
)
from offline_cql.transitions import Transitions

COPIES = 10  # so that enough episodes carry weight
PAIR = np.array([2, 3])  # one episode of two steps, one of a single step
POLICY, HALF = np.tile([1.0, 1.0, 0.25], COPIES), np.full(3 * COPIES, 0.5)
ENDS = (PAIR + 3 * np.arange(COPIES)[:, None]).ravel()


def test_ratios_multiply_within_an_episode_only():
    """π/β = 2, 2 | 0.5 gives 2, 4 | 0.5."""
    ratios = cumulative_ratios(POLICY[:3], HALF[:3], PAIR)
    assert ratios.tolist() == [2.0, 4.0, 0.5]


def test_weighted_importance_sampling_by_hand():
    """Step 0: (2·1 + 0.5·3) / 2.5 = 1.4. Step 1: (4·10 + 0.5·0) / 4.5; discounted by 0.5."""
    rewards = np.tile([1.0, 10.0, 3.0], COPIES)
    estimate = weighted_importance_sampling(rewards, POLICY, HALF, ENDS, gamma=0.5, seed=0)
    assert estimate.value == pytest.approx(1.4 + 0.5 * 40 / 4.5)
    assert estimate.method == "wis"


def test_times_take_the_place_of_steps():
    """The first step of the long episode takes 3 units: the second reward counts 1/8, not 1/2."""
    rewards, durations = np.tile([1.0, 10.0, 3.0], COPIES), np.tile([3.0, 1.0, 2.0], COPIES)
    options = {"gamma": 0.5, "seed": 0, "durations": durations}
    estimate = weighted_importance_sampling(rewards, POLICY, HALF, ENDS, **options)
    assert estimate.value == pytest.approx(1.4 + 0.125 * 40 / 4.5)
    zeros = np.zeros(3 * COPIES)
    model = {"q_logged": zeros, "v": zeros, "v_end": np.tile([16.0, 0.0], COPIES)}
    robust = doubly_robust(rewards, POLICY, HALF, ENDS, **model, **options)
    assert robust.extrapolated == pytest.approx(4 / 4.5 * 16 / 2**4)


def test_the_behavior_policy_is_estimated_at_its_mean_return():
    rewards = np.tile([1.0, 2.0, 6.0], COPIES)
    estimate = weighted_importance_sampling(rewards, HALF, HALF, ENDS, gamma=0.5, seed=0)
    assert estimate.value == pytest.approx((1.0 + 0.5 * 2.0 + 6.0) / 2)


def test_doubly_robust_with_a_model_of_zeros_is_importance_sampling():
    arrays, options = (
        (np.tile([1.0, 10.0, 3.0], COPIES), POLICY, HALF, ENDS),
        {"gamma": 0.5, "seed": 0},
    )
    zeros = np.zeros(3 * COPIES)
    model = {"q_logged": zeros, "v": zeros, "v_end": np.zeros(2 * COPIES)}
    expected = weighted_importance_sampling(*arrays, **options).value
    assert doubly_robust(*arrays, **model, **options).value == pytest.approx(expected)


def test_doubly_robust_corrects_the_model_by_weighted_td_errors():
    """Q = V = 2 everywhere, gamma 0.5; episode one has r = 1, 2, episode two r = 2.

    Step 0: V 2 and TD errors (1 − 2)·2 + (2 − 2)·0.5 over 2.5; step 1: V 2·(2 of 2.5), error 0.
    """
    rewards, model = np.array([1.0, 2.0, 2.0]), {"q_logged": np.full(3, 2.0), "v": np.full(3, 2.0)}
    model["v_end"] = np.zeros(2)
    estimate = doubly_robust(rewards, POLICY[:3], HALF[:3], PAIR, **model, gamma=0.5, seed=0)
    assert estimate.value == pytest.approx(2 - 2 / 2.5 + 0.5 * 2 * 2 / 2.5)


def test_doubly_robust_needs_no_right_probabilities_where_the_model_is_exact():
    """Two one-step episodes with V = r = 1 and 3: the mean is 2 whatever the weights."""
    rewards = np.array([1.0, 3.0])
    arrays = (rewards, np.ones(2), np.array([0.9, 0.1]), np.array([1, 2]))
    estimate = doubly_robust(
        *arrays, q_logged=rewards, v=rewards, v_end=np.zeros(2), gamma=0.5, seed=0
    )
    assert estimate.value == pytest.approx(2.0)


def test_the_number_of_episodes_that_carry_weight():
    """Three equal weights are three episodes, one weight is one; 2 and 1 are 9 / 5."""
    rho = np.array([[1.0, 4.0, 2.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert effective_episodes(rho).tolist() == pytest.approx([3.0, 1.0, 1.8, 0.0])


def test_where_few_episodes_follow_the_policy_the_interval_has_every_logged_reward():
    """Two episodes: means 2 and 5 of each step; rewards from 0, after an end, to 10, gamma 0.5."""
    rewards = np.array([1.0, 10.0, 3.0])
    estimate = weighted_importance_sampling(rewards, POLICY[:3], HALF[:3], PAIR, gamma=0.5, seed=0)
    assert estimate.value == pytest.approx(2 + 0.5 * 5)
    assert (estimate.low, estimate.high) == pytest.approx((0.0, 10 * 1.5))
    assert "from step 0 on fewer than 10 episodes follow the policy" in estimate.assumptions[-1]


def test_the_interval_is_bounded_from_the_first_step_with_few_episodes_on():
    """32 episodes of 3 steps with 2 choices: 16, 8 and 4 follow the policy; rewards 1, 2 and 3.

    Known: 1 at step 0. Then the mean 2 and 3, and 1 to 3, discounted by 0.5 and 0.25.
    """
    takes = np.array([[(k >> step) & 1 for step in range(3)] for k in range(32)])
    policy, behavior = takes.ravel().astype(float), np.full(96, 0.5)
    rewards, ends = np.tile([1.0, 2.0, 3.0], 32), 3 * np.arange(1, 33)
    estimate = weighted_importance_sampling(rewards, policy, behavior, ends, gamma=0.5, seed=0)
    assert estimate.value == pytest.approx(1 + 0.5 * 2 + 0.25 * 3)
    assert (estimate.low, estimate.high) == pytest.approx((1 + 0.75 * 1, 1 + 0.75 * 3))
    assert "from step 1 on" in estimate.assumptions[-1]


def wis(process: Process, data: Transitions, behavior: np.ndarray) -> Estimate:
    """Estimate the process's policy by weighted importance sampling."""
    states = data.observations.argmax(axis=1)
    policy = (data.actions == process.policy[states]).astype(float)
    return weighted_importance_sampling(
        data.rewards, policy, behavior, data.ends, gamma=process.gamma, seed=0
    )


def test_importance_sampling_approaches_the_known_value_of_a_random_process():
    """3 steps, a behavior close to the policy, 20,000 episodes."""
    process = random_process(1, gamma=0.5)
    data, behavior = log_episodes(process, seed=0, episodes=20_000, steps=3, follow=0.8)
    estimate, truth = wis(process, data, behavior), process.finite_value(3)
    assert estimate.value == pytest.approx(truth, abs=0.03)
    assert estimate.low < truth < estimate.high
    assert estimate.high - estimate.low < 0.1


def test_intervals_of_importance_sampling_cover_the_truth():
    """30 data sets, 95 % intervals: at least 26 cover (28.5 expected)."""
    process = random_process(2, gamma=0.5)
    truth, covered = process.finite_value(3), 0
    for seed in range(30):
        data, behavior = log_episodes(process, seed=seed, episodes=500, steps=3, follow=0.7)
        estimate = wis(process, data, behavior)
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 26
