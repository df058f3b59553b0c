"""Guarantee: behavior cloning trains the actor for `cql.bc_updates` updates, then the critics do.

The critics learn from the first update on; the temperature is constant during behavior cloning.
"""

import pytest
import torch
from support.builders import attach, batch_of, build, continuous_data, settings

BC_UPDATES = 3


def first_step(*overrides: str):
    """Return the agent's parameters before and after one update on the same batch and noise."""
    data = continuous_data()
    agent = build(settings(*overrides), data.spaces)
    optimizer = attach(agent)
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    agent.update(batch_of(data, range(8)), optimizer)
    after = {name: p.detach().clone() for name, p in agent.named_parameters()}
    return before, after


def flatten(parameters: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    return torch.cat([p.flatten() for name, p in parameters.items() if name.startswith(prefix)])


def test_during_bc_updates_the_actors_step_equals_behavior_clonings():
    """Same initial actor (it is the first network drawn), same batch, Adam at the same rate."""
    _, cql = first_step(f"cql.bc_updates={BC_UPDATES}", "cql.bc_learning_rate=1e-3")
    _, bc = first_step("algorithm=bc", "bc.learning_rate=1e-3")
    assert torch.equal(flatten(cql, "actor."), flatten(bc, "actor."))


def test_during_bc_updates_the_critics_learn_and_the_temperature_is_constant():
    before, during = first_step(f"cql.bc_updates={BC_UPDATES}")
    _, plain = first_step("cql.bc_updates=0")
    assert torch.equal(flatten(during, "critic."), flatten(plain, "critic."))
    assert not torch.equal(flatten(during, "critic."), flatten(before, "critic."))
    assert torch.equal(during["log_temperature"], before["log_temperature"])
    assert not torch.equal(plain["log_temperature"], before["log_temperature"])


@pytest.mark.parametrize("completed", [BC_UPDATES - 1, BC_UPDATES])
def test_the_actor_depends_on_the_critics_after_bc_updates_only(completed: int):
    """The actor's gradient depends on the critics from update BC_UPDATES + 1 on."""
    data = continuous_data()
    gradients = []
    for scale in (1.0, 3.0):
        agent = build(settings(f"cql.bc_updates={BC_UPDATES}"), data.spaces)
        attach(agent)
        agent.updates = completed
        with torch.no_grad():
            for weight in agent.critic.mlp.weights:
                weight.mul_(scale)
        loss, _ = agent.compute_losses(batch_of(data, range(8)), log_metrics=False)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in agent.actor.parameters()]))
    assert torch.equal(*gradients) == (completed < BC_UPDATES)


def test_the_actors_learning_rate_changes_after_bc_updates():
    data = continuous_data()
    rates = ("cql.bc_learning_rate=1e-3", "cql.actor_learning_rate=1e-5")
    agent = build(settings(f"cql.bc_updates={BC_UPDATES}", *rates), data.spaces)
    optimizer, rates_used = attach(agent), []
    for _ in range(BC_UPDATES + 2):
        agent.update(batch_of(data, range(8)), optimizer)
        rates_used.append({group["name"]: group["lr"] for group in optimizer.param_groups}["actor"])
    assert rates_used == [1e-3] * BC_UPDATES + [1e-5] * 2
