"""Evaluation of a policy in its environment: raw and normalized returns of whole episodes.

The seeds are its own, so that evaluating more often changes no weight.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from offline_cql.agents import Agent
from offline_cql.config import EnvConfig, RolloutConfig
from offline_cql.simulation.environments import (
    import_package,
    imported_packages,
    make_simulators,
)
from offline_cql.simulation.isolation import run_isolated
from offline_cql.simulation.rollouts import Array, BatchPolicy, roll_out
from offline_cql.transitions import Transitions


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluated episode; the return is undiscounted, in the environment's units."""

    episode: int
    seed: int
    return_: float
    length: int


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation (over episodes) of the return, and the normalized mean."""

    episodes: int
    return_mean: float
    return_std: float
    length_mean: float
    normalized_score: float | None


def normalized_score(value: float, env: EnvConfig) -> float | None:
    """Return 100 · (value − reference_min) / (reference_max − reference_min); None without them."""
    if env.reference_min is None or env.reference_max is None:
        return None
    return 100.0 * (value - env.reference_min) / (env.reference_max - env.reference_min)


def greedy_policy(agent: Agent) -> BatchPolicy:
    """Return the agent's deterministic policy over NumPy batches, in the environment's units."""

    @torch.no_grad()
    def policy(observations: Array, indices: Array, starts: Array) -> Array:
        batch = torch.from_numpy(observations).float().to(agent.device)
        actions: Array = agent.act(batch).cpu().numpy()
        return actions

    return policy


def evaluate(
    agent: Agent,
    env: EnvConfig,
    evaluation: RolloutConfig,
    *,
    time_limit: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[EpisodeResult]:
    """Run the episodes, the same number in each environment, so that short ones are not favored.

    The simulators are in a process of their own. time_limit: seconds for all episodes together.
    on_step receives the number of steps just made and the number of episodes that they ended.
    Raises SimulatorError and PolicyError.
    """
    policy, running = greedy_policy(agent), 0  # environments that make the current step

    def report(ended: int) -> None:
        if on_step is not None and running:
            on_step(running, ended)

    def act(observations: Array, indices: Array, starts: Array) -> Array:
        nonlocal running
        report(running - len(indices) + int(starts.sum()))  # those with no episode left, or a new
        running = len(indices)
        return policy(observations, indices, starts)

    play = partial(play_episodes, env, evaluation, imported_packages())
    results = run_isolated(play, act, time_limit=time_limit)
    report(running)
    return results


def play_episodes(
    env: EnvConfig, evaluation: RolloutConfig, packages: Iterable[str], policy: BatchPolicy
) -> list[EpisodeResult]:
    """Return the results of the episodes, in order of environment, then of time.

    packages: those that the user named, for a process that is not a fork.
    """
    for package in packages:
        import_package(package)
    environments = make_simulators(env, evaluation.environments)
    try:
        episodes = roll_out(
            environments,
            policy,
            episodes_each=evaluation.episodes // evaluation.environments,
            seed=evaluation.seed,
        )
    finally:
        for environment in environments:
            environment.close()
    return [
        EpisodeResult(episode=k, seed=e.seed, return_=float(e.return_), length=len(e))
        for k, e in enumerate(episodes)
    ]


def score(results: list[EpisodeResult], env: EnvConfig) -> Score:
    """Return the summary of evaluated episodes; the standard deviation is the population's."""
    returns = np.array([r.return_ for r in results])
    mean = float(returns.mean())
    return Score(
        episodes=len(results),
        return_mean=mean,
        return_std=float(returns.std()),
        length_mean=float(np.mean([r.length for r in results])),
        normalized_score=normalized_score(mean, env),
    )


def behavior_return(transitions: Transitions) -> float:
    """Return the mean return of the logged episodes, in the environment's units.

    Episodes cut short by the recording's quota are left out: truncated ones that are shorter than
    the longest episode of the data by more than one step.
    """
    lengths, terminal = transitions.lengths, transitions.terminated[transitions.ends - 1]
    # Formats without the observation after a time limit lack that last step.
    whole = terminal | (lengths >= lengths.max() - 1)
    return float(transitions.episode_returns()[whole].mean())
