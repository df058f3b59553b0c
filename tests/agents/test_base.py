"""Guarantee: blocks, the counter, logging and saving do not change what is learned.

Runs are whole fits by Lightning's Trainer; "equal" is to the bit, over the whole training state.
"""

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.builders import (
    CLONING_OPTIONS,
    DISCRETE_OPTIONS,
    OPTIONS,
    attach,
    batch_of,
    build,
    continuous_data,
    differences,
    discrete_data,
    fit,
    settings,
    tensors_of,
)

from offline_cql.agents import Agent
from offline_cql.agents.behavior_cloning import ContinuousBehaviorCloning, DiscreteBehaviorCloning
from offline_cql.agents.cql_continuous import ContinuousCQL
from offline_cql.agents.cql_discrete import DiscreteCQL
from offline_cql.commands.make_agent import make_agent
from offline_cql.transitions import Transitions

KINDS = {
    "continuous": ["env=pendulum"],
    "discrete": ["env=cartpole"],
    "continuous cloning": ["env=pendulum", "algorithm=bc"],
    "discrete cloning": ["env=cartpole", "algorithm=bc"],
}


def data_for(kind: str) -> Transitions:
    return discrete_data() if "discrete" in kind else continuous_data()


class MetricNames(pl.Callback):
    """Record the number of updates and the names of the metrics at the end of each block."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, set[str]]] = []

    def on_train_batch_end(self, trainer: Any, agent: Any, *_args: Any) -> None:
        self.rows.append((agent.updates, set(agent.last_metrics)))
        agent.last_metrics = {}


# --- Selection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    zip(
        KINDS,
        [ContinuousCQL, DiscreteCQL, ContinuousBehaviorCloning, DiscreteBehaviorCloning],
        strict=True,
    ),
)
def test_algorithm_and_action_space_select_the_agent(kind: str, expected: type[Agent]):
    agent = build(settings(*KINDS[kind]), data_for(kind).spaces)
    assert type(agent) is expected


def test_initial_weights_depend_on_torchs_seed_only():
    config, spaces = settings(), continuous_data().spaces
    first, same, other = (build(config, spaces, seed=seed) for seed in (0, 0, 1))
    assert differences(first, same) == []
    assert len(differences(first, other)) >= 8
    torch.manual_seed(0)
    assert differences(first, make_agent(config, spaces)) == []


# --- Blocks and the counter ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_eight_equals_eight_blocks_of_one(kind: str):
    states, data = [], data_for(kind)
    for size in (8, 1):
        config = settings(*KINDS[kind], f"hardware.updates_per_step={size}", "log_every=100")
        states.append(fit(config, data))
    assert differences(*states) == []
    assert states[0]["updates"] == 8


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    data = continuous_data()
    first, same, other = (fit(settings(f"seed={seed}"), data) for seed in (0, 0, 1))
    assert differences(first, same) == []
    assert "/noise" in differences(first, other)
    assert "/agent/critic.mlp.weights.0" in differences(first, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_counter_is_the_number_of_updates(kind: str):
    config = settings(*KINDS[kind], "updates=7", "hardware.updates_per_step=3")
    data = data_for(kind)
    agent = build(config, data.spaces)
    state = fit(config, data, agent=agent)
    assert agent.updates == 7
    assert state["updates"] == 7
    steps = [value.item() for path, value in tensors_of(state).items() if path.endswith("/step")]
    assert set(steps) == {7.0}


def test_alpha_follows_the_number_of_completed_updates():
    """Warm-up over 4 updates: the first one has alpha 0, the third one half of it."""
    config = settings("alpha_schedule.warmup=4", "cql.alpha=8", "log_every=1")
    data = continuous_data()
    agent, alphas = build(config, data.spaces), []
    optimizer = attach(agent)
    for _ in range(6):
        agent.update(batch_of(data, range(8)), optimizer)
        alphas.append(agent.last_metrics["cql/alpha"].item())
    assert alphas == [0.0, 2.0, 4.0, 6.0, 8.0, 8.0]


# --- Metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_computed_at_multiples_of_log_every_only(kind: str):
    config = settings(*KINDS[kind], "updates=12", "log_every=5", "hardware.updates_per_step=2")
    recorder = MetricNames()
    fit(config, data_for(kind), callbacks=[recorder])
    assert [updates for updates, _ in recorder.rows] == [2, 4, 5, 7, 9, 10, 12]
    assert [updates for updates, names in recorder.rows if names] == [5, 10]
    _, names = recorder.rows[2]
    assert "loss/total" in names
    assert any(name.startswith("gradient_norm/") for name in names)


@pytest.mark.parametrize("alpha", [0, 5])
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_logging_more_often_changes_no_weight(kind: str, alpha: int):
    data, overrides = data_for(kind), [*KINDS[kind], f"cql.alpha={alpha}"]
    often, sometimes, never = (
        fit(settings(*overrides, f"log_every={every}"), data) for every in (1, 5, 100)
    )
    assert differences(often, sometimes) == []
    assert differences(often, never) == []


@pytest.mark.parametrize("log_metrics", [False, True], ids=["silent", "measured"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_copies_no_value_to_the_host(kind: str, log_metrics: bool, monkeypatch):
    """Each of these methods would wait for a GPU to finish."""
    config = settings(*KINDS[kind], "log_every=1" if log_metrics else "log_every=100")
    data = data_for(kind)
    agent = build(config, data.spaces)
    optimizer, batch = attach(agent), batch_of(data, range(8))
    agent.update(batch, optimizer)

    def refuse(*_args: Any, **_options: Any) -> None:
        raise AssertionError("the update waits for the device")

    for name in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    agent.update(batch, optimizer)
    monkeypatch.undo()
    assert agent.updates == 2
    assert bool(agent.last_metrics) == log_metrics


def test_gradient_norms_are_computed_per_network():
    config, data = settings("cql=lagrange", "log_every=1"), continuous_data()
    agent = build(config, data.spaces)
    agent.update(batch_of(data, range(8)), attach(agent))
    parameters_of = {
        "critic": list(agent.critic.parameters()),
        "actor": list(agent.actor.parameters()),
        "temperature": [agent.log_temperature],
        "multiplier": [agent.penalty.log_multiplier],
    }
    for name, parameters in parameters_of.items():
        square = sum(float((p.grad.double() ** 2).sum()) for p in parameters)
        norm = agent.last_metrics[f"gradient_norm/{name}"].item()
        assert norm == pytest.approx(math.sqrt(square), rel=1e-5)
        assert norm > 0


def test_metrics_are_finite_scalars_without_gradient():
    for kind in KINDS:
        data = data_for(kind)
        agent = build(settings(*KINDS[kind], "cql.alpha=0", "log_every=1"), data.spaces)
        agent.update(batch_of(data, range(8)), attach(agent))
        assert all(not value.requires_grad for value in agent.last_metrics.values())
        assert all(value.shape == () and value.isfinite() for value in agent.last_metrics.values())


# --- Saving --------------------------------------------------------------------------------------

LAGRANGE = "cql=lagrange"
COMBINATIONS = {
    "default": [],
    "alpha 0": ["cql.alpha=0"],
    "lagrange": [LAGRANGE],
    "max backup": ["cql.backup=max", "network.n_critics=3"],
    "entropy backup, affine": ["cql.backup=entropy", "network.log_std_affine=true"],
    "expectation, uniform": ["cql.penalty=expectation", "cql.expectation_over=uniform"],
    "expectation, policy": ["cql.penalty=expectation", "cql.expectation_over=policy", LAGRANGE],
    "limits": ["cql.gap_min=-1", "cql.gap_max=3", "cql.action_clip=0.9"],
    "schedule": ["alpha_schedule=cosine", "alpha_schedule.warmup=2"],
    "cloning first": ["cql.bc_updates=3"],
    "bf16": ["hardware.precision=bf16"],
    "corl": ["cql=corl_lagrange", "network.actor_hidden=[8]", "network.critic_hidden=[8]"],
    "options": OPTIONS,
    "discrete options": DISCRETE_OPTIONS,
    "cloning options": CLONING_OPTIONS,
    "cloning": ["algorithm=bc", "network.log_std_affine=true"],
    "discrete": ["env=cartpole"],
    "discrete double": ["env=cartpole", "cql.target=double", LAGRANGE],
    "discrete expected": ["env=cartpole", "cql.target=expected", "cql.alpha=0"],
    "discrete cloning": ["env=cartpole", "algorithm=bc"],
}


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_restored_run_ends_like_an_uninterrupted_one(combination: str):
    config = settings(*COMBINATIONS[combination], "updates=6")
    data = discrete_data() if config.env.name == "cartpole" else continuous_data()
    whole = fit(config, data)
    saved = fit(config, data, updates=2)
    resumed = fit(config, data, state=saved, agent=build(config, data.spaces, seed=99))
    assert differences(whole, resumed) == []
    assert differences(whole, saved) != []


@pytest.mark.parametrize("part", ["optimizer", "noise", "target_critic"])
def test_a_state_without_one_of_its_parts_ends_differently(part: str):
    """Replace one part by that of a shorter run: the test above detects it."""
    config, data = settings("updates=6"), continuous_data()
    whole, saved = fit(config, data), fit(config, data, updates=2)
    fresh = fit(config, data, updates=1)
    if part == "target_critic":
        targets = {k: v for k, v in fresh["agent"].items() if k.startswith(part)}
        saved["agent"] |= targets
    else:
        saved[part] = fresh[part]
    assert differences(whole, fit(config, data, state=saved)) != []


def test_a_restored_optimizer_updates_the_parameters_of_the_module():
    config, data = settings("cql=lagrange"), continuous_data()
    agent = build(config, data.spaces, seed=99)
    agent.restore(fit(config, data, updates=2))
    groups = attach(agent).param_groups
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in agent.parameters() if p.requires_grad
    }


def test_a_state_of_another_agent_is_refused():
    state = fit(settings("updates=1"), continuous_data())
    other = build(settings("cql=lagrange"), continuous_data().spaces)
    with pytest.raises(RuntimeError, match="log_multiplier"):
        other.restore(state)
