"""Policies for export: the part of an agent that acts, in float32.

They map observations [B, D] float32 to actions, both in the environment's units: [B, A] float32, or
an int64 index [B]; NaN, or NO_ACTION, for an observation whose numbers overflow on the way. A
sampled policy takes its random numbers as a second input.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.agents import Agent
from offline_cql.errors import ConfigError
from offline_cql.networks import StackedMLP

NO_ACTION = -1  # in place of the index of an action


class ExportablePolicy(nn.Module):
    """Copies of an agent's policy network, statistics and bounds that compute in float32."""

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
        """Sample the second input for `size` observations; () for a deterministic policy."""
        return ()

    @abstractmethod
    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Return the distance of actions from this policy's, [B]; 0 where they agree."""


class TanhGaussianMode(ExportablePolicy):
    """tanh of the mean, in the environment's units."""

    def forward(self, observation: Tensor) -> Tensor:
        mean, _ = self.network(self.statistics(observation))
        return self.to_environment(mean)

    def to_environment(self, pre_tanh: Tensor) -> Tensor:
        """Return tanh in the environment's units, clamped to its bounds."""
        action: Tensor = self.bounds(torch.tanh(pre_tanh))
        low, high = self.bounds.low, self.bounds.high
        # float32 rounding can exceed the bound by one ulp; clamp, because consumers may reject it.
        clamped = torch.minimum(torch.maximum(action, low), high)
        return clamped.where(pre_tanh.isfinite(), torch.nan)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Return the largest difference over dimensions, in units of half the range."""
        half = 0.5 * (self.bounds.high - self.bounds.low)
        distance: Tensor = (action - self(*inputs)).abs() / half
        return distance.amax(dim=1)


class TanhGaussianSample(TanhGaussianMode):
    """tanh of mean + standard deviation · noise, in the environment's units."""

    random_input = ("noise", "standard normal")

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        mean, log_std = self.network(self.statistics(observation))
        return self.to_environment(mean + log_std.exp() * noise)

    def random(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(size, self.action_dim, generator=generator),)


class GreedyPolicy(ExportablePolicy):
    """The action with the largest score: the minimum over critics, or the logit."""

    def forward(self, observation: Tensor) -> Tensor:
        scores = self.scores(observation)
        return scores.argmax(dim=-1).where(scores.isfinite().all(dim=-1), NO_ACTION)

    def scores(self, observation: Tensor) -> Tensor:
        """Return scores [B, K]: the minimum over the members of an ensemble."""
        values: Tensor = self.network(self.statistics(observation))
        return values.amin(dim=0)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Return the difference to the best score, relative where that is over 1 in magnitude.

        Two actions with equal scores are equally right, whichever one rounding prefers.
        """
        scores = self.scores(*inputs)
        best = scores.amax(dim=1)
        return (best - losses.action_value(scores, action)) / best.abs().clamp(min=1.0)


class CategoricalSample(GreedyPolicy):
    """A sample from the softmax, by inversion of its cumulative sum at a uniform number."""

    random_input = ("uniform", "uniform in [0, 1)")

    def forward(self, observation: Tensor, uniform: Tensor) -> Tensor:  # type: ignore[override]
        cumulative = self.cumulative(observation)
        index = (cumulative[:, :-1] <= uniform.unsqueeze(1)).sum(dim=1)
        return index.where(cumulative.isfinite().all(dim=1), NO_ACTION)

    def cumulative(self, observation: Tensor) -> Tensor:
        """Return the cumulative probabilities of the actions, [B, K]."""
        return self.scores(observation).softmax(dim=1).cumsum(dim=1)

    def random(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.rand(size, generator=generator),)

    def distance(self, inputs: tuple[Tensor, ...], action: Tensor) -> Tensor:
        """Return the distance of the uniform number from the action's interval."""
        observation, uniform = inputs
        upper, index = self.cumulative(observation)[:, :-1], action.unsqueeze(1)
        first = torch.zeros_like(uniform).unsqueeze(1)
        edges = torch.cat([first, upper, first + 1.0], dim=1)
        low, high = (edges.gather(1, index + k).squeeze(1) for k in (0, 1))
        return torch.maximum(low - uniform, uniform - high).clamp(min=0.0)


class SupportedPolicy(nn.Module):
    """A policy with the support [B] of its actions, by `ope.behavior.Support`."""

    def __init__(self, policy: ExportablePolicy, support: nn.Module):
        super().__init__()
        self.policy, self.support = policy, support

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        action: Tensor = self.policy(observation, *([] if noise is None else [noise]))
        return action, self.support(observation, action)


# Per kind of `agents.Policy`: the deterministic policy, and the sampled one if there is any.
POLICIES: dict[str, tuple[type[ExportablePolicy], type[ExportablePolicy] | None]] = {
    "tanh_gaussian": (TanhGaussianMode, TanhGaussianSample),
    "categorical": (GreedyPolicy, CategoricalSample),
    "greedy": (GreedyPolicy, None),
}


def exportable_policy(agent: Agent, *, sampled: bool) -> ExportablePolicy:
    """Return the agent's deterministic or sampled policy.

    Raises ConfigError for a sample of a policy that is not a distribution.
    """
    network, kind = agent.policy()
    deterministic, stochastic = POLICIES[kind]
    if not sampled:
        return deterministic(agent, network)
    if stochastic is None:
        raise ConfigError(
            "sampled=true needs a policy that is a distribution: CQL for discrete actions takes "
            "the action with the largest value; leave it out, or train with algorithm=bc"
        )
    return stochastic(agent, network)
