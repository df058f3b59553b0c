"""Off-policy estimates of a run's checkpoints, from the run's validation episodes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from offline_cql.agents import Agent
from offline_cql.commands.load_data import load_transitions
from offline_cql.config import OpeConfig, TrainConfig
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import NUMBER, check_shape, differing_key, read_json, write_json
from offline_cql.ope.actions import Comparison, compare_actions, compare_continuous
from offline_cql.ope.behavior import fit_behavior_probabilities
from offline_cql.ope.estimate import FRACTION, Estimate
from offline_cql.ope.fqe import BEYOND, DeterministicPolicy, FittedQEvaluation, actions_at
from offline_cql.ope.importance import doubly_robust, weighted_importance_sampling
from offline_cql.render.progress import ProgressBar
from offline_cql.runs.folder import OPE
from offline_cql.transitions import ActionMap, Transitions

Array = npt.NDArray[Any]
ENDS_COUNT_NOTHING = "nothing is earned after the ends of truncated episodes (wis)"
ESTIMATE = {"method": str} | dict.fromkeys(("value", "low", "high"), NUMBER)
ESTIMATES = {"gamma": NUMBER, "checkpoints": dict, "behavior": ESTIMATE}
FITTED = "the behavior probabilities were fitted to the data, not logged"


def load_run_data(config: TrainConfig, state: dict[str, Any]) -> Transitions:
    """Return the data that a run was trained on. Raises DataError when they have changed since."""
    transitions = load_transitions(config.env, config.dataset)
    if transitions.sha256 != state["dataset"]["sha256"]:
        raise DataError(
            f"{transitions.dataset_id} has changed since the run was trained; restore the data, "
            "or train again"
        )
    return transitions


def require_validation_episodes(run: TrainConfig, folder: Path) -> None:
    """Raise ConfigError when a run kept no episodes out of training."""
    if run.dataset.validation_fraction == 0:
        raise ConfigError(
            f"run={folder} has no validation episodes, and estimates from the episodes that a "
            "policy was learned from are too high; train again with "
            f"dataset.validation_fraction={FRACTION:g}"
        )


def behavior_probabilities(transitions: Transitions, ope: OpeConfig) -> Array | None:
    """Return the behavior's probabilities of the logged actions, [N]; fit them if not logged.

    None unless ope=all, which alone needs them. Raises ConfigError for continuous actions.
    """
    if ope.method != "all":
        return None
    if not transitions.spaces.discrete:
        raise ConfigError(
            "ope=all needs discrete actions: a deterministic policy never takes exactly the logged "
            "continuous one; choose ope=fqe"
        )
    if transitions.propensities is not None:
        return transitions.propensities
    return fit_behavior_probabilities(transitions, seed=ope.seed)


def estimate_policy(
    agent: Agent,
    transitions: Transitions,
    behavior: Array | None,
    ope: OpeConfig,
    *,
    gamma: float,
    title: str,
) -> list[Estimate]:
    """Estimate the return of the agent's deterministic policy, once per method.

    behavior [N] is what `behavior_probabilities` returns; title heads the progress bar.
    """
    policy = internal_policy(agent)
    fqe = FittedQEvaluation(transitions, policy, ope, gamma=gamma)
    with ProgressBar(title, ope.updates) as bar:
        fqe.fit(lambda: bar.advance(1))
    if behavior is None:
        return [fqe.estimate()]
    greedy = actions_at(transitions.observations, policy)
    taken = (greedy.numpy() == transitions.actions).astype(np.float64)
    arrays = (transitions.rewards, taken, behavior, transitions.ends)
    q_logged = fqe.mean_values(torch.from_numpy(transitions.actions))
    v, v_end = fqe.mean_values(greedy), fqe.values_at_ends()
    options: dict[str, Any] = {"gamma": gamma, "durations": transitions.durations, "seed": ope.seed}
    weighted = [
        weighted_importance_sampling(*arrays, **options),
        doubly_robust(*arrays, q_logged=q_logged, v=v, v_end=v_end, **options),
    ]
    if transitions.truncated.any():
        weighted = [
            replace(e, assumptions=(*e.assumptions, beyond))
            for e, beyond in zip(weighted, (ENDS_COUNT_NOTHING, BEYOND), strict=True)
        ]
    if transitions.propensities is None:
        weighted = [replace(e, assumptions=(*e.assumptions, FITTED)) for e in weighted]
    return [fqe.estimate(), *weighted]


def internal_policy(agent: Agent) -> DeterministicPolicy:
    """Return the deterministic policy with actions in [-1, 1], or their indices."""
    if agent.spaces.discrete:
        return agent.act
    return lambda observation: agent.bounds.inverse(agent.act(observation)).clamp(-1.0, 1.0)


def compare_with_data(agent: Agent, transitions: Transitions) -> Comparison:
    """Compare the policy's actions with the logged ones, in the environment's units.

    The data may have other bounds than those that the policy was learned from.
    """
    spaces, images = transitions.spaces, transitions.images is not None
    width = 0 if images else spaces.observation_dim
    chosen = actions_at(transitions.observations, agent.act).numpy()
    names = transitions.action_names or [str(k) for k in range(spaces.action_dim)]
    columns = transitions.observation_names or [f"observation {k}" for k in range(width)]
    states, logged = transitions.observations[:, :width], transitions.actions
    if spaces.discrete:
        return compare_actions(
            states, logged, chosen, action_names=names, observation_names=columns
        )
    environment = ActionMap(spaces.action_low, spaces.action_high).to_environment
    return compare_continuous(
        states,
        environment(logged),
        chosen,
        action_names=names,
        observation_names=columns,
    )


def read_estimates(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ope.json; {} without one.

    Estimates of earlier versions, from training episodes, do not count. Raises DataError for
    another content.
    """
    path = folder / OPE
    content = read_json(path) if path.exists() else {}
    if "validation_episodes" not in content:
        return {}
    check_shape(path, content, ESTIMATES)
    actions = content.get("actions", {})
    if not isinstance(actions, dict) or not all(map(str.isdecimal, actions)):
        raise DataError(f"{path}: actions has the wrong type: restore it")
    for updates, estimates in content["checkpoints"].items():
        valid = updates.isdecimal() and isinstance(estimates, list)
        if not valid or any(differing_key(estimate, ESTIMATE) for estimate in estimates):
            raise DataError(f"{path}: checkpoints.{updates} has the wrong type: restore it")
    return content


def write_estimates(
    folder: Path,
    estimates: dict[int, list[Estimate]],
    behavior: Estimate,
    actions: dict[int, Comparison],
    *,
    validation_episodes: int,
    best_return: float,
    gamma: float,
) -> None:
    """Add estimates, by number of updates, to the run's ope.json; keep those of other checkpoints.

    actions: the same policies' actions beside the logged ones. behavior: mean discounted
    return of the validation episodes; best_return: maximum over all logged episodes.
    """
    path = folder / OPE
    previous = read_estimates(folder)
    new = {str(updates): [asdict(e) for e in group] for updates, group in estimates.items()}
    compared = {str(updates): asdict(each) for updates, each in actions.items()}
    content = {
        "gamma": gamma,
        "validation_episodes": validation_episodes,
        "behavior": asdict(behavior),
        "best_return": best_return,
        "checkpoints": _sorted(previous.get("checkpoints", {}) | new),
        "actions": _sorted(previous.get("actions", {}) | compared),
    }
    write_json(path, content)


def _sorted(by_updates: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(by_updates.items(), key=lambda item: int(item[0])))
