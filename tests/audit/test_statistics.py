"""Guarantee: each statistic equals its definition, worked by hand on logs of a few steps."""

import dataclasses
import json
import math

import numpy as np
import pytest
from support.builders import continuous_data, discrete_data
from support.logged import SCORES, add_column, cart_arrays, cart_data, statistics_of

from offline_cql.audit.actions import compute_actions, compute_propensities
from offline_cql.audit.alignment import Alignment, compute_alignment
from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.columns import compute_columns, find_one_hot_groups
from offline_cql.audit.distribution import entropy, summarize
from offline_cql.audit.duplicates import _mix, find_duplicates
from offline_cql.audit.episodes import (
    compute_episodes,
    compute_rewards,
    discounted_returns,
    value_scale,
)
from offline_cql.audit.misalignment import (
    Misalignment,
    _explained_variance,
    compute_misalignment,
)
from offline_cql.audit.neighbors import NeighborStatistics, compute_neighbors
from offline_cql.transitions import Spaces, Transitions

LINE = Spaces(1, 1, False, (-1.0,), (1.0,))


def steps(
    rewards: list[float],
    episodes: list[int],
    *,
    terminated: list[int] | None = None,
    actions: list[float] | None = None,
    observations: list[float] | None = None,
    next_observations: list[float] | None = None,
) -> Transitions:
    """Return a log of single numbers; the observation counts the steps, the action is 0."""
    size = len(rewards)
    observed = np.arange(size, dtype=float) if observations is None else np.array(observations)
    next_observed = observed + 1 if next_observations is None else np.array(next_observations)
    return Transitions.pack(
        observations=observed[:, None],
        actions=np.array(actions or [0.0] * size)[:, None],
        rewards=np.array(rewards),
        next_observations=next_observed[:, None],
        terminated=np.array(terminated or [0] * size, bool),
        episodes=np.array(episodes),
        spaces=LINE,
        dataset_id="test/line-v0",
    )


def neighbors_of(data: Transitions) -> NeighborStatistics:
    neighbors = compute_neighbors(BlockReader(data), gamma=0.9)
    assert neighbors is not None
    return neighbors


def misalignment_of(data: Transitions) -> Misalignment:
    misalignment = compute_misalignment(BlockReader(data))
    assert misalignment is not None
    return misalignment


# --- Episodes and rewards ------------------------------------------------------------------------


def test_discounted_returns_weigh_rewards_by_the_step_in_the_episode():
    data = steps([1, 1, 1, 2, 2], [0, 0, 0, 1, 1], terminated=[0, 0, 1, 0, 0])
    episodes = compute_episodes(data, gamma=0.5)
    assert discounted_returns(data, gamma=0.5).tolist() == [1.75, 3.0]
    assert (episodes.count, episodes.single_step) == (2, 0)
    assert (episodes.terminated, episodes.truncated) == (1, 1)
    assert (episodes.undiscounted.min, episodes.undiscounted.max) == (3.0, 4.0)
    assert (episodes.discounted.mean, episodes.discounted.std) == (2.375, 0.625)
    assert (episodes.length.mean, episodes.length.max) == (2.5, 3.0)
    assert (episodes.longest, episodes.longest_terminated) == (1, 1)
    assert episodes.over_log == [[0.0, 3.0, 3.0, 3.0], [1.0, 4.0, 4.0, 4.0]]


def test_returns_over_a_long_log_are_grouped_without_losing_an_episode():
    size = 1_000
    over_log = compute_episodes(steps(list(range(size)), list(range(size))), gamma=0.9).over_log
    assert len(over_log) == 200
    assert over_log[1] == [5.0, 7.0, 5.0, 9.0]
    assert over_log[-1] == [995.0, 997.0, 995.0, 999.0]


def test_rewards_count_zeros_distinct_values_and_the_share_on_last_steps():
    rewards = compute_rewards(steps([0, 0, 3, 0, -1], [0, 0, 0, 1, 1]))
    assert (rewards.zero, rewards.on_last_steps, rewards.distinct) == (0.6, 1.0, 3)
    assert (rewards.step.min, rewards.step.median, rewards.step.max) == (-1.0, 0.0, 3.0)
    assert compute_rewards(steps(list(range(30)), [0] * 30)).distinct is None
    assert compute_rewards(steps([0] * 500 + list(range(30)), [0] * 530)).distinct is None


def test_value_scale_is_the_larger_of_discounted_returns_and_single_rewards():
    small = steps([0, 0, 10], [0, 0, 0])
    assert value_scale(compute_episodes(small, gamma=0.1), compute_rewards(small)) == pytest.approx(
        10
    )
    long = steps([-1] * 100, [0] * 100)
    size = value_scale(compute_episodes(long, gamma=0.9), compute_rewards(long))
    assert size == pytest.approx(10, rel=1e-3)


def test_a_distribution_of_equal_numbers_has_no_spread():
    distribution = summarize(np.full(7, 2.0))
    assert (distribution.mean, distribution.std) == (2.0, 0.0)
    assert (distribution.q05, distribution.q95) == (2.0, 2.0)
    assert sum(distribution.counts) == 7


@pytest.mark.parametrize(("counts", "nats"), [([5, 0], 0), ([3, 3], math.log(2))])
def test_entropy(counts: list[int], nats: float):
    assert entropy(np.array(counts)) == pytest.approx(nats)


# --- Alignment -----------------------------------------------------------------------------------


def test_consecutive_steps_of_an_episode_fit_and_ends_are_not_compared():
    data = steps([0] * 5, [0, 0, 0, 1, 1], next_observations=[1, 2, 99, 4, 98])
    alignment = compute_alignment(BlockReader(data))
    assert (alignment.pairs, alignment.matching, alignment.first_mismatch) == (3, 3, None)


def test_first_mismatch_has_its_episode_and_step():
    data = steps([0] * 5, [0, 0, 0, 1, 1], next_observations=[1, 2, 99, 7, 98])
    alignment = compute_alignment(BlockReader(data))
    assert alignment == Alignment(3, 2, 0, 0, episodes_with_mismatch=1, first_mismatch=[1, 0])


def test_rounding_is_not_a_mismatch():
    data = steps(
        [0] * 3, [0] * 3, observations=[1, 2, 3], next_observations=[2.000001, 3.000001, 4]
    )
    assert compute_alignment(BlockReader(data)).matching == 2


def test_shifted_next_observations_are_counted_by_what_they_equal():
    shifted = steps([0] * 6, [0] * 6, next_observations=[0, 1, 2, 3, 4, 5])
    assert compute_alignment(BlockReader(shifted)) == Alignment(5, 0, 5, 0, 1, [0, 0])
    second = steps([0] * 6, [0] * 6, next_observations=[2, 3, 4, 5, 6, 7])
    assert compute_alignment(BlockReader(second)) == Alignment(5, 0, 0, 4, 1, [0, 0])
    # Step 1 is followed by the 3 that begins the next episode: no coincidence counts.
    apart = steps([0] * 6, [0, 0, 0, 1, 1, 1], next_observations=[2, 3, 4, 5, 6, 7])
    assert compute_alignment(BlockReader(apart)).equal_to_second_next == 2


@pytest.mark.parametrize("block_rows", [1, 2, 3, 7])
def test_pairs_across_two_blocks_are_compared_correctly(block_rows: int):
    data = cart_data()
    reader = BlockReader(data)
    reader.block_rows = block_rows
    alignment = compute_alignment(reader)
    assert alignment.matching == alignment.pairs
    assert reader.consecutive(slice(0, 21)).tolist() == [True] * 19 + [False]


def test_every_pair_of_the_log_is_compared():
    data = cart_data()
    reader = BlockReader(data)
    reader.block_rows = 100
    assert compute_alignment(reader).pairs == len(data) - len(data.ends)


# --- Misalignment --------------------------------------------------------------------------------


def test_the_action_and_the_reward_explain_their_own_row_best():
    misalignment = misalignment_of(cart_data())
    assert (
        misalignment.action_r2_gain[1]
        > 0.8
        > 10 * max(misalignment.action_r2_gain[0], misalignment.action_r2_gain[2])
    )
    assert misalignment.reward_r2[1] > max(misalignment.reward_r2[0], misalignment.reward_r2[2])


@pytest.mark.parametrize(("by", "best"), [(1, 2), (-1, 0)])
def test_a_shifted_action_explains_more_in_another_row(by: int, best: int):
    data = cart_data(lambda log: log.update(actions=np.roll(log["actions"], by, axis=0)))
    misalignment = misalignment_of(data)
    assert int(np.argmax(misalignment.action_r2_gain)) == best


@pytest.mark.parametrize("width", [0, 1, 30])
def test_explained_variance_is_between_0_and_1_for_degenerate_columns(width: int):
    """A rare outlier and columns that repeat each other make a fit that is worse than none."""
    log = cart_arrays()
    count = len(log["rewards"])
    outlier = np.sin(np.arange(count) * 0.7)
    outlier[1::20] = -999
    add_column(log, outlier)
    add_column(log, log["actions"][:, 0], log["actions"][:, 0])
    for _ in range(width):
        add_column(log, log["observations"][:, 0] * 3)
    log["actions"] = log["actions"] * 0.05
    log["rewards"][:] = 0
    misalignment = misalignment_of(cart_data(lambda _: log))
    assert all(0 <= share <= 1 for share in [*misalignment.action_r2_gain, *misalignment.reward_r2])


def test_fit_worse_than_the_mean_explains_nothing():
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(60, 25)), generator.normal(size=(60, 2))
    assert _explained_variance(features, targets).tolist() == [0.0, 0.0]
    exact = _explained_variance(features, features[:, :1] * 2)
    assert exact == pytest.approx([1.0])


def test_single_outlier_does_not_dominate_the_fit():
    def outlier(log):
        for name in ("observations", "next_observations"):
            log[name] = log[name].copy()
        log["observations"][101] = 1e6  # among the steps that are not fitted
        log["next_observations"][100] = 1e6

    misalignment = misalignment_of(cart_data(outlier))
    assert misalignment.reward_r2[1] > 0.9


def test_too_few_steps_have_no_misalignment():
    assert compute_misalignment(BlockReader(steps([0] * 5, [0] * 5))) is None


# --- Columns -------------------------------------------------------------------------------------


def test_moments_of_columns_equal_numpy_for_any_block_size():
    data = continuous_data(1000)
    reader = BlockReader(data)
    reader.block_rows = 37
    for k, column in enumerate(compute_columns(reader).columns):
        values = data.observations[:, k].astype(np.float64)
        assert column.mean == pytest.approx(values.mean())
        assert column.std == pytest.approx(values.std())
        assert (column.min, column.max) == (values.min(), values.max())


def test_kinds_of_columns():
    log = cart_arrays()
    count = len(log["rewards"])
    starts = np.flatnonzero(np.diff(log["episodes"], prepend=-1))
    clock = np.arange(count) - np.repeat(starts, np.diff(np.append(starts, count)))
    flag = np.arange(count) % 3 == 0
    add_column(log, np.full(count, 3.0))
    add_column(log, log["episodes"].astype(float))
    add_column(log, clock.astype(float), clock + 1.0)
    add_column(log, flag.astype(float))
    add_column(log, 1.0 - flag)
    columns = compute_columns(BlockReader(cart_data(lambda _: log)))
    plain, speed, same, episode, time, one, other = columns.columns
    assert [c.constant for c in columns.columns].index(True) == 2
    assert same.constant
    assert episode.constant_per_episode
    assert episode.integer
    assert not episode.increasing
    assert time.increasing
    assert not time.constant_per_episode
    assert not any((plain.increasing, plain.integer, plain.binary, speed.constant_per_episode))
    assert one.binary
    assert other.binary
    assert columns.one_hot_groups == [[one.name, other.name]]


def test_one_hot_groups_are_neighbors_that_sum_to_one():
    first = np.eye(3)[[0, 1, 2, 1]]
    rows = np.column_stack([first, [5, 6, 7, 8], first[:, :2]])
    binary = np.array([True, True, True, False, True, True])
    assert find_one_hot_groups(rows, binary) == [[0, 1, 2]]


def test_rows_far_from_the_mean_are_counted():
    values = [0.0, 1.0] * 500
    values[7] = 1e6
    columns = compute_columns(
        BlockReader(steps([0] * 1000, [0] * 1000, observations=values))
    ).columns[0]
    assert (columns.outliers, columns.max) == (1, 1e6)


# --- Duplicates ----------------------------------------------------------------------------------


def test_copies_of_steps_and_of_whole_episodes_are_counted_without_their_originals():
    data = steps(
        [1, 2, 1, 2, 1, 9], [0, 0, 1, 1, 2, 2], observations=[0, 1, 0, 1, 0, 1],
        next_observations=[1, 2, 1, 2, 1, 2],
    )  # fmt: skip
    duplicates = find_duplicates(BlockReader(data))
    assert (
        duplicates.transitions,
        duplicates.episodes,
        duplicates.transitions_in_copied_episodes,
    ) == (3, 1, 2)
    assert duplicates.first == [1, 0]


def test_same_steps_in_another_order_are_not_a_copied_episode():
    data = steps([1, 2, 2, 1], [0, 0, 1, 1], observations=[0] * 4, next_observations=[1] * 4)
    duplicates = find_duplicates(BlockReader(data))
    assert (duplicates.transitions, duplicates.episodes, duplicates.first) == (2, 0, None)


def test_every_bit_of_a_number_reaches_the_low_bits_of_its_hash():
    bits = np.array([0, 1 << 63, 1 << 40, 1], np.uint64)
    assert len(np.unique(_mix(bits) & np.uint64(0xFFFFFFFF))) == 4


def test_different_rows_have_different_hashes():
    """Whole numbers: their bits end in zeros, which weak hashes confuse."""
    grid = np.stack(np.meshgrid(np.arange(400.0), np.arange(300.0)), -1).reshape(-1, 2)
    data = Transitions.pack(
        observations=grid,
        actions=np.zeros((len(grid), 1)),
        rewards=np.zeros(len(grid)),
        next_observations=grid,
        terminated=np.zeros(len(grid), bool),
        episodes=np.zeros(len(grid)),
        spaces=Spaces(2, 1, False, (-1.0,), (1.0,)),
        dataset_id="test/grid-v0",
    )
    assert find_duplicates(BlockReader(data)).transitions == 0


# --- Actions and propensities --------------------------------------------------------------------


def test_actions_at_the_bounds_and_normalized_entropy():
    actions = compute_actions(
        BlockReader(steps([0] * 4, [0] * 4, actions=[1.0, -1.0, 0.0, 0.5]))
    ).dimensions[0]
    assert (actions.at_bounds, actions.min, actions.max, actions.mean) == (0.5, -1.0, 1.0, 0.125)
    assert actions.normalized_entropy == pytest.approx(math.log(4) / math.log(20))
    assert [k for k, count in enumerate(actions.counts) if count] == [0, 10, 15, 19]


def test_pairs_of_dimensions_share_cells():
    actions = compute_actions(BlockReader(continuous_data(64)))
    assert actions.pair_coverage is not None
    assert 0.1 < actions.pair_coverage <= 64 / 400
    assert compute_actions(BlockReader(cart_data())).pair_coverage is None


def test_discrete_actions_are_counted_with_unused_ones():
    data = discrete_data(64, actions=5)
    actions = compute_actions(BlockReader(data))
    assert [c.count for c in actions.discrete_actions] == np.bincount(
        data.actions, minlength=5
    ).tolist()
    assert actions.entropy == pytest.approx(entropy(np.bincount(data.actions)))


def test_effective_sample_share_of_inverse_propensities():
    data = discrete_data(64)
    assert compute_propensities(data) is None
    logged_ = np.full(64, 0.5, np.float32)
    equal = compute_propensities(dataclasses.replace(data, propensities=logged_))
    assert equal is not None
    assert equal.effective_sample_share == pytest.approx(1.0)
    logged_[0] = 1e-6  # one step with all of the weight
    one = compute_propensities(dataclasses.replace(data, propensities=logged_))
    assert one is not None
    assert one.effective_sample_share == pytest.approx(1 / 64, rel=1e-2)
    logged_[:] = 1
    certain = compute_propensities(dataclasses.replace(data, propensities=logged_))
    assert certain is not None
    assert certain.deterministic == 1.0


# --- Similar states ------------------------------------------------------------------------------


def test_spread_is_0_when_the_state_decides_and_1_for_random_actions():
    def deterministic(log):
        log["actions"] = np.tanh(log["observations"][:, :1])

    same = neighbors_of(cart_data(deterministic))
    chance = neighbors_of(cart_data())
    assert same.action_spread < 0.05
    assert 0.9 < chance.action_spread < 1.1
    assert sum(same.counts) == same.states == len(cart_data())


def test_spread_of_discrete_actions_is_an_entropy_in_nats():
    neighbors = neighbors_of(cart_data(discrete=True))
    assert neighbors.action_entropy_total == pytest.approx(math.log(3), abs=0.01)
    assert neighbors.action_entropy is not None
    assert 0.9 < neighbors.action_entropy < math.log(3)

    def deterministic(log):
        log["actions"] = (log["observations"][:, 0] > 0).astype(int)

    neighbors = neighbors_of(cart_data(deterministic, discrete=True))
    assert neighbors.action_spread < 0.2


def test_neighbors_come_from_other_episodes():
    """Each episode stays near one point, so that its own steps would be the nearest."""
    size = 40
    data = steps(
        [0.0] * 10 * size,
        [e for e in range(10) for _ in range(size)],
        actions=[e / 10 for e in range(10) for _ in range(size)],
        observations=[e + k / 1000 for e in range(10) for k in range(size)],
    )
    neighbors = neighbors_of(data)
    assert neighbors.other_episodes
    assert neighbors.relative_distance > 0.1
    one = dataclasses.replace(data, ends=np.array([len(data)]))
    alone = neighbors_of(one)
    assert not alone.other_episodes
    assert alone.relative_distance < 0.01


def test_fewer_than_40_steps_have_no_neighbors():
    assert compute_neighbors(BlockReader(steps([0] * 39, [0] * 39)), gamma=0.9) is None


# --- All statistics ------------------------------------------------------------------------------


def test_short_audit_reads_blocks_spread_over_the_log():
    data = cart_data()
    reader = BlockReader(data, max_rows=320)
    rows = list(reader.blocks())
    assert sum(r.stop - r.start for r in rows) == 320
    assert (rows[0].start, rows[-1].stop, len(rows)) == (0, len(data), 16)
    statistics = statistics_of(data, short=True)
    full_only = (statistics.duplicates, statistics.neighbors, statistics.misalignment)
    assert full_only == (None, None, None)
    assert statistics.episodes == statistics_of(data).episodes


def test_progress_adds_up_to_full_passes():
    from support.builders import settings

    from offline_cql.audit.statistics import FULL_PASSES, compute_statistics

    data, done = cart_data(), []
    compute_statistics(
        data, settings().dataset, SCORES, gamma=0.9, short=False, on_rows=done.append
    )
    assert sum(done) == FULL_PASSES * len(data)


def test_split_follows_the_settings():
    split = statistics_of(
        cart_data(), "dataset.validation_fraction=0.25", "dataset.top_fraction=0.5"
    ).split
    assert (split.validation_episodes, split.training_episodes) == (15, 22)


def test_pixels_of_images_are_audited():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (65, 2_000)).astype(np.uint8)
    plain = discrete_data(64)
    spaces = dataclasses.replace(plain.spaces, observation_dim=2_000)
    data = Transitions(
        rows=np.column_stack([plain.actions, plain.rewards, plain.terminated]).astype(np.float32),
        ends=plain.ends,
        spaces=spaces,
        dataset_id="test/images-v0",
        sha256="0" * 64,
        images=np.stack([pixels[:-1], pixels[1:]], axis=1),
    )
    statistics = statistics_of(data)
    assert (
        statistics.identity.images,
        statistics.observations.total,
        len(statistics.observations.columns),
    ) == (
        *(True, 2_000),
        500,
    )
    assert statistics.alignment.matching == statistics.alignment.pairs == 60
    assert statistics.misalignment is None


KEYS = {
    *("format", "short", "rows_read", "identity", "repairs", "split", "scores", "episodes"),
    *("rewards", "alignment", "misalignment", "observations", "leakage", "actions"),
    *("propensities", "duplicates", "neighbors"),
}


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_keys_of_audit_json_are_stable(discrete: bool, short: bool):
    """Programs read them: increase `format` when a key is removed or changes its meaning."""
    statistics = statistics_of(cart_data(discrete=discrete), short=short)
    plain = json.loads(json.dumps(dataclasses.asdict(statistics)))
    assert set(plain) == KEYS
    assert plain["format"] == 2
    assert set(plain["episodes"]) >= {"count", "length", "undiscounted", "discounted", "terminated"}
