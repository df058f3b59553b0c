"""Behavior cloning: the policy under which the logged actions are most likely. CQL's baseline."""

from typing import Any

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.agents.base import Agent, Policy, gaussian_actor, set_learning_rate
from offline_cql.agents.distributions import Categorical, TanhGaussian
from offline_cql.agents.schedules import half_cosine
from offline_cql.config import BcConfig, NetworkConfig
from offline_cql.networks import ObservationStatistics, PolicyAverage, StackedMLP
from offline_cql.transitions import Batch, Spaces


class BehaviorCloning(Agent):
    """What both kinds of actions share: one group of parameters, a schedule, an average."""

    bc: BcConfig
    actor: nn.Module
    policy_average: PolicyAverage

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"name": "actor", "params": list(self.actor.parameters()), "lr": self.bc.learning_rate}
        ]

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the learning rate."""
        bc = self.bc
        if (final := bc.learning_rate_final) is not None:
            factor = half_cosine(self.updates, start=1.0, final=final, begin=0, end=bc.decay_until)
            set_learning_rate(optimizer, "actor", factor * bc.learning_rate)

    def after_step(self) -> None:
        self.policy_average.update(self.actor)


class ContinuousBehaviorCloning(BehaviorCloning):
    """Maximum likelihood of a tanh-Gaussian policy; it acts by tanh of the mean."""

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        bc: BcConfig,
        network: NetworkConfig,
        **options: Any,  # keyword arguments of Agent
    ) -> None:
        super().__init__(spaces, statistics, **options)
        self.bc = bc
        self.actor = gaussian_actor(spaces, network, bf16=self.bf16)
        self.policy_average = PolicyAverage(self.actor, network.policy_ema)

    def policy(self) -> Policy:
        return Policy(self.policy_average.acting(self.actor), "tanh_gaussian")

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dist = self.distribution(batch, self.actor)
        log_prob = dist.log_prob(batch.action, saturated=self.bc.saturated_action)
        loss = losses.behavior_cloning_loss(log_prob)
        if not log_metrics:
            return loss, {}
        distance = (dist.mode().detach() - batch.action).square().mean()
        return loss, {"actor/loss": loss.detach(), "actor/action_distance": distance}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        dist = self.distribution(batch, self.policy().network)
        return dist.policy_metrics(batch, saturated=self.bc.saturated_action)

    def distribution(self, batch: Batch, actor: nn.Module) -> TanhGaussian:
        """Return the distribution of an actor in the batch's states."""
        return TanhGaussian(*actor(self.statistics(batch.observation)))


class DiscreteBehaviorCloning(BehaviorCloning):
    """Cross-entropy of the logged actions; it acts by the most likely one."""

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        bc: BcConfig,
        network: NetworkConfig,
        **options: Any,  # keyword arguments of Agent
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
        self.policy_average = PolicyAverage(self.actor, network.policy_ema)

    def policy(self) -> Policy:
        return Policy(self.policy_average.acting(self.actor), "categorical")

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dist = self.distribution(batch, self.actor)
        loss = losses.discrete_behavior_cloning_loss(dist.logits, batch.action)
        if not log_metrics:
            return loss, {}
        agreement = (dist.mode() == batch.action).float().mean()
        return loss, {"actor/loss": loss.detach(), "actor/agreement": agreement}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        return self.distribution(batch, self.policy().network).policy_metrics(batch)

    def distribution(self, batch: Batch, actor: nn.Module) -> Categorical:
        """Return the distribution of an actor in the batch's states."""
        return Categorical(actor(self.statistics(batch.observation)).squeeze(0))
