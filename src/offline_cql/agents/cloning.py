"""Behaviour cloning: the policy that makes the logged actions most likely. The baseline of CQL."""

from typing import Any

import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.agents.base import Agent, gaussian_actor
from offline_cql.networks import ObservationStatistics, StackedMLP
from offline_cql.schema import TrainConfig
from offline_cql.transitions import Batch, Spaces

# Logged actions at ±1 have no pre-tanh value; float32 inverts 1 − 1e-5 well.
LARGEST_ACTION = 1.0 - 1e-5


class ContinuousCloning(Agent):
    """Maximum likelihood of a tanh-Gaussian policy; it acts by tanh of the mean."""

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
        mean, log_std = self.actor(self.statistics(batch.observation))
        pre_tanh = batch.action.clamp(-LARGEST_ACTION, LARGEST_ACTION).atanh()
        density = losses.tanh_gaussian_log_density(pre_tanh, mean, log_std)
        loss = losses.cloning_loss(density)
        if not measure:
            return loss, {}
        distance = (torch.tanh(mean.detach()) - batch.action).square().mean()
        return loss, {
            "actor/loss": loss.detach(),
            "actor/action_distance": distance,
        }


class DiscreteCloning(Agent):
    """Cross-entropy of the logged actions; it acts by the most likely one."""

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
        """Unnormalised log-probabilities of the actions [B, K]."""
        logits: Tensor = self.actor(self.statistics(observation))
        return logits.squeeze(0)

    def losses(self, batch: Batch, *, measure: bool) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.logits(batch.observation)
        loss = losses.discrete_cloning_loss(logits, batch.action)
        if not measure:
            return loss, {}
        agreement = (logits.argmax(dim=-1) == batch.action).float().mean()
        return loss, {"actor/loss": loss.detach(), "actor/agreement": agreement}


def cloning_group(actor: torch.nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The one parameter group of cloning: the actor at the algorithm's learning rate."""
    return [
        {
            "name": "actor",
            "params": list(actor.parameters()),
            "lr": config.algorithm.learning_rate,
        }
    ]
