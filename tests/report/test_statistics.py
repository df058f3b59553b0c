"""Guarantee: IQM, intervals and profiles equal rliable's, with numbers worked by hand."""

import numpy as np
import pytest

from offline_cql.report.statistics import (
    band,
    interval,
    iqm,
    mean,
    profile,
    profile_band,
    rank_correlation,
    resample,
)


def test_iqm_is_the_mean_of_the_middle_half():
    """The middle four of eight: (3 + 4 + 5 + 6) / 4; a score of 1,000 does not move it."""
    assert iqm(np.array([8.0, 1, 3, 6, 5, 4, 2, 7])) == 4.5
    assert iqm(np.array([1000.0, 1, 3, 6, 5, 4, 2, 7])) == 4.5


def test_iqm_cuts_whole_runs_rounded_down():
    """Six: one from each end, as scipy's trim_mean; three: none."""
    assert iqm(np.array([0.0, 1, 2, 3, 4, 100])) == 2.5
    assert iqm(np.array([0.0, 1, 11])) == 4.0


def test_iqm_works_along_the_last_axis():
    assert iqm(np.array([[0.0, 1, 2, 30], [4, 4, 4, 4]])).tolist() == [1.5, 4.0]


def test_a_resample_draws_within_tasks_only():
    """Two runs near 0 and three near 10: every resample keeps two and three."""
    drawn = resample([np.array([0.0, 1]), np.array([10.0, 11, 12])], 500, np.random.default_rng(0))
    assert drawn.shape == (500, 5)
    assert set(np.unique(drawn[:, :2])) == {0.0, 1.0}
    assert set(np.unique(drawn[:, 2:])) == {10.0, 11.0, 12.0}
    assert (drawn[:, 0] == drawn[:, 1]).mean() == pytest.approx(0.5, abs=0.1)  # with replacement


def test_the_interval_of_two_runs_per_task_is_that_of_all_their_resamples():
    """Tasks {0, 2} and {10, 14}: means of resamples run from (0+0+10+10)/4 to (2+2+14+14)/4, each
    with probability 1/16, more than the 2.5 % that an interval leaves out."""
    scores = [np.array([0.0, 2]), np.array([10.0, 14])]
    assert interval(scores, mean, resamples=4000, seed=0) == (6.5, 5.0, 8.0)


def test_an_interval_over_unequal_tasks_leaves_their_difference_out():
    """Stratified: without spread within tasks there is none, however far apart tasks are."""
    result = interval([np.zeros(3), np.full(3, 100.0)], mean, resamples=200, seed=0)
    assert result == (50.0, 50.0, 50.0)


def test_the_same_seed_gives_the_same_interval():
    scores = [np.arange(7.0), np.arange(5.0)]
    first, second, other = (interval(scores, iqm, resamples=300, seed=k) for k in (0, 0, 1))
    assert first == second
    assert first != other


def test_a_band_over_one_run_has_no_bounds():
    middle, low, high = band(np.array([[1.0, 2]]), resamples=100, seed=0)
    assert middle.tolist() == [1, 2]
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_band_over_two_runs_spans_them():
    """A quarter of the resamples of two runs is twice the lower one."""
    middle, low, high = band(np.array([[1.0, 5], [3, 5]]), resamples=1000, seed=0)
    assert [middle.tolist(), low.tolist(), high.tolist()] == [[2, 5], [1, 5], [3, 5]]


def test_a_profile_is_the_share_of_runs_strictly_above():
    result = profile(np.array([10.0, 20, 20, 40]), np.array([0.0, 10, 19, 20, 39, 40]))
    assert result.tolist() == [1, 0.75, 0.75, 0.25, 0.25, 0]


def test_a_profile_has_bounds_around_it():
    scores = [np.array([0.0, 10]), np.array([10.0, 10])]
    middle, low, high = profile_band(scores, np.array([-1.0, 5, 10]), resamples=500, seed=0)
    assert middle.tolist() == [1, 0.75, 0]
    assert [low.tolist(), high.tolist()] == [[1, 0.5, 0], [1, 1, 0]]


def test_rank_correlation_is_spearmans():
    """Ranks 1 2 3 4 against 1 3 2 4: 1 − 6 · 2 / (4 · 15) = 0.8."""
    values = np.array([1.0, 2, 3, 4])
    assert rank_correlation(values, np.array([0.1, 7, 5, 1e9])) == pytest.approx(0.8)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.ones(4)) is None


def test_equal_values_share_their_mean_rank():
    """Ranks 1.5 1.5 3 4 against 1 2 3 4, centered: 4.5 / √(4.5 · 5)."""
    result = rank_correlation(np.array([5.0, 5, 7, 9]), np.array([1.0, 2, 3, 4]))
    assert result == pytest.approx(4.5 / np.sqrt(4.5 * 5))
