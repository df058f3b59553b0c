"""Guarantee: the continuous agent's losses and gradients equal the reference in every variant.

Whole updates in float64 against tests/support/reference_update.py, from the same weights and noise.
"""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import reference
from support.continuous_case import MEAN, STD, Case, make_case, reference_arguments
from support.reference_update import (
    continuous_losses,
    critic_values,
    gaussian_policy,
    sample_actions,
)

from offline_cql.agents.cql_continuous import Noise

VARIANTS = {
    "default": [],
    "alpha 0": ["cql.alpha=0"],
    "max backup": ["cql.backup=max", "cql.n_action_samples=3"],
    "entropy backup": ["cql.backup=entropy", "cql.temperature_initial=0.3"],
    "gap temperature below 1": ["cql.gap_temperature=0.25"],
    "gap temperature above 1": ["cql.gap_temperature=3"],
    "limited gap": ["cql.gap_min=2.97", "cql.gap_max=3.24"],
    "clipped actions": ["cql.action_clip=0.3"],
    "lagrange": ["cql=lagrange", "cql.multiplier_initial=2.5", "cql.target_gap=0.7"],
    "one critic": ["network.n_critics=1", "cql.n_action_samples=1"],
    "three critics": ["network.n_critics=3"],
    "entropy and std": ["cql.target_entropy=-0.3", "network.log_std_max=-0.1"],
    "everything": [
        *("cql=lagrange", "cql.multiplier_initial=0.4", "cql.backup=entropy", "cql.alpha=2"),
        *("cql.gap_temperature=1.5", "cql.gap_max=3.2", "cql.action_clip=0.5"),
    ],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_equal_the_reference(variant: str):
    case = make_case(*VARIANTS[variant])
    expected = continuous_losses(**reference_arguments(case))
    total, metrics = case.loss()
    parts = ["critic", "actor", "temperature"]
    if case.agent.penalty.lagrange:
        parts.append("multiplier")
    assert total.item() == pytest.approx(sum(expected[part] for part in parts), abs=1e-9)
    assert metrics["critic/td_loss"].item() == pytest.approx(expected["td"], abs=1e-9)
    assert metrics["critic/gap"].item() == pytest.approx(expected["gap"], abs=1e-9)
    assert metrics["actor/loss"].item() == pytest.approx(expected["actor"], abs=1e-9)


def gaps_of(case: Case) -> torch.Tensor:
    """Return the gaps [E, B] that the agent computes inside its loss."""
    captured, gap = [], case.agent.gap
    case.agent.gap = lambda *inputs: captured.append(gap(*inputs)) or captured[-1]
    case.loss()
    return captured[0].detach()


def test_the_limited_gap_variant_reaches_both_limits():
    """Otherwise the variant would not test the limits."""
    free, limited = gaps_of(make_case()), gaps_of(make_case(*VARIANTS["limited gap"]))
    low, high = free < limited, free > limited
    assert 0 < low.sum() < low.numel() - high.sum()
    assert 0 < high.sum() < high.numel() - low.sum()


# --- Gradients -----------------------------------------------------------------------------------

COORDINATES = [(0, 1, 2), (0, 0, 0), (1, 2, 0)]  # of the weights: layer, input, output


@pytest.mark.parametrize("variant", ["default", "lagrange", "entropy backup", "limited gap"])
@pytest.mark.parametrize(
    ("network", "loss"),
    [("critics", "critic"), ("actor", "actor")],
)
def test_network_gradients_equal_the_references(variant: str, network: str, loss: str):
    """The stop-gradients leave each network the gradient of its own loss only."""
    case = make_case(*VARIANTS[variant])
    arguments = reference_arguments(case)
    weights = (arguments["critics"][1] if network == "critics" else arguments["actor"])[0]

    def loss_at(point: NDArray[np.float64]) -> float:
        for value, (layer, row, column) in zip(point, COORDINATES, strict=True):
            weights[layer][row, column] = value
        return continuous_losses(**arguments)[loss]

    start = np.array([weights[layer][row, column] for layer, row, column in COORDINATES])
    expected = reference.numerical_gradient(loss_at, start)
    case.gradients()
    mlp = case.agent.critic.mlp if network == "critics" else case.agent.actor.mlp
    member = 1 if network == "critics" else 0
    gradients_at = [
        mlp.weights[layer].grad[member, row, column] for layer, row, column in COORDINATES
    ]
    np.testing.assert_allclose(gradients_at, expected, rtol=1e-5, atol=1e-8)
    assert np.abs(expected).max() > 1e-3


def test_temperature_and_multiplier_gradients_equal_the_references():
    case = make_case(*VARIANTS["everything"])
    arguments = reference_arguments(case)
    gradients = case.gradients()
    for name, setting, loss in (
        ("log_temperature", "temperature", "temperature"),
        ("penalty.log_multiplier", "multiplier", "multiplier"),
    ):
        fixed = arguments[setting]

        def loss_at(point: NDArray[np.float64], setting: str = setting, loss: str = loss) -> float:
            return continuous_losses(**arguments | {setting: math.exp(point[0])})[loss]

        expected = reference.numerical_gradient(loss_at, np.array([math.log(fixed)]))
        assert gradients[name].item() == pytest.approx(expected[0], rel=1e-5)
        assert abs(expected[0]) > 1e-3


# --- Stop-gradients ---------------------------------------------------------------------


def changed_networks(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Return the first parts of the names of the parameters whose gradients differ."""
    return {
        name.split(".")[0]
        for name in before
        if not torch.allclose(before[name], after[name], rtol=1e-9, atol=1e-12)
    }


def test_the_actors_loss_has_no_gradient_in_the_critics():
    """The actor's noise enters its own loss and the temperature's, and nothing else."""
    case = make_case(*VARIANTS["everything"])
    noise = case.noise._replace(actor=case.noise.actor + 0.5)
    assert changed_networks(case.gradients(), case.gradients(noise=noise)) == {
        "actor",
        "log_temperature",
    }


def test_the_critics_loss_has_no_gradient_in_actor_and_temperature():
    """Rewards and the proposals' noise enter the critics' loss and the multiplier's."""
    case = make_case("cql=lagrange", "cql.backup=entropy")
    reward = case.batch._replace(reward=10 * case.batch.reward)
    noise = case.noise._replace(
        current=case.noise.current + 0.5, next=-case.noise.next, uniform=-case.noise.uniform
    )
    backup = case.noise._replace(backup=case.noise.backup + 0.5)
    before = case.gradients()
    assert changed_networks(before, case.gradients(batch=reward)) == {"critic"}
    assert changed_networks(before, case.gradients(noise=backup)) == {"critic"}
    assert changed_networks(before, case.gradients(noise=noise)) == {"critic", "penalty"}


def test_the_targets_and_statistics_have_no_gradient():
    case = make_case()
    case.gradients()
    assert all(p.grad is None for p in case.agent.target_critic.parameters())
    assert all(not buffer.requires_grad for buffer in case.agent.buffers())


# --- The gap -------------------------------------------------------------------------------------


def test_the_order_of_the_proposals_changes_nothing():
    case = make_case("cql.n_action_samples=4", "cql.backup=max")
    order = torch.tensor([2, 0, 3, 1])
    noise = Noise(*(part if len(part) == 1 else part[order] for part in case.noise))
    assert case.loss(noise=noise)[0].item() == pytest.approx(case.loss()[0].item(), abs=1e-12)


def test_every_proposal_changes_the_gap():
    """A log-sum-exp over three values instead of 3n would not see most of them."""
    case = make_case("cql.n_action_samples=3")
    gap = case.loss()[1]["critic/gap"]
    for name in ("uniform", "current", "next"):
        for j in range(3):
            part = getattr(case.noise, name).clone()
            part[j] *= 0.5
            noise = case.noise._replace(**{name: part})
            assert case.loss(noise=noise)[1]["critic/gap"] != gap


def test_proposals_of_the_next_state_are_scored_at_the_current_one():
    case, captured = make_case(), []
    case.agent.critic.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    case.loss()
    current = (case.batch.observation - MEAN) / STD
    assert len(captured) == 2  # the logged action with all proposals in one pass, then the actor's
    assert all(torch.allclose(observation, current) for observation in captured)


@pytest.mark.parametrize("over", ["uniform", "policy"])
def test_expectation_penalty_equals_the_reference(over: str):
    """E_mu Q − Q(s, a) for the n actions of mu, and their order in the summed loss."""
    case = make_case("cql.penalty=expectation", f"cql.expectation_over={over}", "cql.alpha=2")
    arguments = reference_arguments(case)
    state, critics, noise = (
        arguments["batch"]["observation"],
        arguments["critics"],
        arguments["noise"],
    )
    actions = noise["uniform"]
    if over == "policy":
        limits = arguments["log_std_limits"]
        actions, _ = sample_actions(state, arguments["actor"], noise["current"], limits)
    logged = critic_values(state, arguments["batch"]["action"][:, None], critics)[..., 0]
    gap = reference.expectation_gap(critic_values(state, actions, critics), logged)
    losses = continuous_losses(**arguments)
    total, metrics = case.loss()
    assert metrics["critic/gap"].item() == pytest.approx(gap.mean(), abs=1e-9)
    rest = losses["td"] + losses["actor"] + losses["temperature"]
    expected = rest + reference.conservative_loss(gap, 2.0)
    assert total.item() == pytest.approx(expected, abs=1e-9)
    assert ("critic/q_uniform" in metrics) == (over == "uniform")


# --- Behavior cloning first ----------------------------------------------------------------------


def test_bc_updates_replace_the_actors_loss_and_freeze_the_temperature():
    """cql.bc_updates=2: the third update has the actor loss and the temperature loss again."""
    case = make_case("cql.bc_updates=2", *VARIANTS["lagrange"])
    arguments = reference_arguments(case)
    expected = continuous_losses(**arguments)
    state, action = arguments["batch"]["observation"], arguments["batch"]["action"]
    mean, log_std = gaussian_policy(state, arguments["actor"], arguments["log_std_limits"])
    density = reference.tanh_gaussian_log_prob(np.arctanh(action), mean, log_std)
    bc_loss, critics = (
        reference.behavior_cloning_loss(density),
        expected["critic"] + expected["multiplier"],
    )
    for update in (0, 1):
        case.agent.updates = update
        total, metrics = case.loss()
        assert total.item() == pytest.approx(critics + bc_loss, abs=1e-9)
        assert metrics["actor/loss"].item() == pytest.approx(bc_loss, abs=1e-9)
        assert case.gradients()["log_temperature"] == 0.0
    case.agent.updates = 2
    total = case.loss()[0].item()
    assert total == pytest.approx(critics + expected["actor"] + expected["temperature"], abs=1e-9)


def test_bc_updates_do_not_change_the_critics_gradient():
    cloning, plain = make_case("cql.bc_updates=1"), make_case()
    assert changed_networks(cloning.gradients(), plain.gradients()) == {"actor", "log_temperature"}
