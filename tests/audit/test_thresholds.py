"""Guarantee: each rule reports from its threshold on, and not on the other side of it.

Statistics are those of a log without problems, in which one case replaces a few values by hand.
"""

import dataclasses
from functools import cache
from typing import Any

import pytest
from support.builders import discrete_data
from support.logged import cart_data, findings_of, statistics_of

from offline_cql.audit.actions import DiscreteAction, PropensityStatistics
from offline_cql.audit.distribution import summarize
from offline_cql.audit.leakage import Leak
from offline_cql.audit.rules import RULES, apply_rules
from offline_cql.audit.statistics import DatasetStatistics


@cache
def base(*, discrete: bool) -> DatasetStatistics:
    """1,770 steps in 60 episodes; 1,710 pairs; 30 terminated; longest 39 steps."""
    data = cart_data(discrete=discrete)
    statistics = statistics_of(data)
    values = summarize([0.5])
    propensities = PropensityStatistics(values, deterministic=0.0, effective_sample_share=1.0)
    return dataclasses.replace(statistics, propensities=propensities)


def change(value: Any, path: str, new: Any) -> Any:
    """Return dataclasses and lists with the value at a dotted path replaced."""
    head, _, rest = path.partition(".")
    if isinstance(value, list):
        copy = list(value)
        copy[int(head)] = change(copy[int(head)], rest, new) if rest else new
        return copy
    inner = change(getattr(value, head), rest, new) if rest else new
    return dataclasses.replace(value, **{head: inner})


def levels(values: dict[str, Any], *, discrete: bool = False) -> dict[str, str]:
    """Return the levels of the findings by name."""
    statistics = base(discrete=discrete)
    for path, new in values.items():
        statistics = change(statistics, path, new)
    return {finding.name: finding.level for finding in apply_rules(statistics)}


def alignment(matching: int, current: int = 0, second: int = 0) -> dict[str, Any]:
    return {
        "alignment.pairs": 100,
        "alignment.matching": matching,
        "alignment.equal_to_current": current,
        "alignment.equal_to_second_next": second,
        "alignment.first_mismatch": None if matching == 100 else [0, 0],
    }


def column(**values: Any) -> dict[str, Any]:
    return {f"observations.columns.0.{name}": value for name, value in values.items()}


def leak(kind: str, *, copy: bool = False) -> dict[str, Any]:
    return {"leakage.leaks": [Leak("observation 0", kind, "a quantity", 0.99, copy)]}


def dimension(**values: Any) -> dict[str, Any]:
    return {f"actions.dimensions.0.{name}": value for name, value in values.items()}


def rewards(low: float, high: float, zero: float = 0.0) -> dict[str, Any]:
    return {"rewards.step.min": low, "rewards.step.max": high, "rewards.zero": zero}


def value_size(returns: float, reward: float) -> dict[str, Any]:
    """Set the 5 % quantile of discounted returns, the largest reward, and all else to 0."""
    return {
        "episodes.discounted.q05": returns,
        "episodes.discounted.q95": 0.0,
        **rewards(0.0, reward),
        "split.reward_scale": 1.0,
    }


def longest(count: int, terminated: int, steps: float = 39.0) -> dict[str, Any]:
    return {
        "episodes.longest": count,
        "episodes.longest_terminated": terminated,
        "episodes.length.max": steps,
    }


def copies(transitions: int, in_episodes: int) -> dict[str, Any]:
    """Set copies among 1,000 transitions."""
    return {
        "identity.transitions": 1_000,
        "duplicates.transitions": transitions,
        "duplicates.transitions_in_copied_episodes": in_episodes,
        "duplicates.episodes": 1,
        "duplicates.first": [1, 0] if in_episodes else None,
    }


def counts(*values: int) -> dict[str, Any]:
    actions = [DiscreteAction(str(k), n) for k, n in enumerate(values)]
    return {"actions.discrete_actions": actions}


# Rule, values on the side that is reported, its level, values on the other side.
CONTINUOUS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    # 51 mismatches of 100 pairs are more than half; 26 of 51 are more than half of them.
    ("next_observation_shifted", alignment(49, current=26), "error", alignment(50, current=50)),
    ("next_observation_shifted", alignment(0, second=51), "error", alignment(0, second=50)),
    ("next_observation_mismatch", alignment(99), "warning", alignment(100)),
    ("next_observation_mismatch", alignment(50, current=50), "warning", alignment(0, current=51)),
    # More than 5 %, and more than 1.5 times the row's own 40 %.
    ("action_shifted", {"misalignment.action_r2_gain": [0.0, 0.0, 0.051]}, "warning",
     {"misalignment.action_r2_gain": [0.0, 0.0, 0.05]}),
    ("action_shifted", {"misalignment.action_r2_gain": [0.61, 0.4, 0.0]}, "warning",
     {"misalignment.action_r2_gain": [0.59, 0.4, 0.0]}),
    # More than 50 %, and at most 1 / 1.5 of what the row's own leaves: 0.4 · 1.5 = 0.6.
    ("reward_shifted", {"misalignment.reward_r2": [0.0, 0.1, 0.51]}, "warning",
     {"misalignment.reward_r2": [0.0, 0.1, 0.5]}),
    ("reward_shifted", {"misalignment.reward_r2": [0.61, 0.4, 0.0]}, "warning",
     {"misalignment.reward_r2": [0.59, 0.4, 0.0]}),
    ("observation_leaks_action", leak("action", copy=True), "error", leak("reward")),
    ("observation_leaks_action", leak("action"), "warning", leak("future")),
    ("observation_leaks_reward", leak("reward"), "warning", leak("action")),
    ("observation_leaks_outcome", leak("outcome"), "warning", leak("reward")),
    ("observation_leaks_future", leak("future"), "warning", leak("lead")),
    ("observation_next_value", leak("lead"), "note", leak("future")),
    ("observation_identifier", leak("identifier"), "warning", leak("outcome")),
    ("observation_sentinel", column(sentinel=0.0), "warning", column(sentinel=None)),
    ("observation_outliers", column(outliers=1, mean=0.0, std=1.0, min=-51.0, max=9.0), "warning",
     column(outliers=0)),
    ("observation_outliers", column(outliers=1, mean=0.0, std=1.0, min=-9.0, max=50.0), "note",
     column(outliers=0)),
    ("observation_nearly_constant", column(nearly_constant=True, mean=1.0, std=1e-5), "warning",
     {}),
    ("observation_constant", column(constant=True), "note", {}),
    ("observation_increasing", column(increasing=True), "note", {}),
    ("observation_constant_per_episode", column(constant_per_episode=True), "note",
     {**column(constant_per_episode=True), "identity.episodes": 1}),
    ("reward_constant", rewards(2.0, 2.0), "note", rewards(2.0, 2.001)),
    ("reward_constant", {**rewards(2.0, 2.0), "episodes.terminated": 0}, "error", {}),
    ("reward_constant", rewards(0.0, 0.0, 1.0), "error", {}),
    ("reward_sparse", rewards(0.0, 1.0, 0.951), "note", rewards(0.0, 1.0, 0.95)),
    ("reward_sparse", rewards(0.0, 1.0, 0.951), "note", rewards(0.0, 0.0, 1.0)),
    ("reward_scale", value_size(-3_001.0, 1.0), "warning", value_size(-3_000.0, 1.0)),
    ("reward_scale", value_size(-0.1, 0.29), "warning", value_size(-0.1, 0.3)),
    ("reward_scale", value_size(0.0, 3_001.0), "warning", value_size(0.0, 0.0)),
    ("action_constant", dimension(min=0.5, max=0.5), "error", dimension(min=0.5, max=0.51)),
    ("action_kind", {"identity.action_kind_inferred": True, **dimension(distinct=20)}, "warning",
     {"identity.action_kind_inferred": True, **dimension(distinct=None)}),
    ("action_narrow", dimension(min=-0.099, max=0.05), "warning",
     dimension(min=-0.1, max=0.05)),
    ("action_saturated", dimension(at_bounds=0.501), "note", dimension(at_bounds=0.5)),
    # At least 3 episodes and 5 % of 60, of which more than 90 % terminate.
    ("time_limit_as_terminated", longest(3, 3), "warning", longest(2, 2)),
    ("time_limit_as_terminated", longest(20, 19), "warning", longest(20, 18)),
    ("time_limit_as_terminated", longest(5, 5) | {"episodes.count": 100}, "warning",
     longest(4, 4) | {"episodes.count": 100}),
    ("time_limit_as_terminated", longest(60, 60, 2.0), "warning", longest(60, 60, 1.0)),
    ("no_terminated_episode", {"episodes.terminated": 0}, "note", {"episodes.terminated": 1}),
    ("single_step_episodes", {"episodes.single_step": 7}, "warning", {"episodes.single_step": 0}),
    ("single_step_episodes", {"episodes.single_step": 6}, "note",
     {"episodes.single_step": 1, "episodes.count": 1}),
    ("single_episode", {"episodes.count": 1}, "warning", {"episodes.count": 2}),
    ("equal_returns", {"episodes.undiscounted.min": 7.0, "episodes.undiscounted.max": 7.0}, "note",
     {"episodes.undiscounted.min": 7.0, "episodes.undiscounted.max": 7.1}),
    ("few_transitions", {"identity.transitions": 999}, "note", {"identity.transitions": 1_000}),
    ("duplicate_episodes", copies(11, 11), "warning", copies(0, 0)),
    ("duplicate_episodes", copies(10, 10), "note", copies(10, 0)),
    ("duplicate_transitions", copies(16, 5), "note", copies(15, 5)),
    ("neighbors_far", {"neighbors.relative_distance": 0.71}, "note",
     {"neighbors.relative_distance": 0.7}),
    ("behavior_deterministic", {"neighbors.action_spread": 0.049}, "note",
     {"neighbors.action_spread": 0.05}),
    ("behavior_deterministic",
     {"neighbors.action_spread": 0.0, "neighbors.relative_distance": 0.7}, "note",
     {"neighbors.action_spread": 0.0, "neighbors.relative_distance": 0.71}),
    ("propensity_effective_sample", {"propensities.effective_sample_share": 0.0099}, "note",
     {"propensities.effective_sample_share": 0.01}),
    ("no_reference_scores", {"scores.normalized_score": None}, "note",
     {"scores.normalized_score": 0.0}),
]  # fmt: skip

DISCRETE: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("action_constant", counts(0, 9, 0), "error", counts(0, 9, 1)),
    ("action_unused", counts(0, 9, 1), "warning", counts(1, 9, 1)),
    ("action_unused", counts(0, 9, 1), "warning", counts(0, 9, 0)),
    ("propensity_one", {"propensities.deterministic": 0.0001}, "warning",
     {"propensities.deterministic": 0.0}),
    ("propensity_small", {"propensities.values.min": 0.00099}, "warning",
     {"propensities.values.min": 0.001}),
]  # fmt: skip

CASES = [(*case, False) for case in CONTINUOUS] + [(*case, True) for case in DISCRETE]
IDS = [f"{number}-{name}-{level}" for number, (name, _, level, *_) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "reported", "level", "other", "discrete"), CASES, ids=IDS)
def test_rule_reports_on_one_side_of_its_threshold_only(
    name: str, reported: dict[str, Any], level: str, other: dict[str, Any], discrete: bool
):
    assert levels(reported, discrete=discrete).get(name) == level
    assert name not in levels(other, discrete=discrete)


def test_every_rule_has_a_threshold_case():
    assert {case[0] for case in CASES} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("discrete", [False, True])
def test_base_has_no_findings(discrete: bool):
    assert levels({}, discrete=discrete) == {}


def test_densities_may_be_small():
    """A density has units: 0.0005 per unit is small for probabilities only."""
    assert "propensity_small" not in levels({"propensities.values.min": 0.0005})


def test_some_constant_dimensions_are_a_warning():
    statistics = base(discrete=False)
    first = statistics.actions.dimensions[0]
    constant = dataclasses.replace(first, name="1", min=0.0, max=0.0)
    changed = change(statistics, "actions.dimensions", [first, constant])
    assert [(f.name, f.level) for f in apply_rules(changed)] == [("action_constant", "warning")]


def test_random_data_without_dynamics_are_not_called_shifted():
    names = findings_of(discrete_data(2_000))
    assert not {"action_shifted", "reward_shifted"} & set(names)
