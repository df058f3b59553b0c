"""Guarantee: validation metrics come from episodes never trained on, and change no weight."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support.builders import (
    batch_of,
    build,
    continuous_data,
    dataset_of,
    differences,
    discrete_data,
    settings,
)
from support.train import BC, DISCRETE, TINY, load_learned, resume_run, rows, train_run

from offline_cql.commands.load_run import load_agent
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import Split, episode_rows
from offline_cql.data.validation import validation_steps
from offline_cql.ope.validation import correlation, validation_metrics
from offline_cql.runs.checkpoint import read_checkpoint
from offline_cql.runs.folder import kept_updates, policy_path

WITH_VALIDATION = (
    *("dataset.validation_fraction=0.2", "updates=40"),
    *("evaluation.every=20", "checkpoint_every=20"),
)


# --- Functions ------------------------------------------------------------------------------------


def test_returns_continue_truncated_episodes_at_their_mean_reward():
    """gamma 0.5. Rewards 1, 3 | 4 terminal: continued at 2: 2·0.5/(1 − 0.5) = 2 after the last."""
    rewards, terminated = np.array([1.0, 3.0, 4.0]), np.array([False, False, True])
    returns = continued_returns(rewards, terminated, np.array([2, 3]), gamma=0.5)
    assert returns.tolist() == [1 + 0.5 * (3 + 2), 3 + 2, 4]


def test_validation_metrics_by_hand():
    step_metrics = {
        "td_error": torch.tensor([1.0, 3.0]),
        "q_logged": torch.tensor([1.0, 2.0]),
        "q_policy": torch.tensor([5.0, 1.0]),
    }
    metrics = validation_metrics(step_metrics, torch.tensor([0.0, 4.0]), best=4.0)
    assert metrics["validation/td_error"] == 2.0
    assert metrics["validation/return_to_go"] == 2.0
    assert metrics["validation/calibration_bias"] == -0.5  # (1 − 0 + 2 − 4) / 2
    assert metrics["validation/calibration_correlation"] == pytest.approx(1.0)
    assert metrics["validation/above_best_share"] == 0.5


def test_correlation_with_a_constant_is_zero():
    assert correlation(torch.ones(3), torch.arange(3.0)) == 0.0
    assert correlation(torch.arange(3.0), -torch.arange(3.0)) == pytest.approx(-1.0)


# --- The agents ----------------------------------------------------------------------------------


def test_continuous_metrics_are_those_of_the_networks():
    """The TD error and the distance recomputed from actor and critics, step by step."""
    data = continuous_data(64)
    agent = build(settings(), data.spaces)
    batch = batch_of(data, range(12, 20))
    metrics = agent.validation_metrics(batch)
    for step in range(8):
        observation, next_observation = batch.observation[step], batch.next_observation[step]
        mode, next_mode = (
            torch.tanh(agent.actor(x[None])[0])[0] for x in (observation, next_observation)
        )
        q = agent.critic(observation[None], batch.action[step][None, None])[:, 0, 0]
        next_q = agent.target_critic(next_observation[None], next_mode[None, None])[:, 0, 0]
        target = batch.reward[step] + batch.discount[step] * next_q.min()
        expected = {
            "td_error": (q - target).square().mean(),
            "q_logged": q.mean(),
            "action_distance": (mode - batch.action[step]).square().mean(),
        }
        for name, value in expected.items():
            assert metrics[name][step].item() == pytest.approx(value.item(), rel=1e-4)


def test_discrete_metrics_are_those_of_the_network():
    data = discrete_data(64)
    agent = build(settings("env=cartpole"), data.spaces)
    batch = batch_of(data, range(8))
    metrics = agent.validation_metrics(batch)
    minimum = agent.critic(batch.observation).amin(dim=0)
    differs = (minimum.argmax(dim=1) != batch.action).float()
    assert torch.equal(metrics["action_distance"], differs)
    probability = minimum.softmax(dim=1)[torch.arange(8), batch.action]
    assert torch.allclose(metrics["log_likelihood"], probability.log(), atol=1e-5)


def test_validation_steps_are_the_validation_rows_in_reward_units():
    data = continuous_data(64)  # four episodes of 16
    split = Split(np.array([0, 2, 3]), np.array([1]), episode_rows(data, np.array([0, 2, 3])), 48)
    training = dataset_of(data, split, gamma=0.5, scale=2.0, shift=1.0, n_step=3)
    steps = validation_steps(data, split, training, seed=0)
    assert steps is not None
    (batch,) = list(steps)
    assert np.array_equal(batch.observation, data.observations[16:32])
    assert np.allclose(batch.reward, 2 * data.rewards[16:32] + 1)
    scaled = 2 * data.rewards + 1
    returns = continued_returns(scaled, data.terminated, data.ends, gamma=0.5)
    assert np.allclose(batch.return_to_go, returns[16:32])
    assert steps.best_return == pytest.approx(max(returns[:16].max(), returns[32:].max()))


# --- In a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [TINY, DISCRETE, BC])
def test_a_run_writes_a_row_and_keeps_a_policy_at_each_evaluation_point(
    recorded: Path, tmp_path: Path, base: tuple[str, ...]
):
    folder = train_run(tmp_path / "run", *base, *WITH_VALIDATION)
    with (folder / "validation.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [row["update"] for row in lines] == ["20", "40"]
    assert all(math.isfinite(float(value)) for row in lines for value in row.values())
    assert kept_updates(folder) == [20, 40]
    _, agent = load_agent(folder, "20")
    assert agent.updates == 20
    assert "optimizer" not in read_checkpoint(policy_path(folder, 20))


def test_validating_more_often_changes_no_weight(recorded: Path, tmp_path: Path):
    often = train_run(tmp_path / "often", *TINY, *WITH_VALIDATION, "evaluation.every=10")
    once = train_run(tmp_path / "once", *TINY, *WITH_VALIDATION, "evaluation.every=40")
    assert differences(load_learned(often), load_learned(once)) == []
    last = rows(often / "validation.csv")[-1]
    assert last == rows(once / "validation.csv")[-1]


def test_a_resumed_run_has_each_row_once(recorded: Path, tmp_path: Path):
    whole = train_run(tmp_path / "whole", *TINY, *WITH_VALIDATION, "updates=60")
    folder = train_run(tmp_path / "part", *TINY, *WITH_VALIDATION)
    resume_run(folder, f"resume={folder}", "updates=60")
    assert rows(folder / "validation.csv") == rows(whole / "validation.csv")
    assert kept_updates(folder) == [20, 40, 60]


def test_without_validation_episodes_there_is_no_validation_csv(recorded: Path, tmp_path: Path):
    folder = train_run(tmp_path / "run", *TINY, "updates=20", "evaluation.every=20")
    assert not (folder / "validation.csv").exists()
