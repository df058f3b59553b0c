"""Guarantee: policy, temperature and behavior cloning losses train their own parameters only."""

import math

import numpy as np
import pytest
import torch
from support import reference
from support.tensors import double, random_tensors
from torch.testing import assert_close

from offline_cql.losses import (
    actor_loss,
    behavior_cloning_loss,
    discrete_behavior_cloning_loss,
    temperature_loss,
)

# --- Actor ---------------------------------------------------------------------------------------


def test_actor_loss_is_temperature_times_log_prob_minus_the_smallest_q():
    """State 1: 0.5 * 2 - min(3, 4) = -2; state 2: 0.5 * (-4) - min(1, 0) = -2."""
    q, log_prob = double([[3, 1], [4, 0]]), double([2, -4])
    assert_close(actor_loss(q, log_prob, temperature=0.5), double(-2.0))
    assert_close(actor_loss(q, log_prob, temperature=0.0), double(-1.5))


def test_actor_loss_and_its_gradients_agree_with_the_reference():
    q, log_prob = random_tensors((3, 4), (4,))
    loss = actor_loss(q.requires_grad_(), log_prob.requires_grad_(), temperature=0.3)
    loss.backward()
    values, densities = q.detach().numpy(), log_prob.detach().numpy()
    assert loss.item() == pytest.approx(reference.actor_loss(values, densities, 0.3), rel=1e-12)
    for tensor, gradient in (
        (q, lambda at: reference.actor_loss(at, densities, 0.3)),
        (log_prob, lambda at: reference.actor_loss(values, at, 0.3)),
    ):
        expected = reference.numerical_gradient(gradient, tensor.detach().numpy())
        np.testing.assert_allclose(tensor.grad, expected, rtol=0, atol=1e-8)


def test_actor_loss_has_no_gradient_in_the_temperature():
    q, log_prob = random_tensors((2, 3), (3,))
    temperature = double(0.3).requires_grad_()
    loss = actor_loss(q.requires_grad_(), log_prob, temperature=temperature)
    assert_close(loss, actor_loss(q, log_prob, temperature=0.3))
    loss.backward()
    assert temperature.grad is None


# --- Temperature ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_prob", "direction"), [(5.0, 1), (1.0, -1)])
def test_temperature_grows_while_the_entropy_is_below_its_target(log_prob, direction):
    """Target entropy -3, temperature 2: d loss / d log = -2 * (log_prob - 3) = -+4."""
    log_temperature = double(math.log(2)).requires_grad_()
    densities = torch.full((4,), log_prob, dtype=torch.float64, requires_grad=True)
    temperature_loss(log_temperature, densities, target_entropy=-3.0).backward()
    assert_close(log_temperature.grad, double(-direction * 4.0))
    assert densities.grad is None


def test_temperature_loss_agrees_with_the_reference():
    (log_prob,) = random_tensors((5,))
    loss = temperature_loss(double(-0.4), log_prob, target_entropy=-2.0)
    expected = reference.temperature_loss(-0.4, log_prob.numpy(), -2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


# --- Cloning -------------------------------------------------------------------------------------


def test_bc_loss_is_minus_the_mean_log_prob():
    assert_close(behavior_cloning_loss(double([1.0, -4.0, 0.0])), double(1.0))
    assert reference.behavior_cloning_loss(np.array([1.0, -4.0, 0.0])) == 1.0


def test_discrete_bc_loss_is_the_cross_entropy():
    """Probabilities (1/4, 1/2, 1/4): action 1 costs log 2, action 0 costs log 4; mean 1.5 log 2."""
    logits = double([[1, 2, 1], [1, 2, 1]]).log()
    loss = discrete_behavior_cloning_loss(logits, torch.tensor([1, 0]))
    assert_close(loss, double(1.5 * math.log(2)))


def test_discrete_bc_loss_and_its_gradient_agree_with_the_reference():
    (logits,) = random_tensors((5, 3))
    action = torch.tensor([0, 2, 1, 1, 0])
    loss = discrete_behavior_cloning_loss(logits.requires_grad_(), action)
    loss.backward()

    def reference_loss(at):
        return reference.discrete_behavior_cloning_loss(at, action.numpy())

    values = logits.detach().numpy()
    assert loss.item() == pytest.approx(reference_loss(values), rel=1e-12)
    expected = reference.numerical_gradient(reference_loss, values)
    np.testing.assert_allclose(logits.grad, expected, rtol=0, atol=1e-8)
