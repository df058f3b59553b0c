"""Guarantee: with many samples the gap is the integral of exp Q over actions, for any sampler."""

import math

import pytest
import torch

from offline_cql.losses import conservative_gap, tanh_gaussian_log_prob, uniform_log_prob

SAMPLES = 50_000


def integral_estimate(q, log_prob, *, temperature=1.0):
    """Return the gap against a logged value of 0, without the constant temperature * log N."""
    gap = conservative_gap(
        q[None, None], log_prob[None], torch.zeros(1, 1).double(), temperature=temperature
    )
    return gap.item() - temperature * math.log(len(q))


def uniform_actions(low, high):
    generator = torch.Generator().manual_seed(0)
    fractions = torch.rand(SAMPLES, len(low), generator=generator, dtype=torch.float64)
    return low + (high - low) * fractions


def linear_integral(slope, low, high):
    """Return the log integral of exp(slope . a) over the box: a product over dimensions."""
    sides = zip(slope, low, high, strict=True)
    return sum(math.log((math.exp(c * h) - math.exp(c * lo)) / c) for c, lo, h in sides)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize(
    ("low", "high"),
    [([-1.0, -1.0], [1.0, 1.0]), ([-2.0, -2.0], [2.0, 2.0]), ([-1.0, 0.0], [3.0, 0.5])],
)
def test_uniform_samples_of_a_linear_value(low, high, temperature):
    """t * log of the integral of exp((0.7 a_1 - 1.3 a_2) / t) over bounds +-1, +-2, asymmetric."""
    slope = [0.7, -1.3]
    low_, high_ = torch.tensor(low).double(), torch.tensor(high).double()
    q = uniform_actions(low_, high_) @ torch.tensor(slope).double()
    log_prob = uniform_log_prob(low_, high_).expand(SAMPLES)
    scaled = [c / temperature for c in slope]
    expected = temperature * linear_integral(scaled, low, high)
    assert integral_estimate(q, log_prob, temperature=temperature) == pytest.approx(
        expected, abs=0.02
    )


@pytest.mark.parametrize("bound", [1.0, 2.0])
def test_uniform_samples_of_a_quadratic_value(bound):
    """The integral of exp(-a^2) over [-c, c] is sqrt(pi) erf(c)."""
    low, high = torch.tensor([-bound]).double(), torch.tensor([bound]).double()
    q = -uniform_actions(low, high).square().sum(dim=1)
    estimate = integral_estimate(q, uniform_log_prob(low, high).expand(SAMPLES))
    assert estimate == pytest.approx(math.log(math.sqrt(math.pi) * math.erf(bound)), abs=0.01)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.4, 0.3), (-0.5, 0.5)])
def test_policy_samples_of_a_linear_value(mean, log_std):
    """Evenly spaced quantiles of the Gaussian in place of draws; the integral is over [-1, 1]."""
    quantiles = (torch.arange(SAMPLES).double() + 0.5) / SAMPLES
    mean_, log_std_ = torch.full((1, 1), mean).double(), torch.full((1, 1), log_std).double()
    pre_tanh = mean_ + log_std_.exp() * torch.special.ndtri(quantiles)[:, None]
    log_prob = tanh_gaussian_log_prob(pre_tanh, mean_, log_std_)
    estimate = integral_estimate(1.5 * torch.tanh(pre_tanh[:, 0]), log_prob)
    assert estimate == pytest.approx(linear_integral([1.5], [-1.0], [1.0]), abs=0.01)


def test_uniform_and_policy_samples_together_estimate_the_same_integral():
    """Each sample carries the density of its own sampler, so both halves estimate one integral."""
    low, high = -torch.ones(1).double(), torch.ones(1).double()
    uniform = uniform_actions(low, high)[:, 0]
    quantiles = (torch.arange(SAMPLES).double() + 0.5) / SAMPLES
    zeros = torch.zeros(1, 1).double()
    pre_tanh = torch.special.ndtri(quantiles)[:, None]
    policy_density = tanh_gaussian_log_prob(pre_tanh, zeros, zeros)
    q = 1.5 * torch.cat([uniform, torch.tanh(pre_tanh[:, 0])])
    log_prob = torch.cat([uniform_log_prob(low, high).expand(SAMPLES), policy_density])
    expected = linear_integral([1.5], [-1.0], [1.0])
    assert integral_estimate(q, log_prob) == pytest.approx(expected, abs=0.01)
