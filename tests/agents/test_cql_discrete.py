"""Guarantee: the discrete agent follows its formulas, finds Q* and, as alpha grows, the data.

The chain: states 0, 1, 2; `right` moves one on, `stay` does not; `right` in state 2 ends the
episode with reward 1. gamma = 1/2, so Q*(right) = 1/4, 1/2, 1 and Q*(stay) = half of that.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.builders import (
    as_reference,
    attach,
    batch_of,
    build,
    discrete_data,
    in_double,
    settings,
)
from support.reference_update import discrete_losses

from offline_cql.transitions import Batch, Spaces, Transitions

GAMMA, STAY, RIGHT, BONUS = 0.5, 0, 1, 2
BEST = torch.tensor([[0.125, 0.25], [0.25, 0.5], [0.5, 1.0]])


# --- Against the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["max", "double", "expected"])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["cql.alpha=0", "network.n_critics=1"],
        ["cql=lagrange", "cql.multiplier_initial=2.5", "cql.target_gap=0.7"],
        ["cql.gap_temperature=0.5", "cql.gap_max=1.0", "network.n_critics=3"],
    ],
    ids=["default", "plain DQN", "lagrange", "temperature and limit"],
)
def test_losses_equal_the_reference(overrides: list[str], target: str):
    config = settings("env=cartpole", f"cql.target={target}", "batch_size=4", *overrides)
    cql, data = config.cql, discrete_data()
    agent = build(config, data.spaces, mean=0.5, std=2.0).double()
    with torch.no_grad():
        for parameter in agent.target_critic.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    batch = in_double(batch_of(data, [3, 15, 16, 40]))
    arrays = {name: value.numpy() for name, value in batch._asdict().items()}
    for name in ("observation", "next_observation"):
        arrays[name] = (arrays[name] - 0.5) / 2.0
    lagrange = cql.target_gap is not None
    multiplier = agent.penalty.log_multiplier.exp().item() if lagrange else 1.0
    members = range(config.network.n_critics)
    expected = discrete_losses(
        arrays,
        critics=[as_reference(agent.critic, e) for e in members],
        target_critics=[as_reference(agent.target_critic, e) for e in members],
        target=target,
        alpha=cql.alpha,
        temperature=cql.gap_temperature,
        multiplier=multiplier,
        target_gap=cql.target_gap if lagrange else 0.0,
        gap_temperature=cql.gap_temperature,
        gap_limits=(cql.gap_min, cql.gap_max),
    )
    total, metrics = agent.compute_losses(batch, log_metrics=True)
    whole = expected["critic"] + (expected["multiplier"] if lagrange else 0.0)
    assert total.item() == pytest.approx(whole, abs=1e-9)
    assert metrics["critic/td_loss"].item() == pytest.approx(expected["td"], abs=1e-9)
    assert metrics["critic/gap"].item() == pytest.approx(expected["gap"], abs=1e-9)


def test_one_step_moves_critics_targets_and_multiplier():
    config = settings("env=cartpole", "cql=lagrange", "cql.multiplier_learning_rate=0.01")
    data = discrete_data()
    agent = build(config, data.spaces)
    optimizer = attach(agent)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in agent.parameters() if p.requires_grad}
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    agent.update(batch_of(data, range(8)), optimizer)
    for name, value in agent.state_dict().items():
        if "critic" in name:
            assert not torch.equal(value, before[name]), name
    moved = agent.penalty.log_multiplier - before["penalty.log_multiplier"]
    assert moved.item() == pytest.approx(-0.01, rel=1e-3)  # the gap starts below its target of 5


def test_the_policy_is_greedy_in_the_least_of_the_critics():
    """Least values (1, 2, 3) although one critic rates action 0 highest."""
    agent = build(settings("env=cartpole"), discrete_data().spaces)
    with torch.no_grad():
        for weight in agent.critic.weights:
            weight.zero_()
        agent.critic.biases[-1].copy_(torch.tensor([[[9.0, 2.0, 4.0]], [[1.0, 5.0, 3.0]]]))
    assert agent.act(torch.randn(4, 3)).tolist() == [2, 2, 2, 2]


# --- The chain -----------------------------------------------------------------------------------


def chain(times: tuple[int, int], *, actions: int = 2, terminal: bool = True) -> Transitions:
    """Return the chain with `stay` times[0] and `right` times[1] times per state, one-hot."""
    rows = [
        (state, action, min(state + action, 2), float(state + action == 3))
        for state in range(3)
        for action in (STAY, RIGHT)
        for _ in range(times[action])
    ]
    state, action, after, reward = (np.array(column) for column in zip(*rows, strict=True))
    ends, never = reward == 1, np.zeros(len(rows), bool)
    one_hot = np.eye(3, dtype=np.float32)
    return Transitions.pack(
        observations=one_hot[state],
        actions=action,
        rewards=reward,
        next_observations=one_hot[after],
        terminated=ends if terminal else never,
        episodes=np.arange(len(rows)),
        spaces=Spaces(3, actions, True, (), ()),
        dataset_id="test/chain-v0",
    )


def train_table(
    data: Transitions, *, alpha: float, updates: int, start: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the table Q [3, K] after full-batch gradient descent, and the policy [3].

    Without a hidden layer the weights are the table. `start`: first value of the last action.
    """
    config = settings(
        *("env=cartpole", f"cql.alpha={alpha}", "cql.polyak=1"),
        *("network.normalize_observations=false", f"batch_size={len(data)}"),
    )
    config.network.critic_hidden = []
    agent = build(config, data.spaces)
    attach(agent)
    table = agent.critic.weights[0]
    with torch.no_grad():
        agent.critic.biases[0].zero_()
        if start is not None:
            table[:, :, :-1], table[:, :, -1] = 0.0, start
        agent.target_critic.load_state_dict(agent.critic.state_dict())
    optimizer = torch.optim.SGD([{"name": "critic", "params": [table]}], lr=1.0)
    batch: Batch = batch_of(data, range(len(data)), gamma=GAMMA)
    for _ in range(updates):
        agent.update(batch, optimizer)
    return table.detach().amin(dim=0), agent.act(torch.eye(3))


def test_with_alpha_zero_the_table_converges_to_the_optimal_values():
    q, policy = train_table(chain((1, 1)), alpha=0, updates=100)
    torch.testing.assert_close(q, BEST, atol=1e-4, rtol=0)
    assert policy.tolist() == [RIGHT] * 3


def test_truncated_transitions_bootstrap_and_terminated_ones_do_not():
    """Cut off instead of ended, the last `right` goes on from state 2: 1 + V(2) / 2 = 2."""
    cut, _ = train_table(chain((1, 1), terminal=False), alpha=0, updates=150)
    torch.testing.assert_close(cut, 2 * BEST, atol=1e-3, rtol=0)


def test_a_larger_alpha_lowers_the_values_of_rare_and_unlogged_actions():
    """`stay` is one logged action in eight, the third action is not logged; both start at 0.5."""
    tables = [
        train_table(chain((1, 7), actions=3), alpha=alpha, updates=80, start=0.5)[0]
        for alpha in (0.0, 0.5, 2.0, 5.0)
    ]
    for action in (STAY, BONUS):
        for lower_alpha, higher_alpha in pairwise(tables):
            assert (higher_alpha[:, action] < lower_alpha[:, action] - 0.01).all()
    gaps = [(q[:, BONUS] - q[:, RIGHT]).max() for q in tables]
    assert gaps == sorted(gaps, reverse=True)


def test_an_unlogged_action_is_greedy_with_alpha_zero_and_not_with_a_penalty():
    """Its value starts at 2, above every true value, and the data do not contradict it."""
    data = chain((1, 1), actions=3)
    optimistic, greedy = train_table(data, alpha=0, updates=160, start=2.0)
    assert (optimistic[:, BONUS] == 2.0).all()
    assert greedy.tolist() == [BONUS] * 3
    q, penalized_policy = train_table(data, alpha=5, updates=160, start=2.0)
    assert (q[:, BONUS] < 0).all()
    assert penalized_policy.tolist() == [RIGHT] * 3
