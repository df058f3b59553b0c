"""The agents, and which of them a config and an action space select."""

from torch import Tensor

from offline_cql.agents.base import Agent
from offline_cql.agents.behavior_cloning import ContinuousBehaviorCloning, DiscreteBehaviorCloning
from offline_cql.agents.cql_continuous import ContinuousCQL
from offline_cql.agents.cql_discrete import DiscreteCQL
from offline_cql.config import TrainConfig
from offline_cql.networks import ObservationStatistics
from offline_cql.transitions import Spaces

__all__ = ["Agent", "make_agent"]

AGENTS: dict[tuple[str, bool], type[Agent]] = {
    ("cql", False): ContinuousCQL,
    ("cql", True): DiscreteCQL,
    ("bc", False): ContinuousBehaviorCloning,
    ("bc", True): DiscreteBehaviorCloning,
}


def make_agent(
    config: TrainConfig, spaces: Spaces, *, observation_mean: Tensor, observation_std: Tensor
) -> Agent:
    """The agent of `algorithm=…` for this action space; weights come from torch's global seed."""
    statistics = ObservationStatistics(observation_mean, observation_std)
    return AGENTS[config.algorithm.name, spaces.discrete](config, spaces, statistics)
