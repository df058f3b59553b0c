"""Builds the agent of `algorithm=…` from the settings of a run."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.config import ALGORITHMS, TrainConfig
from offline_cql.networks import ObservationStatistics
from offline_cql.transitions import Spaces


def make_agent(
    config: TrainConfig, spaces: Spaces, statistics: tuple[Tensor, Tensor] | None = None
) -> Agent:
    """Return the configured agent for this action space; weights come from torch's global seed.

    statistics: mean and standard deviation [D] of the observations; None: 0 and 1.
    """
    size = spaces.observation_dim
    mean, std = statistics or (torch.zeros(size), torch.ones(size))
    algorithm = ALGORITHMS[config.algorithm]
    module, class_name = algorithm.agent_path(discrete=spaces.discrete).split(":")
    options: dict[str, Any] = {}
    if algorithm.has_alpha:
        options["alpha_schedule"] = config.alpha_schedule
    agent: Agent = getattr(import_module(module), class_name)(
        spaces,
        ObservationStatistics(mean, std),
        config.algorithm_section(),
        config.network,
        precision=config.hardware.precision,
        seed=config.seed,
        log_every=config.log_every,
        capture=config.hardware.capture,
        **options,
    )
    return agent
