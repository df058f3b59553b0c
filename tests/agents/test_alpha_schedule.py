"""Guarantee: alpha is a pure function of the update, a ramp times a factor as in the equations."""

import math
from typing import Any

import pytest

from offline_cql.agents.schedules import alpha_at
from offline_cql.config import AlphaScheduleConfig

CONSTANT = AlphaScheduleConfig(
    kind="constant", warmup=0, final_factor=None, until=None, points=None
)


def changed(**values: Any) -> AlphaScheduleConfig:
    return CONSTANT.model_copy(update=values)


def decay(kind: str, *, final_factor: float = 0.25, warmup: int = 0) -> AlphaScheduleConfig:
    return changed(kind=kind, final_factor=final_factor, until=100, warmup=warmup)


@pytest.mark.parametrize("update", [0, 1, 10_000])
def test_constant_is_alpha_at_every_update(update: int):
    assert alpha_at(update, alpha=5.0, schedule=CONSTANT) == 5.0


@pytest.mark.parametrize(("update", "expected"), [(0, 0.0), (5, 1.0), (10, 2.0), (11, 2.0)])
def test_warmup_grows_linearly_from_zero_and_stops(update: int, expected: float):
    """Warm-up of 10 updates to alpha 2: half of it after 5."""
    assert alpha_at(update, alpha=2.0, schedule=changed(warmup=10)) == expected


@pytest.mark.parametrize(
    ("kind", "middle"),
    [
        ("linear", 0.625),  # halfway from 1 to 1/4
        ("cosine", 0.625),  # cos(pi/2) = 0: the same in the middle
        ("exponential", 0.5),  # (1/4)^(1/2)
    ],
)
def test_decay_goes_from_alpha_to_its_final_factor_and_stays(kind: str, middle: float):
    """alpha 4, final factor 1/4 at update 100."""
    at = [alpha_at(update, alpha=4.0, schedule=decay(kind)) for update in (0, 50, 100, 500)]
    assert at == pytest.approx([4.0, 4.0 * middle, 1.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "quarter"),
    [
        ("linear", 0.8125),  # 1 - 3/4 * 1/4
        ("cosine", 0.25 + 0.75 * (1 + math.sqrt(0.5)) / 2),  # cos(pi/4) = sqrt(1/2)
        ("exponential", math.sqrt(0.5)),  # (1/4)^(1/4)
    ],
)
def test_the_factor_after_a_quarter_of_the_decay(kind: str, quarter: float):
    assert alpha_at(25, alpha=1.0, schedule=decay(kind)) == pytest.approx(quarter)


def test_decay_begins_where_the_warmup_ends():
    """Warm-up to 20, decay to 100: at 10 half of alpha, at 20 all of it, at 60 halfway down."""
    schedule = decay("linear", warmup=20)
    at = [alpha_at(update, alpha=1.0, schedule=schedule) for update in (10, 20, 60)]
    assert at == pytest.approx([0.5, 1.0, 0.625])


def test_a_final_factor_above_one_lets_alpha_grow():
    schedule = decay("exponential", final_factor=4.0)
    assert alpha_at(50, alpha=1.0, schedule=schedule) == pytest.approx(2.0)


def test_a_final_factor_of_zero_switches_the_penalty_off():
    assert alpha_at(100, alpha=5.0, schedule=decay("cosine", final_factor=0.0)) == 0.0


@pytest.mark.parametrize(
    ("update", "factor"), [(0, 1.0), (10, 1.0), (15, 2.0), (20, 3.0), (30, 1.5), (40, 0.0), (99, 0)]
)
def test_piecewise_is_linear_between_its_points_and_flat_outside(update: int, factor: float):
    points = [[10.0, 1.0], [20.0, 3.0], [40.0, 0.0]]
    schedule = changed(kind="piecewise", points=points)
    assert alpha_at(update, alpha=2.0, schedule=schedule) == pytest.approx(2.0 * factor)


def test_warmup_multiplies_a_piecewise_factor():
    """Half of the ramp times the factor 3."""
    schedule = changed(kind="piecewise", warmup=40, points=[[20.0, 3.0]])
    assert alpha_at(20, alpha=1.0, schedule=schedule) == pytest.approx(1.5)
