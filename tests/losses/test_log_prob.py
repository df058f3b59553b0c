"""Guarantee: log-densities are those of the sampling distributions, at any magnitude."""

import math

import numpy as np
import pytest
import torch
from support import reference

from offline_cql.losses import tanh_gaussian_log_prob, uniform_log_prob

HALF_LOG_TWO_PI = 0.9189385332046727


def test_density_of_a_standard_gaussian_at_its_mean():
    """u = 0: tanh has slope 1, so only the normalization of the Gaussian is left."""
    zero = torch.zeros(1)
    assert tanh_gaussian_log_prob(zero, zero, zero).item() == pytest.approx(-HALF_LOG_TWO_PI)


def test_density_of_a_known_gaussian():
    """N(mean 0.5, std 2) at u = 1.5: z = 0.5; the slope of tanh there is 1 - 0.9051483^2."""
    density = tanh_gaussian_log_prob(
        torch.tensor([1.5]), torch.tensor([0.5]), torch.tensor([math.log(2)])
    )
    gaussian = -0.125 - math.log(2) - HALF_LOG_TWO_PI
    assert density.item() == pytest.approx(gaussian - math.log(1 - 0.9051482536**2), abs=1e-5)


def test_density_depends_on_the_action():
    density = tanh_gaussian_log_prob(
        torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1), torch.zeros(2, 1)
    )
    assert density[0] != density[1]


def test_density_adds_up_over_action_dimensions():
    u = torch.tensor([[0.3, -1.0, 2.0]])
    zeros = torch.zeros(1, 3)
    columns = [tanh_gaussian_log_prob(u[:, [a]], zeros[:, [a]], zeros[:, [a]]) for a in range(3)]
    together = tanh_gaussian_log_prob(u, zeros, zeros)
    assert together.shape == (1,)
    assert together.item() == pytest.approx(sum(columns).item(), abs=1e-6)


def test_density_integrates_to_one_over_the_action():
    """Midpoint rule over 200,000 actions in (-1, 1)."""
    actions = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000 - 1
    pre_tanh = torch.atanh(actions)[:, None]
    mean, log_std = torch.full((1, 1), 0.4).double(), torch.full((1, 1), -0.3).double()
    density = tanh_gaussian_log_prob(pre_tanh, mean, log_std).exp()
    assert density.mean().item() * 2 == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [0, 1, 5, 9, 20, 50, 1000])
@pytest.mark.parametrize("centered", [True, False])
def test_density_in_float32_agrees_with_float64(magnitude, sign, centered):
    """Centred: the slope of tanh is all that matters; 1 - tanh^2 is 0 in float32 from 9 on."""
    u = float(sign * magnitude)
    mean = u - 0.5 if centered else 0.25
    expected = reference.tanh_gaussian_log_prob([u], np.array([mean]), np.array([-0.5]))
    density = tanh_gaussian_log_prob(torch.tensor([u]), torch.tensor([mean]), torch.tensor([-0.5]))
    assert density.dtype == torch.float32
    assert density.item() == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("u", [0.0, 1.0, -5.0, 9.0, -20.0, 50.0, -1000.0, 1000.0])
def test_density_has_the_analytic_gradient_at_any_magnitude(u):
    """d/du of -(u - m)^2 / 2 + 2 log cosh u at m = u is 2 tanh u; in m it is u - m = 0."""
    pre_tanh = torch.tensor([u], requires_grad=True)
    mean = torch.tensor([u], requires_grad=True)
    tanh_gaussian_log_prob(pre_tanh, mean, torch.zeros(1)).backward()
    assert pre_tanh.grad.item() == pytest.approx(2 * math.tanh(u), abs=1e-6)
    assert mean.grad.item() == 0


def test_density_of_many_samples_agrees_with_the_reference():
    """Mean and log std [B, 1, A] repeat over the samples of a state, pre_tanh [B, N, A]."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    mean, log_std = torch.randn(2, 3, 1, 2, generator=generator, dtype=torch.float64)
    density = tanh_gaussian_log_prob(u, mean, log_std)
    expected = reference.tanh_gaussian_log_prob(u.numpy(), mean.numpy(), log_std.numpy())
    np.testing.assert_allclose(density.numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([-1.0], [1.0], -math.log(2)),
        ([-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], -3 * math.log(2)),
        ([-2.0, -2.0], [2.0, 2.0], -4 * math.log(2)),
        ([-1.0, 0.0], [4.0, 0.5], -math.log(2.5)),
        ([0.0], [0.25], math.log(4)),
    ],
)
def test_uniform_density_is_one_over_the_volume_of_the_box(low, high, expected):
    density = uniform_log_prob(torch.tensor(low), torch.tensor(high))
    assert density.shape == ()
    assert density.item() == pytest.approx(expected, abs=1e-6)
    assert reference.uniform_log_prob(low, high) == pytest.approx(expected, abs=1e-12)


def test_uniform_density_is_finite_in_two_thousand_dimensions():
    """0.5^2000 is 0 in float64."""
    density = uniform_log_prob(-torch.ones(2000), torch.ones(2000))
    assert density.item() == pytest.approx(-2000 * math.log(2), rel=1e-5)
