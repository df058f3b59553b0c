"""Guarantee: pages and terminal tables write a number in the same way."""

import math

import pytest

from offline_cql.render.numbers import (
    format_count,
    format_interval,
    format_number,
    format_share,
    format_spread,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (-0.0, "0"), (0.056, "0.06"), (12.5, "12.5"), (-3.0, "-3"), (99.999, "100")),
        *((123.45, "123.5"), (400.0, "400"), (999.97, "1,000"), (1234.56, "1,235")),
        *((-12345.6, "-12,346"), (0.0012, "0.0012"), (1e-9, "1e-09"), (1.234e9, "1.2e+09")),
        *((None, "–"), (math.nan, "nan"), (-math.inf, "-inf")),
    ],
)
def test_a_number_has_about_four_significant_digits(value: float | None, text: str):
    assert format_number(value) == text


def test_an_interval_follows_its_value():
    assert format_interval(65.0, 61.25, 1234.0) == "65 [61.25, 1,234]"
    assert format_spread(65.0, 2.5) == "65 ± 2.5"


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
