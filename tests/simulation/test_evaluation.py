"""Guarantee: a score is the return of whole episodes; evaluation changes no weight."""

from typing import Any

import numpy as np
import pytest
import torch
from support.config import settings

from offline_cql.commands.make_agent import make_agent
from offline_cql.config import EnvConfig
from offline_cql.errors import PolicyError
from offline_cql.simulation.evaluation import (
    EpisodeResult,
    behavior_return,
    evaluate,
    greedy_policy,
    normalized_score,
    score,
)
from offline_cql.transitions import Spaces, Transitions

SPACES = {"pendulum": Spaces(3, 1, False, (-2.0,), (2.0,)), "cartpole": Spaces(4, 2, True, (), ())}
SMALL = ("hardware=cpu", "network.actor_hidden=[8]", "network.critic_hidden=[8]")


def make(env: str) -> tuple[Any, Any]:
    """Return an untrained agent and its settings: two episodes in each of three environments."""
    options = ("evaluation.episodes=6", "evaluation.environments=3")
    config = settings(f"env={env}", *SMALL[: 1 if env == "cartpole" else 3], *options)
    torch.manual_seed(0)
    return make_agent(config, SPACES[env]), config


def env_with_references(low: float | None, high: float | None) -> EnvConfig:
    env = settings("env=pendulum").env
    source = "tests" if low else None
    values = {"reference_min": low, "reference_max": high, "reference_source": source}
    return env.model_copy(update=values)


def episode_results(*returns: float) -> list[EpisodeResult]:
    return [EpisodeResult(k, k, value, 10 * (k + 1)) for k, value in enumerate(returns)]


# --- The score ------------------------------------------------------------------------------------


def test_the_normalized_score_by_hand():
    """From -1200 (0) to -150 (100): -675 is half of the way; it may leave the range."""
    env = env_with_references(-1200.0, -150.0)
    assert normalized_score(-675.0, env) == 50.0
    assert normalized_score(-1200.0, env) == 0.0
    assert normalized_score(-45.0, env) == pytest.approx(110.0)


def test_without_references_there_is_no_normalized_score():
    assert normalized_score(-675.0, env_with_references(None, None)) is None


def test_the_summary_by_hand():
    """Returns 1, 2, 6: mean 3, variance (4 + 1 + 9) / 3; lengths 10, 20, 30."""
    summary = score(episode_results(1.0, 2.0, 6.0), env_with_references(1.0, 5.0))
    assert summary.return_mean == 3.0
    assert summary.return_std == pytest.approx((14 / 3) ** 0.5)
    assert summary.length_mean == 20.0
    assert summary.normalized_score == 50.0
    assert summary.episodes == 3


# --- Rollouts -------------------------------------------------------------------------------------


def test_each_environment_runs_an_equal_number_of_episodes():
    """An untrained CartPole policy has episodes of many lengths: still two in each of three."""
    agent, config = make("cartpole")
    episodes = evaluate(agent, config.env, config.evaluation)
    assert [result.episode for result in episodes] == [0, 1, 2, 3, 4, 5]
    assert len({result.seed for result in episodes}) == 6
    assert all(result.return_ == result.length for result in episodes)  # CartPole's reward is 1


def test_on_step_counts_every_step_and_every_finished_episode():
    agent, config = make("cartpole")
    progress: list[tuple[int, int]] = []
    episodes = evaluate(
        agent, config.env, config.evaluation, on_step=lambda *counts: progress.append(counts)
    )
    steps, ended = (sum(column) for column in zip(*progress, strict=True))
    assert (steps, ended) == (sum(result.length for result in episodes), 6)


def test_the_same_seed_is_the_same_evaluation():
    agent, config = make("pendulum")
    first = evaluate(agent, config.env, config.evaluation)
    assert evaluate(agent, config.env, config.evaluation) == first
    other = config.evaluation.model_copy(update={"seed": config.evaluation.seed + 1})
    assert evaluate(agent, config.env, other) != first


def test_evaluation_uses_no_global_generator_and_changes_no_weight():
    agent, config = make("pendulum")
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    evaluate(agent, config.env, config.evaluation)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in agent.state_dict().items())
    assert all(parameter.grad is None for parameter in agent.parameters())


def test_a_policy_that_returns_nan_fails():
    agent, config = make("pendulum")
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(PolicyError, match="nan"):
        evaluate(agent, config.env, config.evaluation)


def test_actions_are_in_the_units_of_the_environment():
    """A saturated policy pushes with 2, Pendulum's bound, not with 1."""
    agent, _ = make("pendulum")
    with torch.no_grad():
        for parameter in agent.actor.parameters():
            parameter.fill_(10.0)
    actions = greedy_policy(agent)(np.ones((4, 3), np.float32), np.arange(4), np.ones(4, bool))
    assert actions.shape == (4, 1)
    assert np.allclose(actions, 2.0)


# --- The behavior in the data --------------------------------------------------------------------


def test_the_behaviors_return_leaves_out_episodes_that_the_recording_cut():
    """Returns 3 (three steps, time limit), 2 (terminal) and 1 (cut after one step): mean 2.5."""
    lengths = [3, 2, 1]
    terminated = np.zeros(6, dtype=bool)
    terminated[4] = True
    data = Transitions.pack(
        observations=np.zeros((6, 3)),
        actions=np.zeros((6, 1)),
        rewards=np.ones(6),
        next_observations=np.zeros((6, 3)),
        terminated=terminated,
        episodes=np.repeat(np.arange(3), lengths),
        spaces=SPACES["pendulum"],
        dataset_id="test/by-hand-v0",
    )
    assert behavior_return(data) == 2.5
