"""CQL for discrete actions: an ensemble of Q-networks, DQN's target, the exact log-sum-exp gap."""

import copy
from typing import Any

import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.agents.base import Agent, Policy, set_learning_rate
from offline_cql.agents.distributions import Categorical
from offline_cql.agents.penalty import ConservativePenalty
from offline_cql.agents.schedules import half_cosine
from offline_cql.config import AlphaScheduleConfig, CqlConfig, NetworkConfig
from offline_cql.networks import ObservationStatistics, StackedMLP, lerp_targets
from offline_cql.transitions import Batch, Spaces


class DiscreteCQL(Agent):
    """TD + alpha · (logsumexp_a Q − Q(s, a)); the policy is greedy in the minimum over critics."""

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        cql: CqlConfig,
        network: NetworkConfig,
        *,
        alpha_schedule: AlphaScheduleConfig | None = None,
        **options: Any,  # keyword arguments of Agent
    ) -> None:
        super().__init__(spaces, statistics, **options)
        self.cql = cql
        self.critic = StackedMLP(
            network.n_critics,
            spaces.observation_dim,
            network.critic_hidden,
            spaces.action_dim,
            orthogonal=network.orthogonal_critic,
            norm=network.critic_norm,
            bf16=self.bf16,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.penalty = ConservativePenalty(cql, alpha_schedule)

    def policy(self) -> Policy:
        return Policy(self.critic, "greedy")

    def parameter_groups(self) -> list[dict[str, Any]]:
        critic = {
            "name": "critic",
            "params": list(self.critic.parameters()),
            "lr": self.cql.critic_learning_rate,
        }
        return [critic, *self.penalty.parameter_groups()]

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """Set alpha and the critics' learning rate."""
        cql = self.cql
        self.penalty.set_alpha(self.updates)
        if (final := cql.learning_rate_final) is not None:
            factor = half_cosine(self.updates, start=1.0, final=final, begin=0, end=cql.decay_until)
            set_learning_rate(optimizer, "critic", factor * cql.critic_learning_rate)

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q = self.critic(self.statistics(batch.observation))
        target = self.bellman_target(batch, draw=self.cql.target_critics)
        q_logged = losses.action_value(q, batch.action)
        td = losses.critic_td_loss(q_logged, target)
        self.note_values(q_logged, target)
        gap = self.gap(q, batch)
        total = td + self.penalty.loss(gap)
        if not log_metrics:
            return total, {}
        return total, {
            "critic/td_loss": td.detach(),
            "critic/gap": gap.detach().mean(),
            "critic/q_logged": q_logged.detach().mean(),
            "critic/q_policy": q.detach().amin(dim=0).amax(dim=-1).mean(),
            "critic/q_uniform": q.detach().mean(),
            "critic/q_abs_max": q.detach().abs().max(),
            "critic/target": target.mean(),
            **self.penalty.metrics(),
        }

    @torch.no_grad()
    def bellman_target(self, batch: Batch, *, draw: int | None = None) -> Tensor:
        """Return y [B] from all critics, or `draw` random ones; `cql.target` is its form."""
        next_observation = self.statistics(batch.next_observation)
        q_target, q_online = self.target_critic(next_observation), self.critic(next_observation)
        if draw is not None:
            drawn = self.draw_critics(len(q_target), draw)
            q_target, q_online = q_target[drawn], q_online[drawn]
        value = losses.discrete_value(
            q_target, q_online, target=self.cql.target, temperature=self.cql.gap_temperature
        )
        return losses.bellman_target(batch.reward, batch.discount, value)

    def gap(self, q: Tensor, batch: Batch) -> Tensor:
        """Return the conservative gap [E, B], clipped to the limits, not scaled by alpha."""
        cql, action = self.cql, batch.action
        return_to_go = batch.return_to_go if cql.calibrated else None
        return losses.clip_gap(
            losses.discrete_gap(
                q, action, temperature=cql.gap_temperature, return_to_go=return_to_go
            ),
            minimum=cql.gap_min,
            maximum=cql.gap_max,
        )

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        q = self.critic(self.statistics(batch.observation))
        minimum = q.amin(dim=0)
        q_logged = losses.action_value(q, batch.action)
        return {
            "td_error": (q_logged - self.bellman_target(batch)).square().mean(dim=0),
            "gap": self.gap(q, batch).mean(dim=0),
            "q_logged": q_logged.mean(dim=0),
            "q_policy": losses.action_value(q, minimum.argmax(dim=1)).mean(dim=0),
            **Categorical(minimum / self.cql.gap_temperature).policy_metrics(batch),
        }

    def bonus(self) -> Tensor:
        return self.penalty.largest_push()

    @torch.no_grad()
    def after_step(self) -> None:
        lerp_targets(self.target_critic, self.critic, self.cql.polyak)
        self.penalty.clamp()
