"""Off-policy estimates of a run's policies: ope.json in its folder, one entry a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.commands.load_data import load_transitions
from offline_cql.config import OpeConfig, TrainConfig
from offline_cql.data.returns import continued_returns
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import read_json, write_json
from offline_cql.ope.behavior import fit_behavior_probabilities
from offline_cql.ope.estimate import Estimate, bootstrap_counts, bootstrap_interval
from offline_cql.ope.fqe import FittedQEvaluation, actions_at, policy_actions
from offline_cql.ope.importance import doubly_robust, weighted_importance_sampling
from offline_cql.render.progress import ProgressBar
from offline_cql.runs.folder import OPE
from offline_cql.transitions import Transitions

REPLICATES = 100
BEHAVIOR_STREAM = 0xBE4A
FITTED = "the behavior's probabilities were fitted to the data, not logged"


def run_data(run: TrainConfig, state: dict[str, Any]) -> Transitions:
    """The data that a run was trained on. Raises DataError when they changed since."""
    transitions = load_transitions(run.env, run.dataset)
    if transitions.sha256 != state["dataset"]["sha256"]:
        raise DataError(
            f"{transitions.dataset_id} changed since the run was trained: an estimate from other "
            "data would not be one of this run"
        )
    return transitions


def behavior_probabilities(transitions: Transitions, ope: OpeConfig) -> npt.NDArray[Any] | None:
    """The behavior's probabilities of the logged actions, logged or fitted, for ope=all.

    None where no method needs them. Raises ConfigError for continuous actions.
    """
    if ope.method != "all":
        return None
    if not transitions.spaces.discrete:
        raise ConfigError(
            "ope=all needs discrete actions: a deterministic policy never takes exactly the logged "
            "continuous one; choose ope=fqe"
        )
    logged = transitions.propensities
    return fit_behavior_probabilities(transitions, seed=ope.seed) if logged is None else logged


def estimates(
    agent: Agent,
    transitions: Transitions,
    chances: npt.NDArray[Any] | None,
    ope: OpeConfig,
    *,
    gamma: float,
    title: str,
) -> list[Estimate]:
    """What the agent's deterministic policy would earn: one estimate a method.

    chances: those of `behavior_probabilities`, the same for every policy.
    """
    act = inside(agent)
    settings = {name: value for name, value in asdict(ope).items() if name != "method"}
    fitted = FittedQEvaluation(
        transitions, policy_actions(transitions, act), gamma=gamma, **settings
    )
    with ProgressBar(title, ope.updates) as bar:
        fitted.fit(lambda: bar.advance(1))
    found = [fitted.estimate()]
    if chances is not None:
        greedy = actions_at(transitions.observations, act)
        found += _weighted(transitions, chances, greedy, fitted, gamma=gamma, seed=ope.seed)
    return found


def _weighted(
    transitions: Transitions,
    chances: npt.NDArray[Any],
    greedy: Tensor,
    fitted: FittedQEvaluation,
    *,
    gamma: float,
    seed: int,
) -> list[Estimate]:
    """Importance sampling and doubly robust; greedy [N]: the policy's action at each step."""
    policy = (greedy.numpy() == transitions.actions).astype(np.float64)
    arrays = (transitions.rewards, policy, chances, transitions.ends)
    model = {
        "q_logged": fitted.mean_values(torch.from_numpy(transitions.actions)),
        "v": fitted.mean_values(greedy),
    }
    found = [
        weighted_importance_sampling(*arrays, gamma=gamma, seed=seed),
        doubly_robust(*arrays, **model, gamma=gamma, seed=seed),
    ]
    if transitions.propensities is not None:
        return found
    return [replace(each, assumptions=(*each.assumptions, FITTED)) for each in found]


def episode_values(transitions: Transitions, *, gamma: float) -> npt.NDArray[np.float64]:
    """Discounted return of each logged episode [E], continued where it was truncated."""
    returns = continued_returns(
        transitions.rewards, transitions.terminated, transitions.ends, gamma=gamma
    )
    first: npt.NDArray[np.float64] = returns[transitions.starts]
    return first


def behavior_value(returns: npt.NDArray[np.float64], *, seed: int) -> Estimate:
    """What the logged policy earned: mean discounted return [E] of the episodes, bootstrapped."""
    draws = bootstrap_counts(
        len(returns), REPLICATES, np.random.default_rng([seed, BEHAVIOR_STREAM])
    )
    _, low, high = bootstrap_interval(draws @ returns / len(returns))
    return Estimate(
        method="logged returns",
        value=float(returns.mean()),
        low=low,
        high=high,
        assumptions=("a truncated episode would have gone on at its mean reward",),
    )


def inside(agent: Agent) -> Callable[[Tensor], Tensor]:
    """The deterministic policy with actions in [-1, 1], or their indices."""
    spaces = agent.spaces
    if spaces.discrete:
        return agent.act
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    return lambda observation: (2.0 * (agent.act(observation) - low) / (high - low) - 1.0).clamp(
        -1.0, 1.0
    )


def write_estimates(
    folder: Path,
    found: dict[int, list[Estimate]],
    behavior: Estimate,
    *,
    best_return: float,
    gamma: float,
) -> None:
    """Add estimates to the run's ope.json; those of other checkpoints stay."""
    path = folder / OPE
    before = read_json(path)["checkpoints"] if path.exists() else {}
    now = {str(updates): [asdict(each) for each in each_of] for updates, each_of in found.items()}
    merged = dict(sorted((before | now).items(), key=lambda item: int(item[0])))
    content = {"gamma": gamma, "behavior": asdict(behavior), "best_return": best_return}
    write_json(path, content | {"checkpoints": merged})
