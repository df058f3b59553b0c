"""Guarantee: nothing that is not finite reaches a weight, and impossible values end the run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import attach, batches, build, continuous_data, discrete_data, settings
from support.continuous_case import make_case
from support.train import TINY, train_run

from offline_cql.agents import Agent
from offline_cql.data.returns import value_range
from offline_cql.errors import DivergedError
from offline_cql.io import read_json
from offline_cql.transitions import Batch

KINDS = {
    "continuous": (["env=pendulum"], continuous_data),
    "discrete": (["env=cartpole"], discrete_data),
    "continuous cloning": (["env=pendulum", "algorithm=bc"], continuous_data),
    "discrete cloning": (["env=cartpole", "algorithm=bc"], discrete_data),
}
EVERY_UPDATE = ("evaluation=none", "checkpoint_every=20")


def trained(kind: str, block: list[Batch]) -> tuple[Agent, torch.optim.Optimizer]:
    """Return a new agent after one update per batch, and its optimizer."""
    overrides, data = KINDS[kind]
    agent = build(settings(*overrides), data().spaces)
    optimizer = attach(agent)
    for batch in block:
        agent.update(batch, optimizer)
    return agent, optimizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_stay_as_before_the_first_update_that_is_not_finite(kind: str, value: float):
    """Of updates 1 to 5 the third is bad: weights and Adam's state are those after the second.

    The error has the third batch.
    """
    block = batches(KINDS[kind][1](), 5)
    observation = block[2].observation.clone()
    observation[3, 0] = value
    block[2] = block[2]._replace(observation=observation)
    agent, optimizer = trained(kind, block)
    _, its_optimizer = trained(kind, block[:2])
    pairs = zip(optimizer.param_groups, its_optimizer.param_groups, strict=True)
    for group, expected in pairs:
        for parameter, kept in zip(group["params"], expected["params"], strict=True):
            assert torch.equal(parameter, kept)
            for name, state in optimizer.state[parameter].items():
                assert torch.equal(state, its_optimizer.state[kept][name])
    with pytest.raises(DivergedError, match=r"^update 3: .* is not finite") as error:
        agent.end_block(block)
    assert error.value.batch is not None
    np.testing.assert_array_equal(error.value.batch["observation"], observation)


def test_the_largest_value_is_of_logged_actions_and_targets():
    """Noted twice: Q 1 and 5 with targets 2 and −1, then Q 0 with target 7: the largest is 7."""
    agent, _ = trained("continuous", [])
    agent.note_values(torch.tensor([[1.0, 5.0]]), torch.tensor([2.0, -1.0]))
    assert float(agent.noted.largest) == 5.0
    agent.note_values(torch.tensor([[0.0]]), torch.tensor([7.0]))
    agent.note_values(torch.tensor([[0.0]]), torch.tensor([6.0]))
    agent.end_block([])
    assert agent.largest_value == 7.0


def test_range_of_values_by_hand():
    """r / (1 − d): 1 / 0.5 = 2, 3 / 1 = 3 and −3 / 0.25 = −12; the longest horizon is 1 / 0.25."""
    rewards, discounts = np.array([1.0, 3.0, -3.0]), np.array([0.5, 0.0, 0.75])
    assert value_range(rewards, discounts) == (-12.0, 3.0, 4.0)


def test_range_of_values_contains_zero():
    """Rewards from 1 to 2 without discounting: values from 1 to 2, new networks start at 0."""
    assert value_range(np.array([1.0, 2.0]), np.zeros(2)) == (0.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("overrides", "bonus"),
    [
        (["env=pendulum", "cql.alpha=4"], 2.0),
        (["env=cartpole", "cql.alpha=4"], 2.0),
        (["env=pendulum", "cql=lagrange", "cql.alpha=4", "cql.multiplier_initial=3"], 6.0),
        # Two action dimensions: 2 log 2 nats, at temperature 1.
        (["env=pendulum", "cql.alpha=4", "cql.backup=entropy"], 2.0 + 2 * math.log(2)),
    ],
)
def test_bonus_is_half_of_the_penalty_and_the_largest_entropy(overrides: list[str], bonus: float):
    """(Q − y)² + w · (lse − Q) is smallest where 2 (Q − y) = w · (1 − share), at most w / 2."""
    data = discrete_data() if "env=cartpole" in overrides else continuous_data()
    agent = build(settings(*overrides), data.spaces)
    assert float(agent.bonus()) == pytest.approx(bonus, rel=1e-6)


def test_bonus_is_that_of_the_largest_weight():
    """alpha 4 and a weight of 3: at most 3 · 4 / 2, a weight of another update counts too."""
    overrides = ("cql.alpha=4", "cql.bc_weight=1", "cql.bc_share=0.5", "cql.return_weighted=true")
    case = make_case(*overrides)
    for largest in (3.0, 2.0):
        weights = torch.tensor([0.0, 0.5, 0.5, largest], dtype=torch.float64)
        case.loss(batch=case.batch._replace(cloning_weight=weights))
    assert float(case.agent.bonus()) == pytest.approx(6.0)


@pytest.mark.parametrize("env", ["pendulum", "cartpole"])
def test_a_learning_rate_of_ten_is_found_within_sixty_updates(env: str, tmp_path: Path):
    """Its values are thousands of times above the largest possible: the run does not finish."""
    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"where rewards and penalty allow .* at most"):
        train_run(
            folder, *TINY, f"env={env}", *EVERY_UPDATE, "updates=60", "cql.critic_learning_rate=10"
        )
    assert read_json(folder / "result.json")["status"] == "diverged"


def test_an_ordinary_run_warns_of_nothing(tmp_path: Path, capsys: Any):
    train_run(tmp_path / "run", *TINY, *EVERY_UPDATE, "updates=20")
    printed = capsys.readouterr()
    assert "warning" not in printed.out + printed.err


def test_the_batch_of_a_diverged_run_is_saved(tmp_path: Path):
    """alpha explodes at update 7 of a block from 6 to 10: the file has that update's batch."""
    folder = tmp_path / "run"
    explosion = ("alpha_schedule=piecewise", "alpha_schedule.points=[[5,1],[6,1e300]]")
    with pytest.raises(DivergedError, match="update 7: "):
        train_run(folder, *TINY, *explosion, "checkpoint_every=5", "log_every=100", "updates=20")
    with np.load(folder / "diverged_batch.npz") as saved:
        assert set(saved) == set(Batch._fields)
        assert saved["observation"].shape[0] == len(saved["reward"])
        assert all(np.isfinite(saved[name]).all() for name in saved)
