"""Guarantee: sums of rewards stay within their episode, and a truncation bootstraps.

Numbers by hand, then Hypothesis against loops that follow the definition step by step.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from offline_cql.data import returns
from offline_cql.data.returns import (
    continued_returns,
    episode_weights,
    lambda_steps,
    n_step_returns,
    returns_to_go,
)


@st.composite
def logs(draw: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Rewards, terminated and ends of one to eight episodes of one to nine steps."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    size = sum(lengths)
    numbers = st.floats(-1e3, 1e3, width=32)
    rewards = draw(st.lists(numbers, min_size=size, max_size=size))
    ends = np.cumsum(lengths)
    terminated = np.zeros(size, bool)
    ended = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    terminated[ends - 1] = ended
    return np.array(rewards, np.float32), terminated, ends


# --- Returns to go --------------------------------------------------------------------------------


def test_returns_to_go_by_hand():
    """Rewards 1, 2, 4 | 8 | 16, 32 with gamma 1/2: 1 + 1 + 1, 2 + 2, 4 | 8 | 16 + 16, 32."""
    rewards, ends = np.array([1, 2, 4, 8, 16, 32], np.float32), np.array([3, 4, 6])
    returns = returns_to_go(rewards, ends, gamma=0.5)
    assert returns.dtype == np.float64
    assert returns.tolist() == [3, 4, 4, 8, 32, 32]
    assert returns_to_go(rewards, ends, gamma=0.0).tolist() == rewards.tolist()
    assert returns_to_go(rewards, ends, gamma=1.0).tolist() == [7, 6, 4, 8, 48, 32]
    assert rewards.tolist() == [1, 2, 4, 8, 16, 32]


@given(logs(), st.floats(0, 1))
def test_returns_to_go_equal_a_loop_from_the_end(log: Any, gamma: float):
    rewards, _, ends = log
    expected, after = np.zeros(len(rewards)), 0.0
    for row in reversed(range(len(rewards))):
        after = float(rewards[row]) + (0.0 if row + 1 in ends else gamma * after)
        expected[row] = after
    returns = returns_to_go(rewards, ends, gamma=gamma)
    np.testing.assert_allclose(returns, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("many", [1, 4, 100])
def test_many_and_few_episodes_take_equal_steps(many: int, monkeypatch: pytest.MonkeyPatch):
    """Of seven episodes, three end before the fifth step back from their ends."""
    generator = np.random.default_rng(0)
    ends = np.cumsum([9, 2, 30, 4, 1, 12, 12])
    rewards = generator.normal(size=ends[-1]).astype(np.float32)
    expected = rewards.astype(np.float64)
    for row in reversed(range(len(rewards) - 1)):
        if row + 1 not in ends:
            expected[row] += 0.9 * expected[row + 1]
    monkeypatch.setattr(returns, "MANY_EPISODES", many)
    assert np.array_equal(returns_to_go(rewards, ends, gamma=0.9), expected)


def test_steps_with_discounts_of_their_own_by_hand():
    """Discounts 1/2, 1/4, 1/2 | 1/4 of 8, 8, 4 | 3: 8 + (8 + 4/4)/2, 8 + 4/4, 4 | 3.

    Continued: the second episode, truncated after one step, goes on at 3 per step: 3 · (1/4)/(3/4).
    The first is terminated.
    """
    rewards, ends = np.array([8, 8, 4, 3], np.float32), np.array([3, 4])
    discounts = np.array([0.5, 0.25, 0.5, 0.25])
    assert returns_to_go(rewards, ends, gamma=discounts).tolist() == [12.5, 9, 4, 3]
    terminated = np.array([False, False, True, False])
    continued = continued_returns(rewards, terminated, ends, gamma=discounts)
    np.testing.assert_allclose(continued, [12.5, 9, 4, 4])
    targets = n_step_returns(rewards, terminated, ends, gamma=discounts, n=2)
    assert targets.reward.tolist() == [12, 9, 4, 3]
    assert targets.discount.tolist() == [0.125, 0, 0, 0.25]


@given(logs())
def test_equal_discounts_of_all_steps_are_one_gamma(drawn):
    rewards, terminated, ends = drawn
    each = np.full(len(rewards), 0.9)
    assert np.array_equal(
        returns_to_go(rewards, ends, gamma=each), returns_to_go(rewards, ends, gamma=0.9)
    )
    np.testing.assert_allclose(
        continued_returns(rewards, terminated, ends, gamma=each),
        continued_returns(rewards, terminated, ends, gamma=0.9),
    )


# --- n steps --------------------------------------------------------------------------------------

REWARDS = np.array([1, 2, 4, 8, 16, 32, 64], np.float32)
TERMINATED = np.array([0, 0, 0, 1, 0, 0, 0], bool)
ENDS = np.array([4, 7])  # the first episode is terminal, the second truncated


def test_two_steps_by_hand():
    """gamma 1/2: r + r'/2, then V/4; the last step of an episode has its reward alone."""
    targets = n_step_returns(REWARDS, TERMINATED, ENDS, gamma=0.5, n=2)
    assert targets.reward.tolist() == [2, 4, 8, 8, 32, 64, 64]
    assert targets.discount.tolist() == [0.25, 0.25, 0, 0, 0.25, 0.25, 0.5]
    assert targets.last.tolist() == [1, 2, 3, 3, 5, 6, 6]
    assert (targets.reward.dtype, targets.discount.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("n", [4, 5, 1000])
def test_n_beyond_the_episode_sums_to_its_end(n: int):
    """The terminal episode has no bootstrap; the truncated one bootstraps from its last state."""
    targets = n_step_returns(REWARDS, TERMINATED, ENDS, gamma=0.5, n=n)
    assert targets.reward.tolist() == returns_to_go(REWARDS, ENDS, gamma=0.5).tolist()
    assert targets.discount.tolist() == [0, 0, 0, 0, 0.125, 0.25, 0.5]
    assert targets.last.tolist() == [3, 3, 3, 3, 6, 6, 6]


def test_each_transition_has_its_number_of_steps():
    """gamma 1/2, as by hand above with n = 2, but alone for the first and the sixth."""
    n = np.array([1, 2, 3, 2, 2, 1, 9])
    targets = n_step_returns(REWARDS, TERMINATED, ENDS, gamma=0.5, n=n)
    assert targets.reward.tolist() == [1, 4, 8, 8, 32, 32, 64]
    assert targets.discount.tolist() == [0.5, 0.25, 0, 0, 0.25, 0.5, 0.5]
    assert targets.last.tolist() == [0, 2, 3, 3, 5, 5, 6]


def test_the_mean_of_drawn_targets_is_the_lambda_return():
    """Recursively, G_t = r + gamma ((1 − lambda) V' + lambda G_{t+1}), here with V = 10, 20, ….

    The first episode is shorter than n, the second ends by truncation.
    """
    gamma, td_lambda, draws = 0.5, 0.7, 20_000
    values = 10.0 * np.arange(1, 8)  # V of the next states
    expected = np.zeros(7)
    for row in reversed(range(7)):
        end = row + 1 in ENDS
        later = (
            values[row] if end else (1 - td_lambda) * values[row] + td_lambda * expected[row + 1]
        )
        expected[row] = REWARDS[row] + gamma * later * (1 - TERMINATED[row])
    generator = np.random.default_rng(0)
    n = lambda_steps(7 * draws, n=7, td_lambda=td_lambda, generator=generator)
    repeated = (np.tile(REWARDS, draws), np.tile(TERMINATED, draws))
    ends = (ENDS + 7 * np.arange(draws)[:, None]).ravel()
    targets = n_step_returns(*repeated, ends, gamma=gamma, n=n)
    drawn = targets.reward + targets.discount * np.tile(values, draws)[targets.last]
    assert drawn.reshape(draws, 7).mean(axis=0) == pytest.approx(expected, rel=0.01)


def test_drawn_steps_are_truncated_at_n():
    """lambda 1/2, n 3: one step in 1/2 of the draws, two in 1/4, three in 1/4."""
    steps = lambda_steps(40_000, n=3, td_lambda=0.5, generator=np.random.default_rng(0))
    assert np.bincount(steps) / 40_000 == pytest.approx([0, 0.5, 0.25, 0.25], abs=0.01)


@given(logs(), st.floats(0, 1), st.integers(1, 12))
def test_n_steps_equal_a_walk_along_the_episode(log: Any, gamma: float, n: int):
    rewards, terminated, ends = log
    targets = n_step_returns(rewards, terminated, ends, gamma=gamma, n=n)
    for start in range(len(rewards)):
        total, factor, row = 0.0, 1.0, start
        while True:
            total += factor * float(rewards[row])
            factor *= gamma
            if row + 1 - start == n or row + 1 in ends:
                break
            row += 1
        assert targets.last[start] == row
        assert targets.reward[start] == pytest.approx(total, rel=1e-5, abs=1e-3)
        expected = 0.0 if terminated[row] else factor
        assert targets.discount[start] == pytest.approx(expected, rel=1e-5, abs=1e-30)


@given(logs(), st.integers(1, 12), st.data())
def test_rewards_of_other_episodes_have_no_effect(log: Any, n: int, data: Any):
    """Replace the rewards of all other episodes by NaN: no result changes."""
    rewards, terminated, ends = log
    episode = data.draw(st.integers(0, len(ends) - 1))
    rows = slice(0 if episode == 0 else int(ends[episode - 1]), int(ends[episode]))
    corrupt = np.full_like(rewards, np.nan)
    corrupt[rows] = rewards[rows]
    before = n_step_returns(rewards, terminated, ends, gamma=0.9, n=n)
    after = n_step_returns(corrupt, terminated, ends, gamma=0.9, n=n)
    assert np.array_equal(after.reward[rows], before.reward[rows])
    to_go = (returns_to_go(r, ends, gamma=0.9)[rows] for r in (rewards, corrupt))
    assert np.array_equal(*to_go)


def test_two_policies_of_equal_parts_are_separated():
    """Half of the steps return 10, half 2, share 0.5: (a + b)² / (a² + b²) = 1, so b is 0."""
    weights = episode_weights(np.array([10.0, 2.0, 10.0, 2.0]), np.full(4, 5), share=0.5)
    np.testing.assert_allclose(weights, [2, 0, 2, 0], atol=1e-6)


def test_episode_weights_have_the_share_by_hand():
    """Two equal parts, share 0.8: (a + b)² / (2 (a² + b²)) = 0.8 with a + b = 2 is a = 1.5."""
    weights = episode_weights(np.array([3.0, 1.0]), np.array([7, 7]), share=0.8)
    np.testing.assert_allclose(weights, [1.5, 0.5], atol=1e-9)


def test_episode_weights_have_no_unit_and_count_steps():
    rng = np.random.default_rng(0)
    returns, lengths = rng.normal(size=30), rng.integers(1, 50, 30)
    weights = episode_weights(returns, lengths, share=0.3)
    assert (weights @ lengths) / lengths.sum() == pytest.approx(1.0)
    assert lengths.sum() / (weights**2 @ lengths) == pytest.approx(0.3)
    scaled = episode_weights(1e6 * returns - 5.0, lengths, share=0.3)
    np.testing.assert_allclose(scaled, weights, rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_equal_returns_and_a_single_episode_have_weight_one(share: float):
    for values in ([2.0, 2.0, 2.0], [7.0]):
        lengths = np.arange(1, len(values) + 1)
        weights = episode_weights(np.array(values), lengths, share=share)
        np.testing.assert_allclose(weights, 1.0)


def test_the_best_episode_alone_may_be_more_than_the_share():
    weights = episode_weights(np.array([0.0, 1.0]), np.array([1, 9]), share=0.2)
    np.testing.assert_allclose(weights, [0, 10 / 9], atol=1e-6)
