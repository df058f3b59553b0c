"""Guarantee: the critics are fitted to r + discount * V(s'), V is the minimum over critics."""

import numpy as np
import pytest
from support import reference
from support.tensors import double, random_tensors
from torch.testing import assert_close

from offline_cql.losses import (
    bellman_target,
    critic_td_loss,
    discrete_value,
    sampled_value,
    td_error,
)

# --- Continuous actions --------------------------------------------------------------------------


def test_sampled_backup_is_the_minimum_over_critics():
    assert_close(sampled_value(double([[[5.0], [1.0]], [[2.0], [4.0]]]), None), double([2.0, 1.0]))


def test_max_backup_is_the_maximum_over_actions_of_the_minimum_over_critics():
    """Critics rate two actions (5, 1) and (0, 3). Per action 0 and 1, best 1; not min(5, 3) = 3."""
    value = sampled_value(double([[[5.0, 1.0]], [[0.0, 3.0]]]), None)
    assert_close(value, double([1.0]))


def test_entropy_backup_subtracts_temperature_times_log_prob():
    """min(5, 4) - 0.5 * (-2) = 5."""
    value = sampled_value(double([[[5.0]], [[4.0]]]), double([[-2.0]]), temperature=0.5)
    assert_close(value, double([5.0]))


def test_a_tensor_temperature_equals_a_float_and_receives_no_gradient():
    q, log_prob = random_tensors((2, 3, 1), (3, 1))
    temperature = double(0.3).requires_grad_()
    value = sampled_value(q.requires_grad_(), log_prob, temperature=temperature)
    assert_close(value, sampled_value(q, log_prob, temperature=0.3))
    value.sum().backward()
    assert temperature.grad is None


@pytest.mark.parametrize("actions", [1, 7])
def test_sampled_value_agrees_with_the_reference(actions):
    (q,) = random_tensors((3, 5, actions))
    np.testing.assert_allclose(sampled_value(q, None), reference.sampled_value(q.numpy()))


def test_entropy_value_agrees_with_the_reference():
    q, log_prob = random_tensors((3, 5, 1), (5, 1))
    value = sampled_value(q, log_prob, temperature=0.7)
    expected = reference.sampled_value(q.numpy(), log_prob.numpy(), 0.7)
    np.testing.assert_allclose(value, expected)


# --- Discrete actions ----------------------------------------------------------------------------

# Target critics (5, 1, 2) and (0, 3, 2): per action 0, 1, 2. Online the worst is (3, 1, 0).
TARGET = double([[[5.0, 1.0, 2.0]], [[0.0, 3.0, 2.0]]])
ONLINE = double([[[3.0, 1.0, 9.0]], [[4.0, 8.0, 0.0]]])


def test_max_target_is_the_maximum_over_actions_of_the_minimum_over_critics():
    assert_close(discrete_value(TARGET, ONLINE, target="max", temperature=1.0), double([2.0]))


def test_double_target_scores_the_online_critics_best_action():
    """Online, action 0 is best by its worst critic; the target critics rate it 0."""
    assert_close(discrete_value(TARGET, ONLINE, target="double", temperature=1.0), double([0.0]))


def test_expected_target_averages_over_the_softmax_policy():
    """Online values log(1, 2, 1) twice as large at temperature 2: policy (1/4, 1/2, 1/4)."""
    online = 2 * double([[[1.0, 2.0, 1.0]]]).log().expand(2, 1, 3)
    value = discrete_value(TARGET, online, target="expected", temperature=2.0)
    assert_close(value, double([0.25 * 0 + 0.5 * 1 + 0.25 * 2]))


def test_expected_target_of_a_small_temperature_is_the_double_target():
    target, online = random_tensors((2, 5, 4), (2, 5, 4))
    cold = discrete_value(target, online, target="expected", temperature=1e-4)
    assert_close(cold, discrete_value(target, online, target="double", temperature=1.0))


@pytest.mark.parametrize("target", ["max", "double", "expected"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_discrete_value_agrees_with_the_reference(target, temperature):
    q_target, q_online = random_tensors((2, 6, 4), (2, 6, 4))
    value = discrete_value(q_target, q_online, target=target, temperature=temperature)
    expected = reference.discrete_value(q_target.numpy(), q_online.numpy(), target, temperature)
    np.testing.assert_allclose(value, expected, atol=1e-12)


def test_unknown_discrete_target_is_refused():
    with pytest.raises(ValueError, match=r"target='mean' must be one of 'max', 'double'"):
        discrete_value(TARGET, ONLINE, target="mean", temperature=1.0)


# --- Target and temporal difference --------------------------------------------------------------


def test_target_bootstraps_after_a_truncation_and_not_after_a_terminal_state():
    """Running, truncated: 1 + 0.9 * 10; terminated, discount 0: the reward alone."""
    target = bellman_target(double([1.0, 1.0, 1.0]), double([0.9, 0.9, 0.0]), double([10.0] * 3))
    assert_close(target, double([10.0, 10.0, 1.0]))


def test_bellman_target_agrees_with_the_reference():
    tensors = random_tensors((5,), (5,), (5,))
    expected = reference.bellman_target(*(t.numpy() for t in tensors))
    np.testing.assert_allclose(bellman_target(*tensors), expected)


def test_td_error_is_the_square_without_a_half():
    """(1 - 3)^2 and (5 - 3)^2 and (4 - 3)^2."""
    assert_close(td_error(double([[1.0], [5.0], [4.0]]), double([3.0])), double([[4], [4], [1]]))


def test_td_loss_is_a_mean_over_states_and_a_sum_over_critics():
    """Critic 1: (4 + 0) / 2; critic 2: (1 + 1) / 2; together 3."""
    loss = critic_td_loss(double([[1.0, 3.0], [2.0, 4.0]]), double([3.0, 3.0]))
    assert_close(loss, double(3.0))


def test_td_loss_and_its_gradient_agree_with_the_reference():
    q, target = random_tensors((3, 4), (4,))
    loss = critic_td_loss(q.requires_grad_(), target)
    loss.backward()
    values = q.detach().numpy()

    def reference_loss(at):
        return reference.critic_td_loss(at, target.numpy())

    assert loss.item() == pytest.approx(reference_loss(values), rel=1e-12)
    expected = reference.numerical_gradient(reference_loss, values)
    np.testing.assert_allclose(q.grad, expected, rtol=0, atol=1e-7)


def test_target_receives_no_gradient():
    q, target = random_tensors((2, 3), (3,))
    critic_td_loss(q.requires_grad_(), target.requires_grad_()).backward()
    assert target.grad is None
