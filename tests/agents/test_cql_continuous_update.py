"""Guarantee: one update with the summed loss equals a baseline with one optimizer per loss.

The baseline takes a backward pass and an Adam step per loss, all at the same parameters; it is
written out here without the package's losses.
"""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from support.builders import attach, batch_of, build, continuous_data, differences, settings
from support.continuous_case import MEAN, STD, Case, make_case
from torch import Tensor
from torch.distributions import Normal

RATES = (
    *("cql.actor_learning_rate=1e-3", "cql.critic_learning_rate=3e-3"),
    "cql.temperature_learning_rate=2e-3",
)
LAGRANGE = ("cql=lagrange", "cql.multiplier_initial=2", "cql.multiplier_learning_rate=5e-3")


def update(case: Case, times: int = 1) -> None:
    """Update the case's agent `times` times on its batch, each time with the case's noise."""
    optimizer = attach(case.agent)
    case.agent.sample_rank_noise = lambda _: case.noise
    for _ in range(times):
        case.agent.update(case.batch, optimizer)


def values(agent: Any) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    return {name: value.clone() for name, value in agent.state_dict().items()}


# --- The baseline --------------------------------------------------------------------------------


def sample_actions(case: Case, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return squashed actions [B, n, A] and their log_prob [B, n], by torch's Normal."""
    mean, log_std = (part.unsqueeze(1) for part in case.agent.actor(observation))
    pre_tanh = mean + log_std.exp() * noise.transpose(0, 1)
    normal = Normal(mean, log_std.exp()).log_prob(pre_tanh)
    return pre_tanh.tanh(), (normal - (1 - pre_tanh.tanh().square()).log()).sum(dim=-1)


def baseline_gap(case: Case, dist: Tensor, next_dist: Tensor) -> Tensor:
    """Return log Σ_j exp(Q_j) / μ_j − Q of the logged action, [E, B]."""
    critic, noise, action = case.agent.critic, case.noise, case.batch.action
    uniform = noise.uniform.transpose(0, 1)
    uniform_log_prob = torch.full(uniform.shape[:2], 0.25).log()  # a square of side 2
    with torch.no_grad():
        current, next_ = (
            sample_actions(case, dist, noise.current),
            sample_actions(case, next_dist, noise.next),
        )
    actions = torch.cat([uniform, current[0], next_[0]], dim=1)
    log_mu = torch.cat([uniform_log_prob, current[1], next_[1]], dim=1)
    exponent = critic(dist, actions) - log_mu
    return exponent.logsumexp(dim=2) - critic(dist, action.unsqueeze(1)).squeeze(2)


def baseline_losses(case: Case) -> dict[str, Tensor]:
    """Return each loss by network; nothing is detached, the optimizers keep the gradients apart."""
    agent, batch, cql = case.agent, case.batch, case.agent.cql
    dist, next_dist = ((o - MEAN) / STD for o in (batch.observation, batch.next_observation))
    with torch.no_grad():
        value = agent.target_critic(
            next_dist, sample_actions(case, next_dist, case.noise.backup)[0]
        )
        target = batch.reward + batch.discount * value.squeeze(2).min(dim=0).values
    q = agent.critic(dist, batch.action.unsqueeze(1)).squeeze(2)
    losses = {"critic": (q - target).pow(2).mean(dim=1).sum()}
    if cql.target_gap is not None:
        gap = baseline_gap(case, dist, next_dist).mean(dim=1) - cql.target_gap
        multiplier = agent.penalty.log_multiplier.exp()
        losses["critic"] = losses["critic"] + cql.alpha * (multiplier * gap).sum()
        losses["multiplier"] = -cql.alpha * (multiplier * gap).sum()
    elif cql.alpha > 0:
        gap = baseline_gap(case, dist, next_dist).mean(dim=1)
        losses["critic"] = losses["critic"] + cql.alpha * gap.sum()
    action, log_prob = sample_actions(case, dist, case.noise.actor)
    q_policy = agent.critic(dist, action).min(dim=0).values
    temperature = agent.log_temperature.exp()
    losses["actor"] = (temperature * log_prob - q_policy).mean()
    losses["temperature"] = -temperature * (log_prob.detach().mean() + agent.target_entropy)
    return losses


def baseline_update(case: Case) -> None:
    """Compute all losses at the same parameters; take one Adam step per network; move targets."""
    agent, cql = case.agent, case.agent.cql
    learners = {
        "critic": (list(agent.critic.parameters()), cql.critic_learning_rate),
        "actor": (list(agent.actor.parameters()), cql.actor_learning_rate),
        "temperature": ([agent.log_temperature], cql.temperature_learning_rate),
        "multiplier": (list(agent.penalty.parameters()), cql.multiplier_learning_rate),
    }
    losses = baseline_losses(case)
    gradients = {
        name: torch.autograd.grad(loss, learners[name][0], retain_graph=True)
        for name, loss in losses.items()
    }
    for name, gradient in gradients.items():
        parameters, rate = learners[name]
        for parameter, value in zip(parameters, gradient, strict=True):
            parameter.grad = value
        torch.optim.Adam(parameters, lr=rate).step()
    with torch.no_grad():
        pairs = zip(agent.target_critic.parameters(), agent.critic.parameters(), strict=True)
        for target, online in pairs:
            target.copy_((1 - cql.polyak) * target + cql.polyak * online)


@pytest.mark.parametrize(
    "overrides",
    [[], ["cql.alpha=0"], LAGRANGE, ["cql.polyak=0.5", "network.n_critics=3"]],
    ids=["default", "plain SAC", "lagrange", "three critics"],
)
def test_the_summed_loss_makes_the_same_step_as_separate_losses_and_optimizers(overrides):
    ours, theirs = make_case(*RATES, *overrides), make_case(*RATES, *overrides)
    before = values(ours.agent)
    update(ours)
    baseline_update(theirs)
    learned, expected = values(ours.agent), values(theirs.agent)
    for name in learned:
        torch.testing.assert_close(learned[name], expected[name], atol=1e-6, rtol=0)
        if not name.startswith(("statistics", "bounds", "updates")):
            assert (learned[name] - before[name]).abs().max() > 1e-6, name


def test_with_alpha_zero_no_gap_is_computed():
    """Plain SAC: between logging points no proposal is evaluated."""
    case = make_case("cql.alpha=0", "log_every=2")
    case.agent.gap = None  # calling it would raise
    update(case)
    assert case.agent.updates == 1


# --- Multiplier and temperature ------------------------------------------------------------------


def test_the_optimizer_has_every_trainable_parameter_once():
    agent = make_case(*LAGRANGE, "network.log_std_affine=true").agent
    groups = agent.configure_optimizers().param_groups
    assert [group["name"] for group in groups] == ["critic", "actor", "temperature", "multiplier"]
    optimized = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(optimized) == len(set(optimized))
    learning = {id(p) for p in agent.parameters() if p.requires_grad}
    assert set(optimized) == learning
    assert id(agent.penalty.log_multiplier) == optimized[-1]
    assert not learning & {id(p) for p in agent.target_critic.parameters()}


@pytest.mark.parametrize(("target_gap", "sign"), [(0.01, 1), (100.0, -1)])
def test_one_step_moves_the_multiplier_towards_its_target(target_gap: float, sign: int):
    """Adam's first step is the learning rate: up while the gap is above its target, else down."""
    case = make_case(*LAGRANGE, f"cql.target_gap={target_gap}")
    update(case)
    change = case.agent.penalty.log_multiplier.item() - math.log(2)
    assert change == pytest.approx(sign * 5e-3, rel=1e-3)


def test_the_multiplier_leaves_both_of_its_limits():
    limits = ("cql.multiplier_min=0.5", "cql.multiplier_max=4", "cql.multiplier_learning_rate=0.3")
    case = make_case(*LAGRANGE, *limits)
    agent, distance = case.agent, 1.0
    agent.gap = lambda _q, _log_prob, logged, _returns: 0 * logged + agent.cql.target_gap + distance
    optimizer = attach(agent)
    agent.sample_rank_noise = lambda _: case.noise

    def after(updates: int) -> float:
        for _ in range(updates):
            agent.update(case.batch, optimizer)
        return agent.penalty.log_multiplier.exp().item()

    assert after(20) == pytest.approx(4)
    distance = -1.0
    assert 0.5 <= after(15) < 3.5
    assert after(20) == pytest.approx(0.5)
    distance = 1.0
    assert after(30) > 0.6


@pytest.mark.parametrize(("target_entropy", "sign"), [(5.0, 1), (-50.0, -1)])
def test_one_step_moves_the_temperature_towards_the_target_entropy(
    target_entropy: float, sign: int
):
    """The entropy of actions in a square of side 2 is log 4 at most."""
    case = make_case(*RATES, f"cql.target_entropy={target_entropy}")
    update(case)
    assert case.agent.log_temperature.item() == pytest.approx(sign * 2e-3, rel=1e-3)


def test_the_default_target_entropy_is_minus_the_number_of_action_dimensions():
    assert make_case().agent.target_entropy == -2.0
    spaces = continuous_data(low=(-1.0,), high=(1.0,)).spaces
    assert build(settings(), spaces).target_entropy == -1.0


# --- Targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_targets_move_by_polyak_in_float32(precision: str):
    """A step of 0.005 of the difference is below the resolution of bf16."""
    data = continuous_data()
    agent = build(settings(f"hardware.precision={precision}"), data.spaces)
    optimizer, old = attach(agent), values(agent.target_critic)
    agent.update(batch_of(data, range(8)), optimizer)
    online = dict(agent.critic.named_parameters())
    for name, target in agent.target_critic.named_parameters():
        assert target.dtype == torch.float32
        expected = old[name].double() + 0.005 * (online[name].double() - old[name].double())
        torch.testing.assert_close(target.double(), expected, atol=1e-8, rtol=1e-6)
        assert not torch.equal(target, old[name])


def test_bf16_losses_agree_with_float32_to_one_percent():
    """Networks of Hopper's size, with the same weights and noise."""
    data = continuous_data(512, low=(-1.0,) * 3, high=(1.0,) * 3, observation_dim=11)
    wide = ("network.actor_hidden=[256,256,256]", "network.critic_hidden=[256,256,256]")
    results = []
    for precision in ("32", "bf16"):
        config = settings(*wide, "cql.n_action_samples=10", f"hardware.precision={precision}")
        agent = build(config, data.spaces)
        noise = agent.sample_noise(256, torch.Generator().manual_seed(0))
        results.append(
            agent.compute_losses(batch_of(data, range(256)), noise=noise, log_metrics=True)
        )
    (full, exact), (half, rounded) = results
    assert half.item() == pytest.approx(full.item(), rel=0.01)
    for name in ("critic/td_loss", "critic/gap", "actor/loss", "actor/entropy"):
        assert rounded[name].item() == pytest.approx(exact[name].item(), rel=0.01), name


# --- Acting and noise ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [((-2.0,), (2.0,)), ((-1.0, 0.0, -5.0), (3.0, 0.5, -4.0))]
)
def test_act_is_deterministic_and_within_the_bounds(low, high):
    data = continuous_data(low=low, high=high)
    agent, observation = build(settings(), data.spaces), torch.randn(200, 3)
    actions = agent.act(observation)
    assert torch.equal(actions, agent.act(observation))
    mean, _ = agent.actor(observation)
    below, above = torch.tensor(low), torch.tensor(high)
    torch.testing.assert_close(actions, below + (above - below) * (mean.tanh() + 1) / 2)
    with torch.no_grad():
        agent.actor.mlp.weights[-1].mul_(1e4)  # saturated
    extreme = agent.act(observation)
    assert ((below <= extreme) & (extreme <= above)).all()
    assert (extreme == below).any()
    assert (extreme == above).any()


def test_each_rank_gets_its_slice_of_the_noise_of_the_global_batch():
    config = settings("cql.n_action_samples=3", "cql.backup=max", "batch_size=8")
    agent = build(config, continuous_data().spaces)
    noises = []
    for rank, ranks in ((0, 1), (0, 2), (1, 2)):
        attach(agent, rank=rank, ranks=ranks)
        states = 8 // ranks
        noises.append((agent.sample_rank_noise(states), agent.sample_rank_noise(states)))
    for whole, *halves in zip(*noises, strict=True):
        for part, *shares in zip(whole, *halves, strict=True):
            assert shares[0].shape[1] == 4
            assert torch.equal(torch.cat(shares, dim=1), part)
    first, second = noises[0]
    assert [tuple(part.shape) for part in first] == [
        *((3, 8, 2), (3, 8, 2), (3, 8, 2), (1, 8, 2), (3, 8, 2))
    ]
    assert not torch.equal(first.current, first.next)
    assert len(differences(list(first), list(second))) == 5


def test_proposal_noise_is_uniform_in_the_action_range_and_the_rest_standard_normal():
    """Proposals at one bound only would turn the log-sum-exp into Q at that bound."""
    agent = build(settings("cql.n_action_samples=50"), continuous_data().spaces)
    attach(agent)
    noise = agent.sample_rank_noise(100)
    uniform, normal = noise.uniform, torch.cat([noise.current, noise.next])
    assert -1 <= uniform.min() < -0.99
    assert 0.99 < uniform.max() <= 1
    assert uniform.mean().abs() < 0.03
    assert (normal.mean().abs() < 0.03) & ((normal.std() - 1).abs() < 0.03)


def test_another_seed_draws_other_noise():
    """Seeds that differ in a low bit or a high bit, and the largest seed."""
    spaces, noises = continuous_data().spaces, []
    for seed in (0, 0, 1, 2**31, 2**32 - 1):
        agent = build(settings(f"seed={seed}"), spaces)
        attach(agent)
        noises.append(list(agent.sample_rank_noise(8)))
    assert differences(noises[0], noises[1]) == []
    for one, other in combinations(noises[1:], 2):
        assert len(differences(one, other)) == 5
