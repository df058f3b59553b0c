"""Guarantee: pages and terminal tables write a number in the same way."""

import math

import pytest

from offline_cql.render.numbers import (
    format_count,
    format_difference,
    format_interval,
    format_number,
    format_share,
    format_size,
    format_spread,
    format_values,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (-0.0, "0"), (12.5, "12.5"), (-3.0, "-3"), (99.999, "100"), (20.0, "20")),
        *((0.05678, "0.0568"), (-0.0046, "-0.0046"), (0.99999, "1"), (0.00012345, "0.000123")),
        *((123.45, "123.5"), (400.0, "400"), (999.97, "1000"), (1234.56, "1235")),
        *((-12345.6, "-12,346"), (9999.9, "10,000"), (1e-9, "1e-09"), (1.234e9, "1.23e+09")),
        *((None, "–"), (math.nan, "nan"), (-math.inf, "-inf")),
    ],
)
def test_a_number_alone_has_three_or_four_significant_digits(value: float | None, text: str):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        # The width 0.0026 has the digits 2, 6, 0 up to the fifth decimal; all three end in 0 there.
        ((0.0046, 0.0034, 0.0060), "0.0046 [0.0034, 0.0060]"),
        ((0.00461, 0.0034, 0.0060), "0.00461 [0.00340, 0.00600]"),
        ((2753.1234, 2601.2, 2899.9), "2753 [2601, 2900]"),  # width 299
        ((12345.6, 11000.4, 13900.2), "12,346 [11,000, 13,900]"),  # whole numbers stay whole
        ((-0.123456, -0.2, -0.1), "-0.123 [-0.200, -0.100]"),  # width 0.1, printed 0.100
        ((-0.4, -50.0, 50.0), "0 [-50, 50]"),  # not -0
        ((0.5, 0.0004, 1.0), "0.5 [0.0, 1.0]"),  # width 0.9996, which is 1.00
        ((5.0, 3.0, 1.25), "5.00 [3.00, 1.25]"),  # bounds in the wrong order are not hidden
        ((7.0, 3.0, 4.0), "7 [3, 4]"),  # a value outside of its bounds neither
        ((2753.1234, 2753.1230, 2753.1239), "2753.1234 [2753.1230, 2753.1239]"),
        ((4.61e-7, 3.4e-7, 6e-7), "4.61e-07 [3.40e-07, 6.00e-07]"),
        ((1.234e12, 1.2e12, 1.3e12), "1.234e+12 [1.200e+12, 1.300e+12]"),
    ],
)
def test_an_interval_has_three_digits_of_its_width(interval: tuple[float, ...], text: str):
    assert format_interval(*interval) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((0.3, 0.3, 0.3), "0.3 [0.3, 0.3]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((65.1234, 65.1234, 65.1234), "65.12 [65.12, 65.12]"),
        ((0.3, 0.3 - 1e-9, 0.3 + 1e-9), "0.3 [0.3, 0.3]"),  # float32's rounding
        ((math.nan, math.nan, math.nan), "nan [nan, nan]"),
        ((65.1234, math.nan, math.nan), "65.12 [nan, nan]"),
        ((65.1234, -math.inf, math.inf), "65.12 [-inf, inf]"),
        ((math.nan, 1.0, 2.0), "nan [1, 2]"),
        ((0.0, -1e308, 1e308), "0 [-1e+308, 1e+308]"),  # the width overflows
    ],
)
def test_without_a_finite_width_each_number_stands_alone(interval: tuple[float, ...], text: str):
    assert format_interval(*interval) == text


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        *((65.0, 2.5, "65.0 ± 2.5"), (-632.14, 501.62, "-632 ± 502"), (0.0046, 0.0677, None)),
        *((65.1234, 0.0, "65.12 ± 0"), (0.0, 0.0, "0 ± 0"), (math.nan, math.nan, "nan ± nan")),
        *((1e6, 123456.0, "1,000,000 ± 123,456"), (12.0, math.inf, "12 ± inf")),
    ],
)
def test_a_spread_has_three_digits(mean: float, std: float, text: str | None):
    assert format_spread(mean, std) == (text or "0.0046 ± 0.0677")


def test_numbers_of_one_width_share_their_decimals():
    """Width 2.6: two decimals, of which the last is 0 in all."""
    assert format_values(1.5, -20.0, 0.04, width=2.6) == ["1.50", "-20.00", "0.04"]
    assert format_values(1.5, -20.0, 0.0, width=-2.6) == ["1.5", "-20.0", "0.0"]
    assert format_values(1.5, 2.0, width=0.0) == ["1.5", "2"]


def test_a_difference_has_a_sign():
    assert [format_difference(x) for x in (0.0012, -7.5, 0.0)] == ["+0.0012", "-7.5", "0"]


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (20_500, "20.5 kB")),
        *((12_345_678, "12.35 MB"), (999_999_999, "1000 MB"), (1.5e9, "1.5 GB")),
        *((3.2e13, "32,000 GB"),),
    ],
)
def test_a_size_is_in_the_unit_that_leaves_it_above_1(n_bytes: float, text: str):
    assert format_size(n_bytes) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0.0, "0%"), (1.0, "100%"), (0.0004, "<0.1%"), (0.9996, ">99.9%")),
        *((0.012, "1.2%"), (0.05, "5%"), (0.5, "50%"), (0.996, "99.6%"), (0.123, "12%")),
    ],
)
def test_a_share_is_0_or_100_percent_only_when_it_is_exact(share: float, text: str):
    assert format_share(share) == text


def test_a_count_has_its_noun_in_the_right_number():
    assert [format_count(n, "run") for n in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]
