"""Guarantee: alpha and multiplier weight the gap; the multiplier grows with the gap."""

import math

import numpy as np
import pytest
import torch
from support import reference
from support.tensors import double, random_tensors
from torch.testing import assert_close

from offline_cql.losses import conservative_loss, multiplier_loss

# --- Conservative loss ---------------------------------------------------------------------------


def test_conservative_loss_is_alpha_times_the_mean_gap_summed_over_critics():
    """Means 2 and 5, alpha 3: 21."""
    assert_close(conservative_loss(double([[1, 3], [4, 6]]), alpha=3.0), double(21.0))


def test_target_gap_is_subtracted_per_critic_before_weighting():
    """2 * 3 * ((2 - 1) + (5 - 1)) = 30."""
    gap = double([[1, 3], [4, 6]])
    loss = conservative_loss(gap, alpha=3.0, multiplier=2.0, target_gap=1.0)
    assert_close(loss, double(30.0))


@pytest.mark.parametrize("target_gap", [0.0, 5.0])
@pytest.mark.parametrize("multiplier", [1.0, 2.0, 8.0])
def test_gradient_of_the_gap_is_multiplier_times_alpha(multiplier, target_gap):
    """Each of the 2 states carries half of its critic's multiplier * alpha, which is positive."""
    gap = double([[1, 3], [4, 6], [-2, 0]]).requires_grad_()
    conservative_loss(
        gap, alpha=5.0, multiplier=double(multiplier), target_gap=target_gap
    ).backward()
    assert_close(gap.grad, torch.full((3, 2), multiplier * 5 / 2, dtype=torch.float64))


def test_conservative_loss_agrees_with_the_reference():
    (gap,) = random_tensors((3, 5))
    loss = conservative_loss(gap, alpha=0.7, multiplier=1.9, target_gap=0.4)
    expected = reference.conservative_loss(gap.numpy(), 0.7, 1.9, 0.4)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_tensor_weights_equal_floats_and_receive_no_gradient():
    (gap,) = random_tensors((3, 5))
    alpha, multiplier = double(0.7).requires_grad_(), double(1.9).requires_grad_()
    loss = conservative_loss(gap.requires_grad_(), alpha=alpha, multiplier=multiplier)
    assert_close(loss, conservative_loss(gap, alpha=0.7, multiplier=1.9))
    loss.backward()
    assert alpha.grad is None
    assert multiplier.grad is None


# --- Multiplier ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "direction"), [(7.0, 1), (3.0, -1)])
def test_one_step_raises_the_multiplier_above_its_target_gap_and_lowers_it_below(gap, direction):
    """Target 5, alpha 2, two critics: d loss / d multiplier = -2 * 2 * (gap - 5)."""
    multiplier = double(1.5).requires_grad_()
    gaps = torch.full((2, 3), gap, dtype=torch.float64, requires_grad=True)
    multiplier_loss(multiplier, gaps, alpha=2.0, target_gap=5.0).backward()
    assert_close(multiplier.grad, double(-direction * 8.0))
    assert gaps.grad is None


def test_multiplier_loss_is_the_opposite_of_the_conservative_loss():
    (gap,) = random_tensors((3, 5))
    loss = multiplier_loss(double(1.9), gap, alpha=0.7, target_gap=0.4)
    assert_close(loss, -conservative_loss(gap, alpha=0.7, multiplier=1.9, target_gap=0.4))
    expected = reference.multiplier_loss(1.9, gap.numpy(), 0.7, 0.4)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_in_the_log_multiplier_agrees_with_finite_differences():
    (gap,) = random_tensors((2, 5))
    log_multiplier = double(0.6).requires_grad_()
    multiplier_loss(log_multiplier.exp(), gap, alpha=0.7, target_gap=0.4).backward()

    def reference_loss(at):
        return reference.multiplier_loss(math.exp(at), gap.numpy(), 0.7, 0.4)

    expected = reference.numerical_gradient(reference_loss, np.array(0.6))
    assert log_multiplier.grad.item() == pytest.approx(float(expected), rel=1e-8)


def trajectory(gaps, *, minimum, maximum):
    """Return the multiplier after each Adam step (rate 0.1) on its log, clamped in place."""
    log_multiplier = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([log_multiplier], lr=0.1)
    values = []
    for gap in gaps:
        optimizer.zero_grad()
        multiplier_loss(
            log_multiplier.exp(), torch.full((2, 1), gap), alpha=5.0, target_gap=5.0
        ).backward()
        optimizer.step()
        with torch.no_grad():
            log_multiplier.clamp_(math.log(minimum), math.log(maximum))
        values.append(log_multiplier.exp().item())
    return values


def test_multiplier_decreases_after_it_reached_its_maximum():
    values = trajectory([15.0] * 200 + [0.0] * 200, minimum=0.1, maximum=100.0)
    assert values[199] == pytest.approx(100, rel=1e-4)
    assert values[399] < 10


def test_multiplier_increases_after_it_reached_its_minimum():
    values = trajectory([0.0] * 200 + [15.0] * 100, minimum=0.1, maximum=100.0)
    assert values[199] == pytest.approx(0.1, rel=1e-4)
    assert values[299] > 1
