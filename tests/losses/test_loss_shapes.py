"""Guarantee: a tensor of the wrong shape is refused by name, never broadcast."""

import pytest
import torch

from offline_cql import losses
from offline_cql.losses import ShapeError, check_shapes

E, B, N, K, A = 2, 3, 4, 5, 6


def zeros(*shape):
    return torch.zeros(shape)


def integers(*shape):
    return torch.zeros(shape, dtype=torch.int64)


WRONG = {
    "density, mean of fewer axes, B = N": lambda: losses.tanh_gaussian_log_prob(
        zeros(B, B, A), zeros(B, A), zeros(B, 1, A)
    ),
    "density, log std of fewer axes": lambda: losses.tanh_gaussian_log_prob(
        zeros(B, N, A), zeros(B, 1, A), zeros(A)
    ),
    "density, one mean for all dimensions": lambda: losses.tanh_gaussian_log_prob(
        zeros(B, A), zeros(B, 1), zeros(B, A)
    ),
    "density, mean of other states": lambda: losses.tanh_gaussian_log_prob(
        zeros(1, A), zeros(B, A), zeros(B, A)
    ),
    "density, no axis": lambda: losses.tanh_gaussian_log_prob(zeros(), zeros(), zeros()),
    "uniform, one bound": lambda: losses.uniform_log_prob(zeros(1), zeros(A)),
    "uniform, scalar bounds": lambda: losses.uniform_log_prob(zeros(), zeros()),
    "sampled value, no actions": lambda: losses.sampled_value(zeros(E, B), None),
    "sampled value, density of fewer axes": lambda: losses.sampled_value(zeros(E, B, 1), zeros(B)),
    "sampled value, density of other states": lambda: losses.sampled_value(
        zeros(E, B, 1), zeros(1, 1)
    ),
    "sampled value, entropy of several actions": lambda: losses.sampled_value(
        zeros(E, B, N), zeros(B, N)
    ),
    "sampled value, temperature per state": lambda: losses.sampled_value(
        zeros(E, B, 1), zeros(B, 1), temperature=zeros(B, 1)
    ),
    "discrete value, other actions": lambda: losses.discrete_value(
        zeros(E, B, K), zeros(E, B, K + 1), target="max", temperature=1.0
    ),
    "discrete value, other critics": lambda: losses.discrete_value(
        zeros(E, B, K), zeros(1, B, K), target="expected", temperature=1.0
    ),
    "target, reward as a column": lambda: losses.bellman_target(zeros(B, 1), zeros(B), zeros(B)),
    "target, one discount": lambda: losses.bellman_target(zeros(B), zeros(1), zeros(B)),
    "target, value as a column": lambda: losses.bellman_target(zeros(B), zeros(B), zeros(B, 1)),
    "td, target per critic": lambda: losses.td_error(zeros(E, B), zeros(E, B)),
    "td, target as a column": lambda: losses.critic_td_loss(zeros(B, B), zeros(B, 1)),
    "td, no state": lambda: losses.critic_td_loss(zeros(E, 0), zeros(0)),
    "gap, density per critic": lambda: losses.conservative_gap(
        zeros(E, B, N), zeros(E, B, N), zeros(E, B)
    ),
    "gap, density of other samples": lambda: losses.conservative_gap(
        zeros(E, B, N), zeros(B, 1), zeros(E, B)
    ),
    "gap, logged value of one critic": lambda: losses.conservative_gap(
        zeros(E, B, N), zeros(B, N), zeros(1, B)
    ),
    "gap, logged value with a sample axis": lambda: losses.conservative_gap(
        zeros(E, B, N), zeros(B, N), zeros(E, B, 1)
    ),
    "expectation gap, logged value of one critic": lambda: losses.expectation_gap(
        zeros(E, B, N), zeros(B)
    ),
    "expectation gap, one state": lambda: losses.expectation_gap(zeros(E, B, N), zeros(E, 1)),
    "discrete gap, action as a column": lambda: losses.discrete_gap(zeros(E, B, K), integers(B, 1)),
    "discrete gap, one action": lambda: losses.discrete_gap(zeros(E, B, K), integers(1)),
    "discrete gap, no state": lambda: losses.discrete_gap(zeros(K), integers(1)),
    "conservative loss, gap of no critic": lambda: losses.conservative_loss(zeros(B), alpha=1.0),
    "conservative loss, alpha per state": lambda: losses.conservative_loss(
        zeros(E, B), alpha=zeros(B)
    ),
    "conservative loss, multiplier per critic": lambda: losses.conservative_loss(
        zeros(E, B), alpha=1.0, multiplier=zeros(E)
    ),
    "multiplier loss, multiplier of shape [1]": lambda: losses.multiplier_loss(
        zeros(1), zeros(E, B), alpha=1.0, target_gap=1.0
    ),
    "multiplier loss, gap of no critic": lambda: losses.multiplier_loss(
        zeros(), zeros(B), alpha=1.0, target_gap=1.0
    ),
    "actor loss, density as a column": lambda: losses.actor_loss(
        zeros(E, B), zeros(B, 1), temperature=1.0
    ),
    "actor loss, Q of one critic": lambda: losses.actor_loss(zeros(B), zeros(B), temperature=1.0),
    "temperature loss, temperature of shape [1]": lambda: losses.temperature_loss(
        zeros(1), zeros(B), target_entropy=-1.0
    ),
    "temperature loss, density as a column": lambda: losses.temperature_loss(
        zeros(), zeros(B, 1), target_entropy=-1.0
    ),
    "cloning loss, density per sample": lambda: losses.behavior_cloning_loss(zeros(B, N)),
    "discrete cloning loss, action as a column": lambda: losses.discrete_behavior_cloning_loss(
        zeros(B, K), integers(B, 1)
    ),
    "discrete cloning loss, other states": lambda: losses.discrete_behavior_cloning_loss(
        zeros(B, K), integers(B + 1)
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_wrong_shape_is_refused(call):
    with pytest.raises(ShapeError, match="has shape"):
        call()


def test_error_names_the_tensor_its_shape_and_the_one_it_disagrees_with():
    with pytest.raises(ShapeError) as raised:
        check_shapes(q=(zeros(2, 3), "E B"), target=(zeros(4), "B"))
    assert str(raised.value) == "target has shape [4], expected [B] with B=3 as in q"
