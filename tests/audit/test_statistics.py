"""Promise: each figure is what its docstring says, worked by hand on logs of a few steps."""

import dataclasses
import json
import math

import numpy as np
import pytest
from support.builders import continuous_data, discrete_data
from support.logged import SCORED, arrays, figures, logged, with_column

from offline_cql.audit.actions import actions, propensities
from offline_cql.audit.alignment import alignment
from offline_cql.audit.block_reader import Reading
from offline_cql.audit.columns import columns, one_hot
from offline_cql.audit.distribution import distribution, entropy
from offline_cql.audit.duplicates import _mixed, duplicates
from offline_cql.audit.episodes import discounted_returns, episodes, rewards, value_size
from offline_cql.audit.misalignment import _explained, lags
from offline_cql.audit.neighbors import neighbors
from offline_cql.transitions import Spaces, Transitions

LINE = Spaces(1, 1, False, (-1.0,), (1.0,))


def steps(
    rewards: list[float],
    episodes: list[int],
    *,
    terminated: list[int] | None = None,
    actions: list[float] | None = None,
    observations: list[float] | None = None,
    following: list[float] | None = None,
) -> Transitions:
    """A log of single numbers; the observation counts the steps, the action is 0."""
    size = len(rewards)
    seen = np.arange(size, dtype=float) if observations is None else np.array(observations)
    after = seen + 1 if following is None else np.array(following)
    return Transitions.pack(
        observations=seen[:, None],
        actions=np.array(actions or [0.0] * size)[:, None],
        rewards=np.array(rewards),
        next_observations=after[:, None],
        terminated=np.array(terminated or [0] * size, bool),
        episodes=np.array(episodes),
        spaces=LINE,
        dataset_id="test/line-v0",
    )


# --- Episodes and rewards ------------------------------------------------------------------------


def test_returns_are_sums_and_discounted_ones_weigh_by_the_step_in_the_episode():
    data = steps([1, 1, 1, 2, 2], [0, 0, 0, 1, 1], terminated=[0, 0, 1, 0, 0])
    found = episodes(data, gamma=0.5)
    assert discounted_returns(data, gamma=0.5).tolist() == [1.75, 3.0]
    assert (found.count, found.terminal, found.truncated, found.of_one_step) == (2, 1, 1, 0)
    assert (found.undiscounted.min, found.undiscounted.max) == (3.0, 4.0)
    assert (found.discounted.mean, found.discounted.std) == (2.375, 0.625)
    assert (found.length.mean, found.length.max) == (2.5, 3.0)
    assert (found.longest, found.longest_terminal) == (1, 1)
    assert found.over_the_log == [[0.0, 3.0, 3.0, 3.0], [1.0, 4.0, 4.0, 4.0]]


def test_returns_over_a_long_log_are_grouped_and_lose_no_episode():
    size = 1_000
    found = episodes(steps(list(range(size)), list(range(size))), gamma=0.9).over_the_log
    assert len(found) == 200
    assert found[1] == [5.0, 7.0, 5.0, 9.0]
    assert found[-1] == [995.0, 997.0, 995.0, 999.0]


def test_rewards_count_zeros_values_and_what_falls_on_last_steps():
    found = rewards(steps([0, 0, 3, 0, -1], [0, 0, 0, 1, 1]))
    assert (found.zero, found.at_ends, found.values) == (0.6, 1.0, 3)
    assert (found.step.min, found.step.median, found.step.max) == (-1.0, 0.0, 3.0)
    assert rewards(steps(list(range(30)), [0] * 30)).values is None
    assert rewards(steps([0] * 500 + list(range(30)), [0] * 530)).values is None


def test_the_size_of_values_is_the_larger_of_discounted_returns_and_single_rewards():
    small = steps([0, 0, 10], [0, 0, 0])
    assert value_size(episodes(small, gamma=0.1), rewards(small)) == pytest.approx(10)
    long = steps([-1] * 100, [0] * 100)
    size = value_size(episodes(long, gamma=0.9), rewards(long))
    assert size == pytest.approx(10, rel=1e-3)


def test_a_distribution_of_equal_numbers_has_no_spread():
    found = distribution(np.full(7, 2.0))
    assert (found.mean, found.std, found.q05, found.q95) == (2.0, 0.0, 2.0, 2.0)
    assert sum(found.counts) == 7


@pytest.mark.parametrize(("counts", "nats"), [([5, 0], 0), ([3, 3], math.log(2))])
def test_entropy(counts: list[int], nats: float):
    assert entropy(np.array(counts)) == pytest.approx(nats)


# --- Alignment -----------------------------------------------------------------------------------


def test_consecutive_steps_of_an_episode_fit_and_ends_are_not_compared():
    data = steps([0] * 5, [0, 0, 0, 1, 1], following=[1, 2, 99, 4, 98])
    found = alignment(Reading(data))
    assert (found.pairs, found.equal, found.first) == (3, 3, None)


def test_the_first_difference_is_named_by_episode_and_step():
    data = steps([0] * 5, [0, 0, 0, 1, 1], following=[1, 2, 99, 7, 98])
    found = alignment(Reading(data))
    assert (found.pairs, found.equal, found.episodes, found.first) == (3, 2, 1, [1, 0])


def test_rounding_is_no_difference():
    data = steps([0] * 3, [0] * 3, observations=[1, 2, 3], following=[2.000001, 3.000001, 4])
    assert alignment(Reading(data)).equal == 2


def test_an_array_joined_with_a_shift_is_told_by_what_it_equals():
    own = steps([0] * 6, [0] * 6, following=[0, 1, 2, 3, 4, 5])
    found = alignment(Reading(own))
    assert (found.pairs, found.equal, found.own, found.second) == (5, 0, 5, 0)
    second = steps([0] * 6, [0] * 6, following=[2, 3, 4, 5, 6, 7])
    found = alignment(Reading(second))
    assert (found.equal, found.own, found.second) == (0, 0, 4)
    # Step 1 is followed by the 3 that begins the next episode: no coincidence counts.
    apart = steps([0] * 6, [0, 0, 0, 1, 1, 1], following=[2, 3, 4, 5, 6, 7])
    assert alignment(Reading(apart)).second == 2


@pytest.mark.parametrize("each", [1, 2, 3, 7])
def test_pairs_across_two_blocks_are_compared_or_left_out_but_never_wrong(each: int):
    data = logged()
    reading = Reading(data)
    reading._each = each
    found = alignment(reading)
    assert found.equal == found.pairs
    assert reading.inside(slice(0, 21)).tolist() == [True] * 19 + [False]


def test_every_pair_of_the_log_is_looked_at():
    data = logged()
    reading = Reading(data)
    reading._each = 100
    assert alignment(reading).pairs == len(data) - len(data.ends)


# --- Rows in the wrong place ---------------------------------------------------------------------


def test_the_action_and_the_reward_explain_their_own_row_best():
    found = lags(Reading(logged()))
    assert found is not None
    assert found.action[1] > 0.8 > 10 * max(found.action[0], found.action[2])
    assert found.reward[1] > max(found.reward[0], found.reward[2])


@pytest.mark.parametrize(("by", "best"), [(1, 2), (-1, 0)])
def test_a_shifted_action_explains_more_in_another_row(by: int, best: int):
    data = logged(lambda log: log.update(actions=np.roll(log["actions"], by, axis=0)))
    found = lags(Reading(data))
    assert found is not None
    assert int(np.argmax(found.action)) == best


@pytest.mark.parametrize("width", [0, 1, 30])
def test_what_is_explained_is_a_share_whatever_the_columns(width: int):
    """A rare outlier and columns that repeat each other make a fit that is worse than none."""
    log = arrays()
    count = len(log["rewards"])
    outlier = np.sin(np.arange(count) * 0.7)
    outlier[1::20] = -999
    with_column(log, outlier)
    with_column(log, log["actions"][:, 0], log["actions"][:, 0])
    for _ in range(width):
        with_column(log, log["observations"][:, 0] * 3)
    log["actions"] = log["actions"] * 0.05
    log["rewards"][:] = 0
    found = lags(Reading(logged(lambda _: log)))
    assert found is not None
    assert all(0 <= share <= 1 for share in [*found.action, *found.reward])


def test_a_fit_that_is_worse_than_none_explains_nothing():
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(60, 25)), generator.normal(size=(60, 2))
    assert _explained(features, targets).tolist() == [0.0, 0.0]
    exact = _explained(features, features[:, :1] * 2)
    assert exact == pytest.approx([1.0])


def test_one_outlier_is_not_all_that_is_fitted():
    def outlier(log):
        for name in ("observations", "next_observations"):
            log[name] = log[name].copy()
        log["observations"][101] = 1e6  # among the steps that are not fitted
        log["next_observations"][100] = 1e6

    found = lags(Reading(logged(outlier)))
    assert found is not None
    assert found.reward[1] > 0.9


def test_too_few_steps_say_nothing_of_lags():
    assert lags(Reading(steps([0] * 5, [0] * 5))) is None


# --- Columns -------------------------------------------------------------------------------------


def test_moments_of_columns_are_those_of_numpy_whatever_the_blocks():
    data = continuous_data(1000)
    reading = Reading(data)
    reading._each = 37
    for k, column in enumerate(columns(reading).columns):
        values = data.observations[:, k].astype(np.float64)
        assert column.mean == pytest.approx(values.mean())
        assert column.std == pytest.approx(values.std())
        assert (column.min, column.max) == (values.min(), values.max())


def test_kinds_of_columns():
    log = arrays()
    count = len(log["rewards"])
    starts = np.flatnonzero(np.diff(log["episodes"], prepend=-1))
    clock = np.arange(count) - np.repeat(starts, np.diff(np.append(starts, count)))
    flag = np.arange(count) % 3 == 0
    with_column(log, np.full(count, 3.0))
    with_column(log, log["episodes"].astype(float))
    with_column(log, clock.astype(float), clock + 1.0)
    with_column(log, flag.astype(float))
    with_column(log, 1.0 - flag)
    found = columns(Reading(logged(lambda _: log)))
    plain, speed, same, episode, time, one, other = found.columns
    assert [c.constant for c in found.columns].index(True) == 2
    assert same.constant
    assert episode.fixed_in_episodes
    assert episode.whole
    assert not episode.grows
    assert time.grows
    assert not time.fixed_in_episodes
    assert not any((plain.grows, plain.whole, plain.binary, speed.fixed_in_episodes))
    assert one.binary
    assert other.binary
    assert found.one_hot == [[one.name, other.name]]


def test_one_hot_groups_are_neighbors_that_sum_to_one():
    first = np.eye(3)[[0, 1, 2, 1]]
    rows = np.column_stack([first, [5, 6, 7, 8], first[:, :2]])
    binary = np.array([True, True, True, False, True, True])
    assert one_hot(rows, binary) == [[0, 1, 2]]


def test_a_column_that_repeats_action_or_reward_is_found_in_the_units_of_either():
    log = arrays()
    with_column(log, log["actions"][:, 0], log["actions"][:, 0])
    with_column(log, 2 * log["actions"][:, 0], log["actions"][:, 0])
    with_column(log, log["rewards"], log["rewards"])
    found = [c.same_as for c in columns(Reading(logged(lambda _: log))).columns]
    assert found == [
        *(None, None),
        *("action 0, scaled to [-1, 1]", "action 0"),
        "the reward",
    ]


def test_rows_far_from_the_mean_are_counted():
    values = [0.0, 1.0] * 500
    values[7] = 1e6
    found = columns(Reading(steps([0] * 1000, [0] * 1000, observations=values))).columns[0]
    assert (found.far, found.max) == (1, 1e6)


# --- Duplicates ----------------------------------------------------------------------------------


def test_copies_of_steps_and_of_whole_episodes_are_counted_without_their_originals():
    data = steps(
        [1, 2, 1, 2, 1, 9], [0, 0, 1, 1, 2, 2], observations=[0, 1, 0, 1, 0, 1],
        following=[1, 2, 1, 2, 1, 2],
    )  # fmt: skip
    found = duplicates(Reading(data))
    assert (found.transitions, found.episodes, found.transitions_of_episodes) == (3, 1, 2)
    assert found.first == [1, 0]


def test_the_same_steps_in_another_order_are_no_copied_episode():
    data = steps([1, 2, 2, 1], [0, 0, 1, 1], observations=[0] * 4, following=[1] * 4)
    found = duplicates(Reading(data))
    assert (found.transitions, found.episodes, found.first) == (2, 0, None)


def test_every_bit_of_a_number_reaches_the_low_bits_of_its_hash():
    bits = np.array([0, 1 << 63, 1 << 40, 1], np.uint64)
    assert len(np.unique(_mixed(bits) & np.uint64(0xFFFFFFFF))) == 4


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
    assert duplicates(Reading(data)).transitions == 0


# --- Actions and propensities --------------------------------------------------------------------


def test_actions_at_a_bound_and_their_evenness():
    found = actions(Reading(steps([0] * 4, [0] * 4, actions=[1.0, -1.0, 0.0, 0.5]))).dimensions[0]
    assert (found.saturated, found.min, found.max, found.mean) == (0.5, -1.0, 1.0, 0.125)
    assert found.evenness == pytest.approx(math.log(4) / math.log(20))
    assert (found.counts[0], found.counts[10], found.counts[15], found.counts[19]) == (1, 1, 1, 1)


def test_pairs_of_dimensions_share_cells():
    found = actions(Reading(continuous_data(64)))
    assert found.pairs is not None
    assert 0.1 < found.pairs <= 64 / 400
    assert actions(Reading(logged())).pairs is None


def test_choices_are_counted_and_unused_ones_too():
    data = discrete_data(64, actions=5)
    found = actions(Reading(data))
    assert [c.count for c in found.choices] == np.bincount(data.actions, minlength=5).tolist()
    assert found.entropy == pytest.approx(entropy(np.bincount(data.actions)))


def test_the_effective_share_is_that_of_inverse_propensities():
    data = discrete_data(64)
    assert propensities(data) is None
    logged_ = np.full(64, 0.5, np.float32)
    equal = propensities(dataclasses.replace(data, propensities=logged_))
    assert equal is not None
    assert equal.effective == pytest.approx(1.0)
    logged_[0] = 1e-6  # one step with all of the weight
    one = propensities(dataclasses.replace(data, propensities=logged_))
    assert one is not None
    assert one.effective == pytest.approx(1 / 64, rel=1e-2)
    logged_[:] = 1
    certain = propensities(dataclasses.replace(data, propensities=logged_))
    assert certain is not None
    assert certain.certain == 1.0


# --- Similar states ------------------------------------------------------------------------------


def test_a_state_that_decides_the_action_leaves_no_spread_and_chance_leaves_all():
    def decided(log):
        log["actions"] = np.tanh(log["observations"][:, :1])

    same = neighbors(Reading(logged(decided)), gamma=0.9)
    chance = neighbors(Reading(logged()), gamma=0.9)
    assert same is not None
    assert chance is not None
    assert same.action < 0.05
    assert 0.9 < chance.action < 1.1
    assert sum(same.counts) == same.states == len(logged())


def test_choices_have_entropies_in_nats():
    found = neighbors(Reading(logged(discrete=True)), gamma=0.9)
    assert found is not None
    assert found.action_entropy_of_all == pytest.approx(math.log(3), abs=0.01)
    assert found.action_entropy is not None
    assert 0.9 < found.action_entropy < math.log(3)

    def decided(log):
        log["actions"] = (log["observations"][:, 0] > 0).astype(int)

    found = neighbors(Reading(logged(decided, discrete=True)), gamma=0.9)
    assert found is not None
    assert found.action < 0.2


def test_neighbors_are_those_of_other_episodes():
    """Each episode stays near one place of its own: its own steps would be the nearest."""
    size = 40
    data = steps(
        [0.0] * 10 * size,
        [e for e in range(10) for _ in range(size)],
        actions=[e / 10 for e in range(10) for _ in range(size)],
        observations=[e + k / 1000 for e in range(10) for k in range(size)],
    )
    found = neighbors(Reading(data), gamma=0.9)
    assert found is not None
    assert found.other_episodes
    assert found.distance > 0.1
    one = dataclasses.replace(data, ends=np.array([len(data)]))
    alone = neighbors(Reading(one), gamma=0.9)
    assert alone is not None
    assert not alone.other_episodes
    assert alone.distance < 0.01


def test_a_few_steps_have_no_neighbors():
    assert neighbors(Reading(steps([0] * 39, [0] * 39)), gamma=0.9) is None


# --- All of them ---------------------------------------------------------------------------------


def test_the_short_form_looks_at_blocks_that_are_spread_over_the_log():
    data = logged()
    reading = Reading(data, most=320)
    rows = list(reading.blocks())
    assert sum(r.stop - r.start for r in rows) == 320
    assert (rows[0].start, rows[-1].stop, len(rows)) == (0, len(data), 16)
    found = figures(data, short=True)
    assert (found.duplicates, found.neighbors, found.lags) == (None, None, None)
    assert found.episodes == figures(data).episodes


def test_progress_adds_up_to_what_is_promised():
    from support.builders import settings

    from offline_cql.audit.statistics import FULL_PASSES, measured

    data, done = logged(), []
    measured(data, settings().dataset, SCORED, gamma=0.9, short=False, advance=done.append)
    assert sum(done) == FULL_PASSES * len(data)


def test_the_split_is_the_one_of_the_settings():
    found = figures(logged(), "dataset.validation_fraction=0.25", "dataset.top_fraction=0.5").split
    assert (found.validation_episodes, found.training_episodes) == (15, 22)


def test_images_are_audited_by_their_pixels():
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
    found = figures(data)
    assert (found.identity.images, found.columns.total, len(found.columns.columns)) == (
        *(True, 2_000),
        500,
    )
    assert found.alignment.equal == found.alignment.pairs == 60
    assert found.lags is None


KEYS = {
    *("format", "short", "looked_at", "identity", "found", "split", "scores", "episodes"),
    *("rewards", "alignment", "lags", "columns", "actions", "propensities", "duplicates"),
    "neighbors",
}


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_the_keys_of_audit_json_are_stable(discrete: bool, short: bool):
    """A program reads them: a key that goes or changes its meaning takes another `format`."""
    plain = json.loads(json.dumps(figures(logged(discrete=discrete), short=short).plain()))
    assert set(plain) == KEYS
    assert plain["format"] == 1
    assert set(plain["episodes"]) >= {"count", "length", "undiscounted", "discounted", "terminal"}
    assert set(plain["alignment"]) == {"pairs", "equal", "own", "second", "episodes", "first"}
