"""Guarantee: the comparison of actions counts by hand and finds the region where they differ."""

from typing import Any

import numpy as np
import pytest

from offline_cql.ope.actions import (
    ActionComparison,
    ActionShare,
    Region,
    compare_actions,
    compare_continuous,
)

NAMES = ("left", "right", "wait")


def states(size: int = 1_000, columns: int = 3) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, (size, columns))


def compare(observations: Any, logged: Any, chosen: Any) -> ActionComparison:
    return compare_actions(
        observations,
        np.asarray(logged),
        np.asarray(chosen),
        action_names=NAMES,
        observation_names=[f"x{k}" for k in range(observations.shape[1])],
    )


def test_shares_agreement_and_the_most_frequent_difference_by_hand():
    """Of five states two agree; right instead of left occurs twice, wait instead of left once."""
    comparison = compare(np.empty((5, 0)), [0, 0, 0, 1, 0], [1, 1, 2, 1, 0])
    assert (comparison.states, comparison.agreement) == (5, 0.4)
    assert comparison.actions == [
        ActionShare(name="left", logged=0.8, chosen=0.2),
        ActionShare(name="right", logged=0.2, chosen=0.6),
        ActionShare(name="wait", logged=0.0, chosen=0.2),
    ]
    (region,) = comparison.regions
    assert region.agreement == pytest.approx(0.4)
    assert (region.logged, region.chosen, region.pair_share) == ("left", "right", 0.4)


def test_region_of_two_conditions_is_found():
    """They differ where x0 > 0.5 and x2 <= 0: an eighth of the states."""
    observations = states()
    differs = (observations[:, 0] > 0.5) & (observations[:, 2] <= 0)
    first, *others = compare(observations, 0 * differs, np.where(differs, 2, 0)).regions
    assert first.agreement < 0.2
    assert first.share == pytest.approx(0.125, abs=0.05)
    assert sorted(condition[:4] for condition in first.conditions) == ["x0 >", "x2 ≤"]
    assert (first.logged, first.chosen) == ("left", "wait")
    assert all(region.agreement > 0.8 for region in others)


def test_differences_by_chance_have_no_region():
    generator = np.random.default_rng(1)
    chosen = generator.integers(0, 2, 1_000)
    (region,) = compare(states(columns=50), np.zeros(1_000, int), chosen).regions
    assert (region.conditions, region.share) == ([], 1.0)


def test_equal_actions_have_one_region_without_a_difference():
    logged = np.arange(1_000) % 3
    assert compare(states(), logged, logged).regions == [
        Region(conditions=[], share=1, agreement=1, logged=None, chosen=None, pair_share=0)
    ]


def test_spreads_and_differences_of_continuous_actions_by_hand():
    """Logged 0, 2, 4 with standard deviation sqrt(8 / 3); the policy takes 1 more each time."""
    logged = np.array([[0.0], [2.0], [4.0]])
    comparison = compare_continuous(
        np.empty((3, 0)), logged, logged + 1, action_names=["dose"], observation_names=[]
    )
    (dimension,) = comparison.dimensions
    assert (dimension.logged.mean, dimension.chosen.mean, dimension.difference) == (2, 3, 1)
    assert dimension.logged.std == pytest.approx((8 / 3) ** 0.5)
    assert (dimension.logged.low, dimension.logged.high) == pytest.approx((0.2, 3.8))
    (region,) = comparison.regions
    assert (region.conditions, region.share, region.dimension, region.shift) == ([], 1, "dose", 1)
    assert region.distance == pytest.approx((3 / 8) ** 0.5)


def test_region_in_which_one_dimension_is_shifted_is_found():
    """Where x1 > 0.5, a quarter of the states, the second dimension is 0.9 lower."""
    observations, logged = states(), np.random.default_rng(1).uniform(-1, 1, (1_000, 2))
    shifted = observations[:, 1] > 0.5
    chosen = logged - 0.9 * np.column_stack([0 * shifted, shifted])
    names = {"action_names": ["push", "turn"], "observation_names": ["x0", "x1", "x2"]}
    first, second, *_ = compare_continuous(observations, logged, chosen, **names).regions
    assert first.conditions[0].startswith("x1 > 0.")
    assert first.share == pytest.approx(0.25, abs=0.06)
    assert (first.dimension, round(first.shift, 1)) == ("turn", -0.9)
    assert second.distance < 0.2
