"""Guarantee: statistics equal plain NumPy on a data set that a reader can do in the head."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from support.builders import discrete_data
from support.logged import SCORES, cart_data, statistics_of

from offline_cql.audit.columns import find_sentinel
from offline_cql.audit.distribution import QUANTILES, summarize
from offline_cql.audit.rules import apply_rules
from offline_cql.commands.audit import write_statistics
from offline_cql.transitions import Spaces, Transitions


def two_episodes() -> Transitions:
    """Return 3 + 2 steps on a line: observation 0, 1, 2 | 10, 11, action in [-2, 2]."""
    observations = np.array([0.0, 1, 2, 10, 11])[:, None]
    return Transitions.pack(
        observations=observations,
        actions=np.array([-1.0, 0, 1, 0.5, 0])[:, None],
        rewards=np.array([1.0, 0, 2, 0, 5]),
        next_observations=observations + 1,
        terminated=np.array([False, False, True, False, False]),
        episodes=np.array([0, 0, 0, 1, 1]),
        spaces=Spaces(1, 1, False, (-2.0,), (2.0,)),
        dataset_id="test/two-v0",
    )


def test_statistics_of_two_episodes_by_hand():
    statistics = statistics_of(two_episodes())
    episodes = statistics.episodes
    assert (episodes.count, episodes.terminated, episodes.truncated) == (2, 1, 1)
    assert (episodes.length.min, episodes.length.mean, episodes.length.max) == (2, 2.5, 3)
    # Returns 1 + 0 + 2 and 0 + 5; discounted by 0.9: 1 + 0.81 · 2 and 0.9 · 5.
    assert (episodes.undiscounted.min, episodes.undiscounted.max) == (3, 5)
    assert episodes.discounted.min == pytest.approx(2.62)
    assert episodes.discounted.max == pytest.approx(4.5)
    # 2 of 5 rewards are 0; of the sum 8, the last steps hold 2 + 5; values 0, 1, 2, 5.
    rewards = statistics.rewards
    assert (rewards.zero, rewards.on_last_steps, rewards.distinct) == (0.4, 7 / 8, 4)
    alignment = statistics.alignment
    assert (alignment.pairs, alignment.matching) == (3, 3)
    column = statistics.observations.columns[0]
    assert (column.mean, column.min, column.max) == (4.8, 0, 11)
    assert (column.integer, column.increasing, column.constant) == (True, True, False)
    action = statistics.actions.dimensions[0]
    assert (action.mean, action.at_bounds) == (0.1, 0.4)
    assert (statistics.identity.action_low, statistics.identity.action_high) == ([-2.0], [2.0])
    assert (statistics.misalignment, statistics.neighbors) == (None, None)


def test_distribution_equals_numpy():
    values = np.random.default_rng(0).normal(size=101)
    distribution = summarize(values)
    assert distribution.mean == pytest.approx(values.mean())
    assert distribution.std == pytest.approx(values.std())
    names = ("q05", "q25", "median", "q75", "q95")
    quantiles = [getattr(distribution, name) for name in names]
    assert quantiles == pytest.approx([np.quantile(values, q) for q in QUANTILES])
    counts, edges = np.histogram(values, 40)
    assert (distribution.counts, distribution.edges) == (counts.tolist(), edges.tolist())


def test_continuous_actions_equal_numpy():
    data = cart_data()
    dimension = statistics_of(data).actions.dimensions[0]
    actions = data.actions[:, 0].astype(np.float64)
    counts = np.histogram(actions, 20, (-1, 1))[0]
    shares = counts / counts.sum()
    assert dimension.counts == counts.tolist()
    assert dimension.std == pytest.approx(actions.std())
    expected = -(shares * np.log(shares)).sum() / np.log(20)
    assert dimension.normalized_entropy == pytest.approx(expected)


def test_effective_sample_share_by_hand():
    """Weights 2, 2, 4, 8: (Σw)² / (4 Σw²) = 256 / (4 · 88)."""
    data = discrete_data(4)
    values = np.array([0.5, 0.5, 0.25, 0.125], np.float32)
    propensities = statistics_of(dataclasses.replace(data, propensities=values)).propensities
    assert propensities is not None
    assert propensities.effective_sample_share == pytest.approx(256 / 352)


@pytest.mark.parametrize(
    ("values", "sentinel"),
    [
        # The interquartile range is 17: the gap to the next value must exceed 170.
        ([*range(30), *[-999] * 5], -999),
        ([*range(30), *[-999] * 4], None),
        ([*range(30), *[200] * 5], 200),
        ([*range(30), *[199] * 5], None),
        ([0, 0, 0, 0, 0, 1], None),
    ],
)
def test_sentinel_repeats_five_times_far_from_all_others(values: list[int], sentinel: int | None):
    assert find_sentinel(np.array(values, float)) == sentinel


def test_audit_json_holds_statistics_and_findings(tmp_path: Path):
    statistics = statistics_of(two_episodes(), scores=SCORES)
    findings = apply_rules(statistics)
    write_statistics(tmp_path, statistics, findings)
    content = json.loads((tmp_path / "audit.json").read_text())
    assert content.pop("findings") == [vars(finding) for finding in findings]
    assert content == dataclasses.asdict(statistics)
    assert content["scores"]["normalized_score"] == 50.0
    names = {finding.name: finding.level for finding in findings}
    assert names == {"observation_increasing": "note", "few_transitions": "note"}
