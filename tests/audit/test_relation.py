"""Guarantee: the measures of `audit/relation.py` have the values that are worked out by hand."""

import numpy as np
import pytest

from offline_cql.audit.relation import (
    bins,
    class_spread,
    explained_by_bins,
    explained_by_columns,
    ranks,
    separation,
    skill,
    two_way,
)

NUMBERS = np.linspace(0, 1, 2_000)


def noise(size: int = 2_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def test_equal_numbers_have_their_mean_rank():
    """Places 0, 1, 2, 3 of the ordered 1, 5, 5, 9, as numbers of rows below plus half of equals."""
    assert ranks(np.array([[5.0], [1.0], [5.0], [9.0]]))[:, 0].tolist() == [2.0, 0.5, 2.0, 3.5]


def test_bins_are_values_if_few_and_of_equal_size_if_many():
    assert bins(np.array([7.0, 3.0, 7.0])).tolist() == [1, 0, 1]
    assert np.bincount(bins(noise())).tolist() == [40] * 50


def test_explained_share_by_hand():
    """Means 1 and 5 in the bins, 3 over all: 4 · 2² of 6.25 + 2.25 + 2.25 + 6.25."""
    values = np.array([[0.5], [1.5], [4.5], [5.5]])
    assert explained_by_bins(np.array([0, 0, 1, 1]), values)[0] == pytest.approx(16 / 17)


def test_skill_is_the_share_of_errors_that_are_avoided():
    """Always 0 errs 4 times of 10; the labels err once."""
    classes = np.array([0] * 6 + [1] * 4)
    labels = np.array([0] * 7 + [1] * 3)
    assert skill(labels, classes) == pytest.approx(3 / 4)
    assert skill(labels, np.zeros(10, int)) == 0


def test_spread_is_1_for_an_even_split_and_0_for_an_echo():
    codes = np.repeat(np.arange(4), 500)
    spread = class_spread(codes, np.column_stack([NUMBERS, np.array([5, 2, 9, 1])[codes]]))
    assert spread == pytest.approx([1, 0], abs=1e-3)


def test_separation_by_hand():
    """Of the pairs of a 1 and a 0, three of four are in order: AUC 0.75."""
    binary = np.array([0.0, 1.0, 0.0, 1.0])
    assert separation(binary, np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(0.5)
    assert separation(binary, -binary) == 1


@pytest.mark.parametrize("function", [np.exp, lambda x: -3 * x, lambda x: x**3])
def test_monotone_function_is_told_both_ways(function):
    assert two_way(noise(), function(noise())) > 0.99


def test_square_is_told_one_way_only():
    assert two_way(noise(), noise() ** 2) < 0.1


def test_threshold_of_a_number_is_not_told_both_ways():
    """The sign follows from the number, not the number from the sign."""
    assert two_way(noise(), (noise() > 0) * 1.0) == 0


def test_codes_in_another_order_are_told_both_ways():
    codes = np.random.default_rng(0).integers(0, 3, 2_000)
    assert two_way(np.array([5.0, 2.0, 9.0])[codes], codes) == 1
    assert two_way(codes + 0.02 * noise(), codes) > 0.9


def test_columns_explain_a_sum_and_a_product_of_them():
    """A product needs the nearest rows: least squares on columns and squares miss it."""
    columns = np.column_stack([noise(), noise(seed=1)])
    group = np.arange(2_000)
    assert explained_by_columns(columns, columns.sum(axis=1), group) > 0.99
    assert explained_by_columns(columns, columns.prod(axis=1), group) > 0.7
    assert explained_by_columns(columns, noise(seed=2), group) < 0.05
