"""Builds the agent of `algorithm=…` from the settings of a run."""

from importlib import import_module
from typing import Any

from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.config import TrainConfig
from offline_cql.networks import ObservationStatistics
from offline_cql.transitions import Spaces

# Import paths of each algorithm's agents, for continuous and for discrete actions.
AGENTS = {
    "cql": (
        "offline_cql.agents.cql_continuous:ContinuousCQL",
        "offline_cql.agents.cql_discrete:DiscreteCQL",
    ),
    "bc": (
        "offline_cql.agents.behavior_cloning:ContinuousBehaviorCloning",
        "offline_cql.agents.behavior_cloning:DiscreteBehaviorCloning",
    ),
}


def make_agent(
    config: TrainConfig, spaces: Spaces, *, observation_mean: Tensor, observation_std: Tensor
) -> Agent:
    """Return the configured agent for this action space; weights come from torch's global seed."""
    name = config.algorithm.name
    module, class_name = AGENTS[name][spaces.discrete].split(":")
    options: dict[str, Any] = {"alpha_schedule": config.alpha_schedule} if name == "cql" else {}
    agent: Agent = getattr(import_module(module), class_name)(
        spaces,
        ObservationStatistics(observation_mean, observation_std),
        config.cql if name == "cql" else config.algorithm,
        config.network,
        precision=config.hardware.precision,
        seed=config.seed,
        log_every=config.log_every,
        capture=config.hardware.capture,
        **options,
    )
    return agent
