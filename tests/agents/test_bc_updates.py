"""Guarantee: for the first `cql.bc_updates` the actor clones; after them it follows the critics.

The critics learn from the first update on, and the temperature waits.
"""

import pytest
import torch
from support.builders import attach, batch_of, build, continuous_data, settings

CLONING = 3


def first_step(*overrides: str):
    """The agent's parameters before and after one update on the same batch and noise."""
    data = continuous_data()
    agent = build(settings(*overrides), data.spaces)
    optimizer = attach(agent)
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    agent.update(batch_of(data, range(8)), optimizer)
    after = {name: p.detach().clone() for name, p in agent.named_parameters()}
    return before, after


def only(parameters: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    return torch.cat([p.flatten() for name, p in parameters.items() if name.startswith(prefix)])


def test_while_cloning_the_actor_takes_the_step_that_behavior_cloning_takes():
    """Same initial actor (it is the first network drawn), same batch, Adam at the same rate."""
    _, cql = first_step(f"cql.bc_updates={CLONING}", "cql.bc_learning_rate=1e-3")
    _, bc = first_step("algorithm=bc", "bc.learning_rate=1e-3")
    assert torch.equal(only(cql, "actor."), only(bc, "actor."))


def test_while_cloning_the_critics_learn_as_they_otherwise_do_and_the_temperature_waits():
    before, cloning = first_step(f"cql.bc_updates={CLONING}")
    _, plain = first_step("cql.bc_updates=0")
    assert torch.equal(only(cloning, "critic."), only(plain, "critic."))
    assert not torch.equal(only(cloning, "critic."), only(before, "critic."))
    assert torch.equal(cloning["log_temperature"], before["log_temperature"])
    assert not torch.equal(plain["log_temperature"], before["log_temperature"])


@pytest.mark.parametrize("done", [CLONING - 1, CLONING])
def test_cloning_ends_after_so_many_updates(done: int):
    """The actor's gradient depends on the critics only from update CLONING + 1 on."""
    data = continuous_data()
    gradients = []
    for scale in (1.0, 3.0):
        agent = build(settings(f"cql.bc_updates={CLONING}"), data.spaces)
        attach(agent)
        agent.updates = done
        with torch.no_grad():
            for weight in agent.critic.mlp.weights:
                weight.mul_(scale)
        loss, _ = agent.compute_losses(batch_of(data, range(8)), log_metrics=False)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in agent.actor.parameters()]))
    assert torch.equal(*gradients) == (done < CLONING)


def test_the_actors_rate_changes_when_it_stops_cloning():
    data = continuous_data()
    rates = ("cql.bc_learning_rate=1e-3", "cql.actor_learning_rate=1e-5")
    agent = build(settings(f"cql.bc_updates={CLONING}", *rates), data.spaces)
    optimizer, seen = attach(agent), []
    for _ in range(CLONING + 2):
        agent.update(batch_of(data, range(8)), optimizer)
        seen.append({group["name"]: group["lr"] for group in optimizer.param_groups}["actor"])
    assert seen == [1e-3] * CLONING + [1e-5] * 2
