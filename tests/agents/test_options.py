"""Guarantee: each option of CQL changes what it says, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import attach, batches, build, continuous_data, discrete_data, settings
from support.continuous_case import make_case
from torch.testing import assert_close

from offline_cql.agents.cql_continuous import Noise
from offline_cql.agents.distributions import TanhGaussian
from offline_cql.commands.fit import unit_scale
from offline_cql.data.dataset import make_dataset
from offline_cql.data.split import train_on_all
from offline_cql.errors import DataError
from offline_cql.losses import behavior_cloning_loss
from offline_cql.networks import PolicyAverage
from offline_cql.transitions import Batch, Transitions

WEIGHT = ("cql.bc_updates=0", "cql.bc_weight=0.25")


class Constant(torch.nn.Module):
    """Three critics with the values 0, 1 and 2 everywhere."""

    def forward(self, _observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return torch.arange(3.0).view(3, 1, 1).expand(3, *action.shape[:2])


def scaled(data: Transitions, factor: float) -> Transitions:
    """Return the data with rewards times a factor."""
    rows = data.rows.copy()
    rows[:, data.columns.reward] *= factor
    return replace(data, rows=rows)


def update(agent: Any, data: Transitions, times: int) -> list[dict[str, Any]]:
    """Make updates on random batches; return the optimizer's groups after each."""
    optimizer, groups = attach(agent), []
    for batch in batches(data, times):
        agent.update(batch, optimizer)
        groups.append({group["name"]: group["lr"] for group in optimizer.param_groups})
    return groups


# --- bc_weight -----------------------------------------------------------------------------------


def test_the_actors_loss_is_q_over_its_mean_size_and_the_weighted_likelihood():
    case = make_case(*WEIGHT)
    agent = case.agent
    agent.update_schedules(attach(agent))
    observation = agent.statistics(case.batch.observation)
    dist = TanhGaussian(*agent.actor(observation))
    action, _ = dist.sample(case.noise.actor)
    q = agent.critic(observation, action).squeeze(2).amin(dim=0)
    cloning = behavior_cloning_loss(dist.log_prob(case.batch.action))
    _, metrics = case.loss()
    assert_close(metrics["actor/loss"], (-q.mean() / q.abs().mean() + 0.25 * cloning).detach())


def test_the_actors_step_does_not_depend_on_the_size_of_q():
    """Doubling head weights and biases doubles Q; Q / mean |Q| stays, also for negative Q."""
    case = make_case(*WEIGHT, "cql.alpha=0")
    before = case.gradients()
    with torch.no_grad():
        case.agent.critic.mlp.weights[-1].mul_(2.0)
        case.agent.critic.mlp.biases[-1].mul_(2.0)
    after = case.gradients()
    for name in before:
        if name.startswith("actor"):
            assert_close(after[name], before[name])


@pytest.mark.parametrize("updates", [0, 1], ids=["cloning", "afterwards"])
def test_each_logged_action_is_cloned_with_its_weight(updates: int):
    """Weights 2, 0, 1.5 and 0.5: the loss of cloning is that of the weighted log-densities."""
    case = make_case("cql.bc_updates=1", "cql.bc_weight=0.25")
    agent, weights = case.agent, torch.tensor([2.0, 0.0, 1.5, 0.5], dtype=torch.float64)
    agent.updates = updates
    agent.update_schedules(attach(agent))
    dist = TanhGaussian(*agent.actor(agent.statistics(case.batch.observation)))
    extra = behavior_cloning_loss((weights - 1.0) * dist.log_prob(case.batch.action))
    before = case.loss()[1]["actor/loss"]
    after = case.loss(batch=case.batch._replace(cloning_weight=weights))[1]["actor/loss"]
    assert_close(after - before, ((0.25 if updates else 1.0) * extra).detach())


@pytest.mark.parametrize("updates", [0, 1], ids=["cloning", "afterwards"])
def test_penalty_and_actor_see_a_transition_as_often_as_its_weight_says(updates: int):
    """Weights 2, 0, 1 and 1 are the batch 0, 0, 2, 3; the TD loss has no weights."""
    case = make_case(
        *("cql.bc_updates=1", "cql.bc_weight=0.25", "cql.bc_share=0.5", "cql.return_weighted=true"),
        *("cql.importance_sampling=false", "cql.critic_warmup=returns"),
    )
    agent, drawn = case.agent, torch.tensor([0, 0, 2, 3])
    agent.updates = updates
    agent.update_schedules(attach(agent))
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    batch = Batch(*(part[drawn] for part in case.batch))
    noise = Noise(*(part[:, drawn] for part in case.noise))
    weighted = case.gradients(batch=case.batch._replace(cloning_weight=weights))
    repeated = case.gradients(batch=batch, noise=noise)
    agent.penalty.alpha.zero_()
    td, td_repeated = case.gradients(), case.gradients(batch=batch, noise=noise)
    for name in weighted:
        if name.startswith("critic"):
            assert_close(weighted[name] - td[name], repeated[name] - td_repeated[name])
        else:
            assert_close(weighted[name], repeated[name])


def test_a_share_weighs_the_training_episodes_by_their_return():
    """Four episodes of 16 steps: the weights have mean 1 and grow with the return."""
    data = continuous_data()
    split = train_on_all(data)
    dataset = make_dataset(data, split, settings().dataset, gamma=0.99, cloning_share=0.5)
    weights = dataset[torch.arange(64)].cloning_weight
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights.sum() ** 2 / weights.square().sum()).item() == pytest.approx(32, rel=1e-3)
    order = np.argsort(data.episode_returns())
    assert np.all(np.diff(weights[::16].numpy()[order]) > 0)
    plain = make_dataset(data, split, settings().dataset, gamma=0.99)
    assert torch.equal(plain[torch.arange(64)].cloning_weight, torch.ones(64))


def test_with_a_weight_the_temperature_does_not_change():
    agent = build(settings(*WEIGHT), continuous_data().spaces)
    start = agent.log_temperature.item()
    update(agent, continuous_data(), 3)
    assert agent.log_temperature.item() == start


def test_weight_and_learning_rates_decay_after_cloning():
    """Half cosine from update 2 to 6: at 4 half-way, from 6 on the final values."""
    schedule = ("cql.bc_updates=2", "cql.bc_learning_rate=0.5", "cql.decay_until=6")
    rates = ("cql.actor_learning_rate=0.1", "cql.critic_learning_rate=0.2")
    final = ("cql.bc_weight=1", "cql.bc_weight_final=0", "cql.learning_rate_final=0.5")
    agent = build(settings(*schedule, *rates, *final), continuous_data().spaces)
    groups = update(agent, continuous_data(), 8)
    assert [group["actor"] for group in groups[:3]] == pytest.approx([0.5, 0.5, 0.1])
    assert groups[4] == pytest.approx(
        {"actor": 0.075, "critic": 0.15, "temperature": 3e-4}, rel=1e-6
    )
    assert groups[7]["critic"] == pytest.approx(0.1)
    assert agent.bc_weight.item() == 0.0
    assert agent.decay(1.0, 0.0) == 0.0


def test_a_discrete_agents_learning_rate_decays_from_the_start():
    """Half cosine from update 0 to 4: at 2 half-way, from 4 on the final value."""
    rates = ("cql.critic_learning_rate=0.2", "cql.learning_rate_final=0.5", "cql.decay_until=4")
    agent = build(settings("env=cartpole", *rates), discrete_data().spaces)
    groups = update(agent, discrete_data(), 6)
    critic = [group["critic"] for group in groups]
    assert critic[0] == 0.2
    assert critic[2] == pytest.approx(0.15)
    assert critic[4:] == pytest.approx([0.1, 0.1])


def test_behavior_clonings_learning_rate_decays():
    overrides = ("algorithm=bc", "bc.learning_rate=0.2", "bc.learning_rate_final=0")
    agent = build(settings(*overrides, "bc.decay_until=4"), continuous_data().spaces)
    rates = [group["actor"] for group in update(agent, continuous_data(), 6)]
    assert rates[0] == 0.2
    assert rates[2] == pytest.approx(0.1)
    assert rates[4:] == pytest.approx([0.0, 0.0])


# --- Cloned actions at a bound -------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=bc", "bc.saturated_action=0.6"),
        ("cql.bc_updates=1", "cql.bc_saturated_action=0.6"),
        ("cql.bc_updates=1", "cql.action_clip=0.6"),
    ],
)
def test_actions_at_a_bound_are_cloned_as_smaller_ones(overrides: tuple[str, ...]):
    """Mean 0 and std 1 before tanh; atanh 0.6 = ln 2. A logged action of 1 counts as 0.6:
    log-density -ln(2 pi) / 2 - (ln 2)^2 / 2 - ln(1 - 0.36) per dimension."""
    agent = build(settings(*overrides), continuous_data().spaces)
    attach(agent)
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.zero_()
    (batch,) = batches(continuous_data(), 1)
    batch = batch._replace(action=torch.ones_like(batch.action))
    _, metrics = agent.compute_losses(batch, log_metrics=True)
    log_density = -np.log(2 * np.pi) / 2 - np.log(2) ** 2 / 2 - np.log(1 - 0.36)
    dimensions = batch.action.shape[1]
    assert metrics["actor/loss"].item() == pytest.approx(-dimensions * log_density, rel=1e-5)
    likelihood = agent.validation_metrics(batch)["log_likelihood"].mean()
    assert likelihood.item() == pytest.approx(dimensions * log_density, rel=1e-5)


def test_only_cloned_actions_at_a_bound_change():
    """Mean 0 and std 1 before tanh; a logged 1 counts as 0.6, whose atanh is ln 2; 0.8 stays, with
    atanh ln 3. The critics see both as they are."""
    case = make_case("cql.bc_updates=1", "cql.bc_saturated_action=0.6")
    agent = case.agent
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.zero_()
    action = torch.full_like(case.batch.action, 0.8)
    action[:, 0] = -1.0
    batch = case.batch._replace(action=action)
    _, metrics = agent.compute_losses(batch, noise=case.noise, log_metrics=True)
    at_bound = -np.log(2 * np.pi) / 2 - np.log(2) ** 2 / 2 - np.log(1 - 0.36)
    inside = -np.log(2 * np.pi) / 2 - np.log(3) ** 2 / 2 - np.log(1 - 0.64)
    expected = at_bound + (action.shape[1] - 1) * inside
    assert metrics["actor/loss"].item() == pytest.approx(-expected, rel=1e-5)
    likelihood = agent.validation_metrics(batch)["log_likelihood"].mean()
    assert likelihood.item() == pytest.approx(expected, rel=1e-5)
    q = agent.critic(agent.statistics(batch.observation), action.unsqueeze(1))
    assert metrics["critic/q_logged"].item() == pytest.approx(q.mean().item(), rel=1e-6)


# --- The critics' targets ------------------------------------------------------------------------


def test_during_warmup_the_target_is_the_return_that_followed():
    """Rewards 1, 2, 4 until termination with gamma 0.5: 1 + 0.5 (2 + 0.5 * 4) = 3, then 4 and 4."""
    case = make_case("cql.critic_warmup=returns", "cql.bc_updates=1")
    returns = torch.tensor([3.0, 4.0, 4.0, -1.0], dtype=torch.float64)
    batch = case.batch._replace(return_to_go=returns)
    _, metrics = case.loss(batch=batch)
    assert_close(metrics["critic/target"], returns.mean())
    case.agent.updates = 1
    _, metrics = case.loss(batch=batch)
    assert metrics["critic/target"] != returns.mean()


def test_batches_hold_the_discounted_return_that_followed():
    data = continuous_data()  # episodes of 16, the first one ends in a terminal state
    dataset = make_dataset(data, train_on_all(data), settings().dataset, gamma=0.5)
    rewards = data.rewards.astype(np.float64)
    expected = [rewards[13] + 0.5 * (rewards[14] + 0.5 * rewards[15]), rewards[15]]
    values = dataset[torch.tensor([13, 15])].return_to_go
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_each_target_takes_its_minimum_over_other_critics():
    """Target critics 0, 1, 2: the minimum over two random ones is 0 twice as often as 1."""
    case = make_case("network.n_critics=3", "cql.target_critics=2")
    agent, batch = case.agent, case.batch
    agent.target_critic = Constant()
    dist = TanhGaussian(*agent.actor(agent.statistics(batch.next_observation)))
    batch = batch._replace(reward=0 * batch.reward, discount=0 * batch.discount + 1)
    values = [agent.bellman_target(batch, None, dist, case.noise)[0].item() for _ in range(600)]
    assert set(values) == {0.0, 1.0}
    assert np.mean(np.equal(values, 0.0)) == pytest.approx(2 / 3, abs=0.08)


def test_discrete_targets_draw_critics_in_training_only():
    data = discrete_data()
    agent = build(
        settings("env=cartpole", "network.n_critics=3", "cql.target_critics=1"), data.spaces
    )
    attach(agent)
    state = agent.noise.get_state()
    (batch,) = batches(data, 1)
    with torch.no_grad():
        agent.validation_metrics(batch)
        assert torch.equal(agent.noise.get_state(), state)
        agent.compute_losses(batch, log_metrics=False)
    assert not torch.equal(agent.noise.get_state(), state)


# --- The gap -------------------------------------------------------------------------------------


def test_only_the_policys_actions_are_calibrated():
    """Two uniform samples, then two of pi(s) and two of pi(s'), all at 0; the return is 5."""
    case = make_case("cql.calibrated=true", "cql.importance_sampling=false")
    q, logged, returns = torch.zeros(2, 4, 6), torch.zeros(2, 4), torch.full((4,), 5.0)
    gap = case.agent.gap(q, torch.zeros(4, 6), logged, returns)
    expected = np.log(2 + 4 * np.exp(5.0) + 1)
    assert_close(gap, torch.full((2, 4), float(expected)))


def test_without_importance_sampling_no_density_matters():
    case = make_case("cql.importance_sampling=false")
    q, logged = torch.randn(2, 4, 6), torch.randn(2, 4)
    first, second = (
        case.agent.gap(q, log_prob, logged, torch.zeros(4))
        for log_prob in (torch.zeros(4, 6), torch.randn(4, 6))
    )
    assert torch.equal(first, second)


# --- Units, norm, average ------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1024.0, 1 / 1024])
def test_in_units_of_the_returns_rewards_of_any_size_give_the_same_batches(factor: float):
    config, data = settings("cql.alpha_unit=return"), continuous_data()
    datasets = []
    for part in (data, scaled(data, factor)):
        split = train_on_all(part)
        scale = unit_scale(config, part, split)
        datasets.append(make_dataset(part, split, config.dataset, gamma=0.99, scale=scale))
    first, second = (dataset[torch.arange(64)] for dataset in datasets)
    assert torch.equal(first.reward, second.reward)
    assert first.return_to_go.std(correction=0).item() == pytest.approx(100.0, rel=1e-5)


def test_equal_returns_are_no_unit():
    data = scaled(continuous_data(), 0.0)
    with pytest.raises(DataError, match=r"cql\.alpha_unit=reward"):
        unit_scale(settings("cql.alpha_unit=return"), data, train_on_all(data))
    assert unit_scale(settings("algorithm=bc"), data, train_on_all(data)) == 1.0


def test_the_critics_have_a_norm_and_the_actor_has_none():
    agent = build(settings("network.critic_norm=layer"), continuous_data().spaces)
    names = {name for name, _ in agent.named_parameters() if "norm" in name}
    assert names == {"critic.mlp.norm_scales.0", "critic.mlp.norm_offsets.0"} | {
        "target_critic.mlp.norm_scales.0",
        "target_critic.mlp.norm_offsets.0",
    }


@pytest.mark.parametrize("algorithm", ["cql", "bc"])
def test_the_average_acts_and_the_actor_trains(algorithm: str):
    """After one update from w0 to w1 the average is 0.1 w0 + 0.9 w1: 0.75 is not yet reached."""
    data, overrides = continuous_data(), (f"algorithm={algorithm}", "updates=8")
    agents = []
    for ema in ((), ("network.policy_ema=0.75",)):
        agent = build(settings(*overrides, *ema), data.spaces)
        before = [p.detach().clone() for p in agent.actor.parameters()]
        update(agent, data, 1)
        agents.append(agent)
    plain, averaged = agents
    assert plain.policy().network is plain.actor
    for start, first, second, average in zip(
        before,
        plain.actor.parameters(),
        averaged.actor.parameters(),
        averaged.policy().network.parameters(),
        strict=True,
    ):
        assert torch.equal(first, second)
        assert_close(average, 0.1 * start + 0.9 * second)
        assert not average.requires_grad


def test_the_average_forgets_the_first_weights_soon():
    """Weights 1, 2, 3 after 0: 0.9, then (2 / 11) 0.9 + (9 / 11) 2 = 1.8, then 0.5 (1.8 + 3)."""
    actor = torch.nn.Linear(1, 1, bias=False)
    actor.weight.data.zero_()
    average = PolicyAverage(actor, 0.5)
    for weight, expected in ((1.0, 0.9), (2.0, 1.8), (3.0, 2.4)):
        actor.weight.data.fill_(weight)
        average.update(actor)
        if weight == 2.0:
            average.updates.fill_(98.0)  # (1 + t) / (10 + t) = 99 / 108 > 0.5
        assert average.acting(actor).weight.item() == pytest.approx(expected)


def test_the_discrete_gap_is_calibrated():
    """Q = 0 for all of three actions and a return of 5: log(3 e^5) - 0 = 5 + log 3."""
    data = discrete_data()
    agent = build(settings("env=cartpole", "cql.calibrated=true"), data.spaces)
    (batch,) = batches(data, 1)
    batch = batch._replace(return_to_go=torch.full((8,), 5.0))
    gap = agent.gap(torch.zeros(2, 8, 3), batch)
    assert_close(gap, torch.full((2, 8), float(5.0 + np.log(3.0))))
