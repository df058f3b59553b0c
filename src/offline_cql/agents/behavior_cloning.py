"""Behavior cloning: the policy under which the logged actions are most likely. CQL's baseline."""

from typing import Any

import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.agents.base import Agent, Policy, gaussian_actor
from offline_cql.agents.distributions import Categorical, TanhGaussian
from offline_cql.config import BcConfig, NetworkConfig
from offline_cql.networks import ObservationStatistics, StackedMLP
from offline_cql.transitions import Batch, Spaces


class ContinuousBehaviorCloning(Agent):
    """Maximum likelihood of a tanh-Gaussian policy; it acts by tanh of the mean."""

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        bc: BcConfig,
        network: NetworkConfig,
        **options: Any,  # of Agent
    ) -> None:
        super().__init__(spaces, statistics, **options)
        self.bc = bc
        self.actor = gaussian_actor(spaces, network, bf16=self.bf16)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return actor_group(self.actor, self.bc.learning_rate)

    def policy(self) -> Policy:
        return Policy(self.actor, "tanh_gaussian")

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dist = self.distribution(batch)
        loss = losses.behavior_cloning_loss(dist.log_prob(batch.action))
        if not log_metrics:
            return loss, {}
        distance = (dist.mode().detach() - batch.action).square().mean()
        return loss, {"actor/loss": loss.detach(), "actor/action_distance": distance}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        return self.distribution(batch).policy_metrics(batch)

    def distribution(self, batch: Batch) -> TanhGaussian:
        """Return the policy's distribution in the batch's states."""
        return TanhGaussian(*self.actor(self.statistics(batch.observation)))


class DiscreteBehaviorCloning(Agent):
    """Cross-entropy of the logged actions; it acts by the most likely one."""

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        bc: BcConfig,
        network: NetworkConfig,
        **options: Any,  # of Agent
    ) -> None:
        super().__init__(spaces, statistics, **options)
        self.bc = bc
        self.actor = StackedMLP(
            1,
            spaces.observation_dim,
            network.actor_hidden,
            spaces.action_dim,
            orthogonal=network.orthogonal_actor,
            bf16=self.bf16,
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        return actor_group(self.actor, self.bc.learning_rate)

    def policy(self) -> Policy:
        return Policy(self.actor, "categorical")

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dist = self.distribution(batch)
        loss = losses.discrete_behavior_cloning_loss(dist.logits, batch.action)
        if not log_metrics:
            return loss, {}
        agreement = (dist.mode() == batch.action).float().mean()
        return loss, {"actor/loss": loss.detach(), "actor/agreement": agreement}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        return self.distribution(batch).policy_metrics(batch)

    def distribution(self, batch: Batch) -> Categorical:
        """Return the policy's distribution in the batch's states."""
        return Categorical(self.actor(self.statistics(batch.observation)).squeeze(0))


def actor_group(actor: torch.nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """Return the one parameter group of behavior cloning."""
    return [{"name": "actor", "params": list(actor.parameters()), "lr": learning_rate}]
