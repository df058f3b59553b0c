"""Builds the agent of `algorithm=…` from the settings of a run."""

from importlib import import_module
from typing import Any

from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.config import ALGORITHMS, TrainConfig
from offline_cql.networks import ObservationStatistics
from offline_cql.transitions import Spaces


def make_agent(
    config: TrainConfig, spaces: Spaces, *, observation_mean: Tensor, observation_std: Tensor
) -> Agent:
    """Return the configured agent for this action space; weights come from torch's global seed."""
    algorithm = ALGORITHMS[config.algorithm]
    module, class_name = algorithm.agent_path(discrete=spaces.discrete).split(":")
    options: dict[str, Any] = {}
    if algorithm.has_alpha:
        options["alpha_schedule"] = config.alpha_schedule
    agent: Agent = getattr(import_module(module), class_name)(
        spaces,
        ObservationStatistics(observation_mean, observation_std),
        config.algorithm_section(),
        config.network,
        precision=config.hardware.precision,
        seed=config.seed,
        log_every=config.log_every,
        capture=config.hardware.capture,
        **options,
    )
    return agent
