"""Guarantee: validation metrics come from episodes never trained on, and change no weight."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import batch_of, build, continuous_data, discrete_data, settings
from support.train import DISCRETE, TINY, differences, load_learned, resume_run, rows, train_run

from offline_cql.commands.load_run import load_agent
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import Split, episode_rows
from offline_cql.data.validation import validation_steps
from offline_cql.ope.validation import correlation, validation_metrics
from offline_cql.runs.checkpoint import read_checkpoint
from offline_cql.runs.folder import kept_updates, policy_path

HELD = (
    "dataset.validation_fraction=0.2",
    "updates=40",
    "evaluation.every=20",
    "checkpoint_every=20",
)


# --- The arithmetic ------------------------------------------------------------------------------


def test_a_truncated_episode_goes_on_at_its_mean_reward():
    """gamma 0.5. Rewards 1, 3 | 4 terminal: mean 2 goes on: 2·0.5/(1 − 0.5) = 2 after the last."""
    found = continued_returns(
        np.array([1.0, 3.0, 4.0]),
        np.array([False, False, True]),
        np.array([2, 3]),
        gamma=0.5,
    )
    assert found.tolist() == [1 + 0.5 * (3 + 2), 3 + 2, 4]


def test_metrics_by_hand():
    figures = {
        "td_error": torch.tensor([1.0, 3.0]),
        "q_logged": torch.tensor([1.0, 2.0]),
        "q_policy": torch.tensor([5.0, 1.0]),
    }
    found = validation_metrics(figures, torch.tensor([0.0, 4.0]), best=4.0)
    assert found["validation/td_error"] == 2.0
    assert found["validation/return_to_go"] == 2.0
    assert found["validation/calibration_bias"] == -0.5  # (1 − 0 + 2 − 4) / 2
    assert found["validation/calibration_correlation"] == pytest.approx(1.0)
    assert found["validation/above_best_share"] == 0.5


def test_correlation_with_a_constant_is_zero():
    assert correlation(torch.ones(3), torch.arange(3.0)) == 0.0
    assert correlation(torch.arange(3.0), -torch.arange(3.0)) == pytest.approx(-1.0)


# --- The agents ----------------------------------------------------------------------------------


def test_continuous_figures_are_those_of_the_networks():
    """The TD error and the distance recomputed from actor and critics, step by step."""
    data = continuous_data(64)
    agent = build(settings(), data.spaces)
    batch = batch_of(data, range(12, 20))
    found = agent.validation_metrics(batch)
    for step in range(8):
        observation, following = batch.observation[step], batch.next_observation[step]
        here, there = (torch.tanh(agent.actor(x[None])[0])[0] for x in (observation, following))
        q = agent.critic(observation[None], batch.action[step][None, None])[:, 0, 0]
        best = agent.target_critic(following[None], there[None, None])[:, 0, 0].min()
        target = batch.reward[step] + batch.discount[step] * best
        assert found["td_error"][step].item() == pytest.approx(
            (q - target).square().mean().item(), rel=1e-4
        )
        assert found["q_logged"][step].item() == pytest.approx(q.mean().item(), rel=1e-4)
        distance = (here - batch.action[step]).square().mean().item()
        assert found["action_distance"][step].item() == pytest.approx(distance, rel=1e-4)


def test_discrete_figures_are_those_of_the_network():
    data = discrete_data(64)
    agent = build(settings("env=cartpole"), data.spaces)
    batch = batch_of(data, range(8))
    found = agent.validation_metrics(batch)
    least = agent.critic(batch.observation).amin(dim=0)
    differs = (least.argmax(dim=1) != batch.action).float()
    assert torch.equal(found["action_distance"], differs)
    chance = least.softmax(dim=1)[torch.arange(8), batch.action]
    assert torch.allclose(found["log_likelihood"], chance.log(), atol=1e-5)


def test_only_validation_rows_are_served_in_reward_units():
    data = continuous_data(64)  # four episodes of 16
    held = Split(np.array([0, 2, 3]), np.array([1]), episode_rows(data, np.array([0, 2, 3])), 48)
    steps = validation_steps(data, held, gamma=0.5, reward_scale=2.0, reward_shift=1.0, seed=0)
    assert steps is not None
    (served,) = list(steps)
    assert np.array_equal(served.batch.observation, data.observations[16:32])
    assert np.allclose(served.batch.reward, 2 * data.rewards[16:32] + 1)
    scaled = 2 * data.rewards + 1
    returns = continued_returns(scaled, data.terminated, data.ends, gamma=0.5)
    assert np.allclose(served.return_to_go, returns[16:32])
    assert steps.best_return == pytest.approx(max(returns[:16].max(), returns[32:].max()))


# --- In a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [TINY, DISCRETE, (*TINY, "algorithm=bc")])
def test_a_run_writes_a_row_and_keeps_a_policy_at_each_evaluation_point(
    recorded: Path, tmp_path: Path, base: tuple[str, ...]
):
    base = tuple(
        k for k in base if not ("algorithm=bc" in base and k.startswith(("cql.", "network.cri")))
    )
    folder = train_run(tmp_path / "run", *base, *HELD)
    with (folder / "validation.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["update"] for row in found] == ["20", "40"]
    assert all(math.isfinite(float(value)) for row in found for value in row.values())
    assert kept_updates(folder) == [20, 40]
    _, agent = load_agent(folder, "20")
    assert agent.updates == 20
    assert "optimizer" not in read_checkpoint(policy_path(folder, 20))


def test_looking_more_often_changes_no_weight(recorded: Path, tmp_path: Path):
    often = train_run(tmp_path / "often", *TINY, *HELD, "evaluation.every=10")
    once = train_run(tmp_path / "once", *TINY, *HELD, "evaluation.every=40")
    assert differences(load_learned(often), load_learned(once)) == []
    last = rows(often / "validation.csv")[-1]
    assert last == rows(once / "validation.csv")[-1]


def test_a_resumed_run_has_each_row_once(recorded: Path, tmp_path: Path):
    whole = train_run(tmp_path / "whole", *TINY, *HELD, "updates=60")
    folder = train_run(tmp_path / "part", *TINY, *HELD)
    resume_run(folder, f"resume={folder}", "updates=60")
    assert rows(folder / "validation.csv") == rows(whole / "validation.csv")
    assert kept_updates(folder) == [20, 40, 60]


def test_nothing_is_written_when_nothing_is_validation(recorded: Path, tmp_path: Path):
    folder = train_run(tmp_path / "run", *TINY, "updates=20", "evaluation.every=20")
    assert not (folder / "validation.csv").exists()
