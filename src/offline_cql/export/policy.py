"""A policy alone: what is left of an agent when it only acts, in float32, ready for export.

Observations [B, D] float32 in the environment's units go in, actions in the environment's units
come out: [B, A] float32, or an int64 index [B]. Nothing is drawn inside: a sampled policy takes its
random numbers as a second input. Knows nothing about files or formats.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.agents.base import Agent
from offline_cql.agents.behavior_cloning import ContinuousBehaviorCloning, DiscreteBehaviorCloning
from offline_cql.agents.cql_continuous import ContinuousCQL
from offline_cql.agents.cql_discrete import DiscreteCQL
from offline_cql.errors import ConfigError
from offline_cql.networks import StackedMLP


class ExportablePolicy(nn.Module):
    """An agent's networks, statistics and bounds, as copies that compute in float32."""

    # Name and distribution of the input beside the observation, of a sampled policy.
    random_input: ClassVar[tuple[str, str] | None] = None

    def __init__(self, agent: Agent, network: nn.Module) -> None:
        super().__init__()
        self.statistics = copy.deepcopy(agent.statistics)
        self.bounds = copy.deepcopy(agent.bounds)
        self.network = copy.deepcopy(network)
        self.action_dim = agent.spaces.action_dim
        for part in self.network.modules():
            if isinstance(part, StackedMLP):
                part.bf16 = False
        self.requires_grad_(False).eval()

    def random(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Values for the second input, for `size` observations; () of a deterministic policy."""
        return ()

    @abstractmethod
    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """How far actions for these inputs are from this policy's own, [B]; 0 where they agree."""


class GaussianMode(ExportablePolicy):
    """tanh of the mean, in the environment's bounds."""

    def forward(self, observation: Tensor) -> Tensor:
        mean, _ = self.network(self.statistics(observation))
        return self.within_bounds(mean)

    def within_bounds(self, pre_tanh: Tensor) -> Tensor:
        action: Tensor = self.bounds(torch.tanh(pre_tanh))
        low, high = self.bounds.low, self.bounds.high
        # The map of ±1 rounds to a float beside the bound; who is served has no tolerance for it.
        return torch.minimum(torch.maximum(action, low), high)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """The largest difference in any dimension, in units of half its range."""
        half = 0.5 * (self.bounds.high - self.bounds.low)
        distance: Tensor = (action - self(*inputs)).abs() / half
        return distance.amax(dim=1)


class GaussianSample(GaussianMode):
    """tanh of mean + standard deviation · noise, in the environment's bounds."""

    random_input = ("noise", "standard normal")

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        mean, log_std = self.network(self.statistics(observation))
        return self.within_bounds(mean + log_std.exp() * noise)

    def random(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(size, self.action_dim, generator=generator),)


class LargestScore(ExportablePolicy):
    """The action with the largest score: the least of the critics, or the logit."""

    def forward(self, observation: Tensor) -> Tensor:
        return self.scores(observation).argmax(dim=-1)

    def scores(self, observation: Tensor) -> Tensor:
        """[B, K]; with several networks the least of their values."""
        values: Tensor = self.network(self.statistics(observation))
        return values.amin(dim=0)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """How much less the action scores than the best one, relative to it where it is over 1.

        Two actions of equal score are equally right, whichever rounding prefers.
        """
        scores = self.scores(*inputs)
        best = scores.amax(dim=1)
        return (best - losses.chosen(scores, action)) / best.abs().clamp(min=1.0)


class LogitSample(LargestScore):
    """The action in whose share of the softmax, laid out over [0, 1), a uniform number falls."""

    random_input = ("uniform", "uniform in [0, 1)")

    def forward(self, observation: Tensor, uniform: Tensor) -> Tensor:  # type: ignore[override]
        return (self.shares(observation)[:, :-1] <= uniform.unsqueeze(1)).sum(dim=1)

    def shares(self, observation: Tensor) -> Tensor:
        """The upper end of each action's share, [B, K]."""
        return self.scores(observation).softmax(dim=1).cumsum(dim=1)

    def random(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.rand(size, generator=generator),)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """How far the uniform number lies outside the action's share."""
        observation, uniform = inputs
        upper, place = self.shares(observation)[:, :-1], action.unsqueeze(1)
        first = torch.zeros_like(uniform).unsqueeze(1)
        edges = torch.cat([first, upper, first + 1.0], dim=1)
        low, high = (edges.gather(1, place + k).squeeze(1) for k in (0, 1))
        return torch.maximum(low - uniform, uniform - high).clamp(min=0.0)


# The agent's kind: the name of the network that acts, deterministic policy, sampled policy.
KINDS: dict[type[Agent], tuple[str, type[ExportablePolicy], type[ExportablePolicy] | None]] = {
    ContinuousCQL: ("actor", GaussianMode, GaussianSample),
    ContinuousBehaviorCloning: ("actor", GaussianMode, GaussianSample),
    DiscreteBehaviorCloning: ("actor", LargestScore, LogitSample),
    DiscreteCQL: ("critic", LargestScore, None),
}


def policy_alone(agent: Agent, *, sampled: bool) -> ExportablePolicy:
    """The agent's deterministic or sampled policy. Raises ConfigError where there is no such."""
    network, deterministic, random = KINDS[type(agent)]
    parts: dict[str, Any] = dict(agent.named_children())
    if not sampled:
        return deterministic(agent, parts[network])
    if random is None:
        raise ConfigError(
            "sampled=true needs a policy that is a distribution: CQL for discrete actions takes "
            "the action of the largest value; leave it out, or train with algorithm=bc"
        )
    return random(agent, parts[network])
