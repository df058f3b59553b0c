"""Guarantee: the reference's whole updates equal losses worked by hand.

Networks without a hidden layer whose weights are zero: every Q-value is a bias, the policy is one
Gaussian. Other tests compare whole updates with this reference.
"""

import math

import numpy as np
import pytest
from support.reference import mlp, tanh_gaussian_log_prob
from support.reference_update import continuous_losses, discrete_losses

STATES, WIDTH = 3, 2


def constant_network(inputs, outputs):
    """Return one linear layer whose outputs are `outputs` for every input."""
    return [np.zeros((inputs, len(outputs)))], [np.array(outputs, dtype=np.float64)]


def make_batch(action):
    return {
        "observation": np.ones((STATES, 1)),
        "action": action,
        "reward": np.array([1.0, 1.0, 1.0]),
        "discount": np.array([0.9, 0.9, 0.0]),
        "next_observation": np.ones((STATES, 1)),
    }


def test_mlp_has_relu_between_layers_and_none_at_the_end():
    """(1, -2) -> relu(1 - 2 - 1, 1 + 2) = (0, 3) -> 3 * -1 + 0.5 = -2.5."""
    weights = [np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[7.0], [-1.0]])]
    biases = [np.array([-1.0, 0.0]), np.array([0.5])]
    assert mlp(np.array([1.0, -2.0]), weights, biases) == pytest.approx(-2.5)


def test_discrete_update():
    """Q = (0.5, 5, 2) twice, the first action logged; V = 3 by the worst of two target critics.

    TD: (1 + 0.9 * 3 - 0.5)^2 twice and (1 - 0.5)^2, a mean, for each critic; gap 4.5591; alpha 2,
    multiplier 3, target gap 4: 2 * 3 * 0.5591 for each critic.
    """
    losses = discrete_losses(
        make_batch(np.zeros(STATES)),
        critics=[constant_network(1, [0.5, 5.0, 2.0])] * 2,
        target_critics=[constant_network(1, [3.0, 1.0, 9.0]), constant_network(1, [4.0, 8.0, 0.0])],
        target="max",
        alpha=2.0,
        multiplier=3.0,
        target_gap=4.0,
    )
    td = 2 * (2 * 3.2**2 + 0.5**2) / 3
    assert losses["td"] == pytest.approx(td)
    assert losses["gap"] == pytest.approx(4.5591, abs=5e-5)
    assert losses["conservative"] == pytest.approx(12 * 0.5591, abs=1e-3)
    assert losses["multiplier"] == pytest.approx(-12 * 0.5591, abs=1e-3)
    assert losses["critic"] == pytest.approx(td + losses["conservative"])


def test_continuous_update():
    """Two critics, all actions at Q = 3 and 4, target 10 and 9; a standard Gaussian policy, n = 1.

    With zero noise every policy action has the density of u = 0 in two dimensions: 1 / (2 pi).
    Gap: log(e^Q (4 + 2 pi + 2 pi)) - Q = log(4 + 4 pi), equal for both critics.
    """
    actor = constant_network(1, [0.0] * 4)
    zeros = np.zeros((STATES, 1, WIDTH))
    losses = continuous_losses(
        make_batch(np.full((STATES, WIDTH), 0.5)),
        actor=actor,
        critics=[constant_network(1 + WIDTH, [3.0]), constant_network(1 + WIDTH, [4.0])],
        target_critics=[constant_network(1 + WIDTH, [q]) for q in (10.0, 9.0)],
        noise={
            "actor": zeros[:, 0],
            "backup": zeros,
            "current": zeros,
            "next": zeros,
            "uniform": zeros + 0.3,
        },
        alpha=2.0,
        temperature=0.5,
        multiplier=3.0,
        target_gap=1.0,
        backup="entropy",
    )
    log_prob = -math.log(2 * math.pi)
    target = 1 + 0.9 * (9 - 0.5 * log_prob)
    td = (2 * (target - 3) ** 2 + (1 - 3) ** 2 + 2 * (target - 4) ** 2 + (1 - 4) ** 2) / 3
    gap = math.log(4 + 4 * math.pi)
    assert losses["td"] == pytest.approx(td)
    assert losses["gap"] == pytest.approx(gap)
    assert losses["conservative"] == pytest.approx(2 * 6 * (gap - 1))
    assert losses["actor"] == pytest.approx(0.5 * log_prob - 3)
    assert losses["temperature"] == pytest.approx(-0.5 * (log_prob - 2))
    assert losses["multiplier"] == pytest.approx(-2 * 6 * (gap - 1))


def test_reference_density_is_the_log_of_one_minus_tanh_squared_where_that_is_exact():
    u = np.array([[0.3, -2.0], [1.1, 4.0]])
    gaussian = -0.5 * (u**2).sum(axis=1) - math.log(2 * math.pi)
    expected = gaussian - np.log(1 - np.tanh(u) ** 2).sum(axis=1)
    density = tanh_gaussian_log_prob(u, np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(density, expected, atol=1e-9)
