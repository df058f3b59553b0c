"""Guarantee: the gap is the critics' value of sampled actions minus that of the logged one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import reference
from support.tensors import double, random_tensors
from torch.testing import assert_close

from offline_cql.losses import clip_gap, conservative_gap, discrete_gap, expectation_gap

action_values = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=8)


# --- Discrete actions ----------------------------------------------------------------------------


def test_gap_of_the_worked_example_and_one_gradient_step():
    """One state, Q = (0.5, 5, 2), the first action logged; one step of 0.1 down the gap."""
    q = double([[0.5, 5.0, 2.0]]).requires_grad_()
    gap = discrete_gap(q, torch.tensor([0]))
    gap.sum().backward()
    assert gap.item() + 0.5 == pytest.approx(5.0591, abs=5e-5)
    assert gap.item() == pytest.approx(4.5591, abs=5e-5)
    softmax = q.grad + double([[1, 0, 0]])
    assert_close(softmax, double([[0.01047, 0.94260, 0.04693]]), rtol=0, atol=5e-6)
    step = q.detach() - 0.1 * q.grad
    assert_close(step, double([[0.599, 4.906, 1.995]]), rtol=0, atol=5e-4)


def test_gap_is_log_of_action_count_when_all_values_are_equal():
    """Three actions at Q = 0 against a logged Q of 0: log 3."""
    gap = discrete_gap(torch.zeros(1, 3), torch.tensor([1]))
    assert gap.item() == pytest.approx(math.log(3))


@given(action_values, st.integers(0, 7))
def test_gradient_of_the_discrete_gap_is_softmax_minus_one_hot(values, logged):
    logged %= len(values)
    q = double([values]).requires_grad_()
    discrete_gap(q, torch.tensor([logged])).sum().backward()
    expected = reference.softmax(values)
    expected[logged] -= 1
    assert_close(q.grad, double([expected]), rtol=0, atol=1e-12)


@given(action_values)
def test_log_sum_exp_lies_between_the_maximum_and_log_of_the_action_count_above_it(values):
    q = double([values])
    log_sum_exp = discrete_gap(q, torch.tensor([0])).item() + values[0]
    assert max(values) - 1e-9 <= log_sum_exp <= max(values) + math.log(len(values)) + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_discrete_gap_agrees_with_the_reference(temperature):
    (q,) = random_tensors((2, 5, 4))
    action = torch.tensor([0, 3, 1, 1, 2])
    gap = discrete_gap(q, action, temperature=temperature)
    expected = reference.discrete_gap(q.numpy(), action.numpy(), temperature)
    np.testing.assert_allclose(gap.numpy(), expected, rtol=0, atol=1e-12)
    assert_close(discrete_gap(q[1], action, temperature=temperature), gap[1])


def test_discrete_gap_of_a_small_temperature_is_the_distance_to_the_maximum():
    gap = discrete_gap(double([[0.5, 5.0, 2.0]]), torch.tensor([2]), temperature=0.01)
    assert gap.item() == pytest.approx(3.0, abs=1e-9)


# --- Continuous actions, log-sum-exp -------------------------------------------------------------


def test_gap_of_six_samples_by_hand():
    """n = 2, so 3n = 6 samples: exp(Q) / density, added by hand.

    uniform on [-1, 1], density 1/2: 2 * (1 + 2) = 6; policy, densities 1 and 1/4: 3 + 4 * 1 = 7;
    next policy, densities 2 and 1/10: 4 / 2 + 10 * 0.5 = 7. log(6 + 7 + 7) - 0.25.
    """
    q_sampled = double([1, 2, 3, 1, 4, 0.5]).log().reshape(1, 1, 6)
    log_prob = double([0.5, 0.5, 1, 0.25, 2, 0.1]).log().reshape(1, 6)
    gap = conservative_gap(q_sampled, log_prob, double([[0.25]]))
    assert gap.item() == pytest.approx(math.log(20) - 0.25, abs=1e-12)


def test_gap_does_not_depend_on_the_order_of_the_samples():
    q_sampled, log_prob, q_logged = random_tensors((2, 3, 6), (3, 6), (2, 3))
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    gap = conservative_gap(q_sampled, log_prob, q_logged)
    permuted = conservative_gap(q_sampled[:, :, order], log_prob[:, order], q_logged)
    assert_close(permuted, gap)


def test_every_sample_has_a_gradient():
    """The gradient in the samples is their softmax: positive in each of the 3n, together 1."""
    q_sampled, log_prob, q_logged = random_tensors((2, 3, 6), (3, 6), (2, 3))
    q_sampled.requires_grad_()
    conservative_gap(q_sampled, log_prob, q_logged).sum().backward()
    assert (q_sampled.grad > 0).all()
    assert_close(q_sampled.grad.sum(dim=2), torch.ones(2, 3, dtype=torch.float64))


def test_equal_critics_have_equal_gaps():
    q_sampled, log_prob, q_logged = random_tensors((1, 3, 6), (3, 6), (1, 3))
    one = conservative_gap(q_sampled, log_prob, q_logged)
    four = conservative_gap(q_sampled.repeat(4, 1, 1), log_prob, q_logged.repeat(4, 1))
    assert_close(four, one.repeat(4, 1))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_gap_agrees_with_the_reference(temperature):
    tensors = random_tensors((2, 4, 9), (4, 9), (2, 4))
    gap = conservative_gap(*tensors, temperature=temperature)
    expected = reference.conservative_gap(*(t.numpy() for t in tensors), temperature)
    np.testing.assert_allclose(gap.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_gradient_of_the_gap_agrees_with_finite_differences(temperature):
    q_sampled, log_prob, q_logged = random_tensors((2, 2, 3), (2, 3), (2, 2))
    samples, density, logged = q_sampled.numpy(), log_prob.numpy(), q_logged.numpy()

    def total(q):
        return reference.conservative_gap(q, density, logged, temperature).sum()

    q_sampled = q_sampled.clone().requires_grad_()
    conservative_gap(q_sampled, log_prob, q_logged, temperature=temperature).sum().backward()
    expected = reference.numerical_gradient(total, samples)
    np.testing.assert_allclose(q_sampled.grad.numpy(), expected, rtol=0, atol=1e-8)


def test_gap_at_another_temperature_divides_the_values_but_not_the_density():
    """Q = 4 twice, density 1/8, t = 2: 2 * log(2 * 8 * e^2) = 4 + 2 log 16."""
    log_prob = torch.full((1, 2), -math.log(8), dtype=torch.float64)
    gap = conservative_gap(double([[[4, 4]]]), log_prob, double([[4]]), temperature=2.0)
    assert gap.item() == pytest.approx(2 * math.log(16), abs=1e-12)


def test_gap_sends_no_gradient_to_the_sampler():
    q_sampled, log_prob, q_logged = random_tensors((2, 3, 6), (3, 6), (2, 3))
    q_sampled.requires_grad_()
    log_prob.requires_grad_()
    conservative_gap(q_sampled, log_prob, q_logged).sum().backward()
    assert log_prob.grad is None


# --- Continuous actions, expectation, and limits -------------------------------------------------


def test_expectation_gap_is_the_mean_sample_minus_the_logged_value():
    """(1 + 2 + 6) / 3 - 0.5 = 2.5, and (0 + 0 - 3) / 3 - 1 = -2 for the second critic."""
    gap = expectation_gap(double([[[1, 2, 6]], [[0, 0, -3]]]), double([[0.5], [1.0]]))
    assert_close(gap, double([[2.5], [-2.0]]))


def test_expectation_gap_agrees_with_the_reference():
    q_sampled, q_logged = random_tensors((3, 4, 5), (3, 4))
    expected = reference.expectation_gap(q_sampled.numpy(), q_logged.numpy())
    gap = expectation_gap(q_sampled, q_logged)
    np.testing.assert_allclose(gap.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("minimum", "maximum", "expected"),
    [
        (None, None, [-300, -1, 0, 700]),
        (-200, None, [-200, -1, 0, 700]),
        (None, 0.5, [-300, -1, 0, 0.5]),
        (-200, 0.5, [-200, -1, 0, 0.5]),
    ],
)
def test_gap_is_clipped_at_each_limit_that_is_set(minimum, maximum, expected):
    gap = double([[-300, -1, 0, 700]])
    assert_close(clip_gap(gap, minimum=minimum, maximum=maximum), double([expected]))
    np.testing.assert_array_equal(reference.clip_gap(gap.numpy(), minimum, maximum), [expected])


def test_gap_beyond_its_limits_has_no_gradient():
    gap = double([[-300, -1, 700]]).requires_grad_()
    clip_gap(gap, minimum=-200.0, maximum=200.0).sum().backward()
    assert_close(gap.grad, double([[0, 1, 0]]))
