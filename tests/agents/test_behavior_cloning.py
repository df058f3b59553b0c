"""Guarantee: behavior cloning recovers the policy of the data, continuous or discrete."""

from typing import Any

import numpy as np
import pytest
import torch
from support.builders import (
    attach,
    batch_of,
    build,
    continuous_data,
    discrete_data,
    settings,
    with_actions,
)

from offline_cql.transitions import Transitions

BC = ("algorithm=bc", "bc.learning_rate=0.01", "batch_size=128")


def train_bc(data: Transitions, *overrides: str, updates: int = 250) -> Any:
    """Return the agent after `updates` updates on random batches of 128."""
    agent = build(settings(*BC, *overrides), data.spaces)
    optimizer, generator = attach(agent), np.random.default_rng(0)
    all_transitions = batch_of(data, range(len(data)))
    for _ in range(updates):
        indices = torch.from_numpy(generator.integers(0, len(data), 128))
        agent.update(
            type(all_transitions)(*(tensor[indices] for tensor in all_transitions)), optimizer
        )
    return agent


def test_bc_recovers_a_gaussian_policy():
    """tanh of N(0.5 s0 − 0.3, 0.2) and of N(−0.4 s1, 0.5)."""
    data, generator = continuous_data(2000), np.random.default_rng(1)
    first, second = data.observations[:, 0], data.observations[:, 1]
    mean = np.stack([0.5 * first - 0.3, -0.4 * second], axis=1)
    pre_tanh = mean + np.array([0.2, 0.5]) * generator.normal(size=mean.shape)
    data = with_actions(data, np.tanh(pre_tanh).astype(np.float32))
    agent = train_bc(data, "network.actor_hidden=[16]")
    observation = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.5]])
    expected = torch.tanh(torch.tensor([[-0.3, 0.0], [0.2, 0.4], [-0.8, -0.4]]))
    torch.testing.assert_close(agent.act(observation), expected, atol=0.08, rtol=0)
    std = agent.actor(observation)[1].exp().mean(dim=0)
    torch.testing.assert_close(std, torch.tensor([0.2, 0.5]), atol=0.05, rtol=0)


def test_continuous_loss_is_minus_the_log_prob_of_the_logged_action():
    """A standard normal policy and the action tanh(0.5): N(0.5) over the slope of tanh there."""
    data = continuous_data(low=(-2.0,), high=(2.0,))
    data = with_actions(data, np.full((64, 1), np.tanh(0.5), np.float32))
    agent = build(settings(*BC), data.spaces)
    with torch.no_grad():
        agent.actor.mlp.weights[-1].zero_()
        agent.actor.mlp.biases[-1].zero_()
    loss, metrics = agent.compute_losses(batch_of(data, range(8)), log_metrics=True)
    density = np.exp(-0.125) / np.sqrt(2 * np.pi) / (1 - np.tanh(0.5) ** 2)
    assert loss.item() == pytest.approx(-np.log(density), abs=1e-5)
    assert metrics["actor/action_distance"].item() == pytest.approx(np.tanh(0.5) ** 2, abs=1e-6)


@pytest.mark.parametrize("action", [1.0, -1.0, float(np.nextafter(np.float32(1), np.float32(0)))])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_actions_at_the_bounds_give_finite_losses_and_gradients(action: float, precision: str):
    data = continuous_data()
    data = with_actions(data, np.full_like(data.actions, action))
    agent = build(settings(*BC, f"hardware.precision={precision}"), data.spaces)
    loss, _ = agent.compute_losses(batch_of(data, range(8)), log_metrics=False)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in agent.actor.parameters())
    agent = train_bc(data, f"hardware.precision={precision}", updates=100)
    assert (agent.act(torch.randn(20, 3)) * action > 0.8).all()


def test_bc_recovers_the_most_frequent_action_per_state():
    """Action 0 in 7 of 10 cases where s0 < 0, else action 2; the others share the rest."""
    data, generator = discrete_data(2000), np.random.default_rng(1)
    usual = np.where(data.observations[:, 0] < 0, 0, 2)
    other = generator.integers(0, 3, 2000)
    data = with_actions(data, np.where(generator.random(2000) < 0.55, usual, other))
    agent = train_bc(data, "env=cartpole")
    observation = torch.tensor([[-1.0, 0.0, 0.0], [-0.5, 1.0, -1.0], [0.5, 1.0, 0.0]])
    assert agent.act(observation).tolist() == [0, 0, 2]
    logits = agent.actor(agent.statistics(observation))[0]
    probabilities = torch.softmax(logits, dim=1)[0]
    torch.testing.assert_close(probabilities, torch.tensor([0.7, 0.15, 0.15]), atol=0.1, rtol=0)


def test_discrete_loss_of_equal_logits_is_the_log_of_the_number_of_actions():
    data = discrete_data(actions=4)
    agent = build(settings("env=cartpole", *BC), data.spaces)
    with torch.no_grad():
        agent.actor.weights[-1].zero_()
        agent.actor.biases[-1].zero_()
    loss, metrics = agent.compute_losses(batch_of(data, range(8)), log_metrics=True)
    assert loss.item() == pytest.approx(np.log(4))
    agreement = (data.actions[:8] == 0).mean()
    assert metrics["actor/agreement"].item() == pytest.approx(agreement)


def test_the_optimizer_has_one_group_at_bc_learning_rate():
    for env, data in (("pendulum", continuous_data()), ("cartpole", discrete_data())):
        agent = build(settings(*BC, f"env={env}"), data.spaces)
        (group,) = attach(agent).param_groups
        assert group["lr"] == 0.01
        assert [id(p) for p in group["params"]] == [id(p) for p in agent.parameters()]
