"""Guarantee: the optional forms of the gap and of the actor's loss equal their formulas."""

import math

import numpy as np
import pytest
import torch
from support import reference
from support.tensors import double, random_tensors
from torch.testing import assert_close

from offline_cql.agents.schedules import half_cosine
from offline_cql.losses import (
    ShapeError,
    calibrated_value,
    cloning_actor_loss,
    conservative_gap,
    discrete_gap,
    unweighted_gap,
)

# --- The gap without densities -------------------------------------------------------------------


def test_the_unweighted_gap_of_equal_values_is_the_log_of_their_number():
    """Three sampled actions and the logged one, all at 7: log 4."""
    gap = unweighted_gap(torch.full((1, 1, 3), 7.0), torch.full((1, 1), 7.0))
    assert_close(gap, torch.tensor([[math.log(4)]]))


def test_the_unweighted_gap_has_the_logged_action_in_its_sum():
    """Q_logged = log 5, Q_sampled = log 3: log(3 + 5) - log 5 = log 1.6."""
    gap = unweighted_gap(double([[[math.log(3)]]]), double([[math.log(5)]]))
    assert_close(gap, double([[math.log(1.6)]]))


def test_the_unweighted_gap_is_never_negative_where_the_weighted_one_is():
    """A narrow policy's own sample of density e^4 is weighted out: 0 - 4 - 0 < 0."""
    sampled, logged = double([[[0.0]]]), double([[0.0]])
    assert conservative_gap(sampled, double([[4.0]]), logged).item() == -4.0
    assert unweighted_gap(sampled, logged).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_unweighted_gap_and_its_gradients_agree_with_the_reference(temperature: float):
    sampled, logged = random_tensors((2, 3, 4), (2, 3))
    gap = unweighted_gap(sampled.requires_grad_(), logged.requires_grad_(), temperature=temperature)
    gap.sum().backward()
    q, q_logged = sampled.detach().numpy(), logged.detach().numpy()
    expected = reference.unweighted_gap(q, q_logged, temperature)
    np.testing.assert_allclose(gap.detach(), expected, rtol=1e-12)
    for tensor, function in (
        (sampled, lambda at: reference.unweighted_gap(at, q_logged, temperature).sum()),
        (logged, lambda at: reference.unweighted_gap(q, at, temperature).sum()),
    ):
        gradient = reference.numerical_gradient(function, tensor.detach().numpy())
        np.testing.assert_allclose(tensor.grad, gradient, rtol=0, atol=1e-8)


def test_the_unweighted_gap_checks_shapes():
    with pytest.raises(ShapeError, match="q_logged"):
        unweighted_gap(torch.zeros(2, 3, 4), torch.zeros(2, 4))


# --- Calibration ---------------------------------------------------------------------------------


def test_a_calibrated_value_has_no_gradient_below_the_return():
    """Returns 2 and 0: of (1, 3) and (-1, 1) the first of each is below."""
    q = double([[[1.0, 3.0], [-1.0, 1.0]]]).requires_grad_()
    value = calibrated_value(q, double([2.0, 0.0]))
    value.sum().backward()
    assert_close(value, double([[[2.0, 3.0], [0.0, 1.0]]]))
    assert_close(q.grad, double([[[0.0, 1.0], [0.0, 1.0]]]))


def test_the_discrete_gap_bounds_every_value_in_the_sum():
    """Return log 4, Q = (log 1, log 8), logged 0: log(4 + 8) - log 1 = log 12."""
    q, action = double([[[0.0, math.log(8)]]]), torch.tensor([0])
    gap = discrete_gap(q, action, return_to_go=double([math.log(4)]))
    assert_close(gap, double([[math.log(12)]]))
    assert_close(discrete_gap(q[0], action, return_to_go=double([math.log(4)]))[0], gap[0, 0])


# --- The actor -----------------------------------------------------------------------------------


def test_the_cloning_actor_loss_adds_the_weighted_log_likelihood():
    """State 1: -min(3, 4) / 2 - 0.1 * 2 = -1.7; state 2: -min(1, 0) / 2 + 0.1 * 4 = 0.4."""
    q, log_prob = double([[3, 1], [4, 0]]), double([2, -4])
    loss = cloning_actor_loss(q, log_prob, bc_weight=double(0.1), q_scale=double(2.0))
    assert_close(loss, double((-1.7 + 0.4) / 2))


def test_the_cloning_actor_loss_and_its_gradients_agree_with_the_reference():
    q, log_prob = random_tensors((3, 4), (4,))
    scale = double(1.7).requires_grad_()
    loss = cloning_actor_loss(
        q.requires_grad_(), log_prob.requires_grad_(), bc_weight=double(0.3), q_scale=scale
    )
    loss.backward()
    assert scale.grad is None
    values, densities = q.detach().numpy(), log_prob.detach().numpy()
    for tensor, function in (
        (q, lambda at: reference.cloning_actor_loss(at, densities, 0.3, 1.7)),
        (log_prob, lambda at: reference.cloning_actor_loss(values, at, 0.3, 1.7)),
    ):
        assert loss.item() == pytest.approx(function(tensor.detach().numpy()), rel=1e-12)
        expected = reference.numerical_gradient(function, tensor.detach().numpy())
        np.testing.assert_allclose(tensor.grad, expected, rtol=0, atol=1e-8)


# --- Schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("update", "value"),
    [(0, 4.0), (100, 4.0), (150, 2 + 2 * (1 + math.cos(math.pi / 4)) / 2), (200, 3.0), (300, 2.0)],
)
def test_a_decayed_value_is_on_the_half_cosine(update: int, value: float):
    decay = {"start": 4.0, "final": 2.0, "begin": 100, "end": 300}
    assert half_cosine(update, **decay) == pytest.approx(value)
    assert half_cosine(update + 1000, **decay) == pytest.approx(2.0)
    assert half_cosine(update, **decay | {"final": None}) == 4.0


def test_a_decay_that_ends_before_it_begins_is_a_step():
    decay = {"start": 4.0, "final": 2.0, "begin": 100, "end": 50}
    assert [half_cosine(update, **decay) for update in (0, 75, 100, 101)] == [4.0, 4.0, 4.0, 2.0]
