"""Behavior cloning: the policy that makes the logged actions most likely. The baseline of CQL."""

from typing import Any

import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.agents.base import (
    Agent,
    categorical_policy_metrics,
    gaussian_actor,
    gaussian_policy_metrics,
    logged_log_prob,
)
from offline_cql.config import TrainConfig
from offline_cql.networks import ObservationStatistics, StackedMLP
from offline_cql.transitions import Batch, Spaces


class ContinuousBehaviorCloning(Agent):
    """Maximum likelihood of a tanh-Gaussian policy; it acts by tanh of the mean."""

    progress_metrics = ("actor/loss", "actor/action_distance")

    def __init__(
        self, config: TrainConfig, spaces: Spaces, statistics: ObservationStatistics
    ) -> None:
        super().__init__(config, spaces, statistics)
        self.actor = gaussian_actor(config, spaces)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return cloning_group(self.actor, self.config)

    def act(self, observation: Tensor) -> Tensor:
        mean, _ = self.actor(self.statistics(observation))
        action: Tensor = self.bounds(torch.tanh(mean))
        return action

    def losses(self, batch: Batch, *, measure: bool) -> tuple[Tensor, dict[str, Tensor]]:
        policy = self.actor(self.statistics(batch.observation))
        loss = losses.behavior_cloning_loss(logged_log_prob(policy, batch.action))
        if not measure:
            return loss, {}
        distance = (torch.tanh(policy[0].detach()) - batch.action).square().mean()
        return loss, {
            "actor/loss": loss.detach(),
            "actor/action_distance": distance,
        }

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        return gaussian_policy_metrics(self.actor(self.statistics(batch.observation)), batch)


class DiscreteBehaviorCloning(Agent):
    """Cross-entropy of the logged actions; it acts by the most likely one."""

    progress_metrics = ("actor/loss", "actor/agreement")

    def __init__(
        self, config: TrainConfig, spaces: Spaces, statistics: ObservationStatistics
    ) -> None:
        super().__init__(config, spaces, statistics)
        self.actor = StackedMLP(
            1,
            spaces.observation_dim,
            config.network.actor_hidden,
            spaces.action_dim,
            orthogonal=config.network.orthogonal_actor,
            bf16=config.hardware.precision == "bf16",
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        return cloning_group(self.actor, self.config)

    def act(self, observation: Tensor) -> Tensor:
        return self.logits(observation).argmax(dim=-1)

    def logits(self, observation: Tensor) -> Tensor:
        """Unnormalized log-probabilities of the actions [B, K]."""
        logits: Tensor = self.actor(self.statistics(observation))
        return logits.squeeze(0)

    def losses(self, batch: Batch, *, measure: bool) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.logits(batch.observation)
        loss = losses.discrete_behavior_cloning_loss(logits, batch.action)
        if not measure:
            return loss, {}
        agreement = (logits.argmax(dim=-1) == batch.action).float().mean()
        return loss, {"actor/loss": loss.detach(), "actor/agreement": agreement}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        return categorical_policy_metrics(self.logits(batch.observation), batch)


def cloning_group(actor: torch.nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The one parameter group of cloning: the actor at the algorithm's learning rate."""
    return [
        {
            "name": "actor",
            "params": list(actor.parameters()),
            "lr": config.algorithm.learning_rate,
        }
    ]
