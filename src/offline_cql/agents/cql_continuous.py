"""CQL for continuous actions: SAC with a conservative critic (Kumar et al. 2020).

One update: the critic, actor, temperature and multiplier losses are taken at the same parameters
and summed; stop-gradients keep each parameter's gradient its own.
"""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from offline_cql import losses
from offline_cql.agents.base import (
    VALIDATION_NOISE,
    Agent,
    Gaussian,
    gaussian_actor,
    gaussian_policy_metrics,
    logged_log_prob,
)
from offline_cql.agents.penalty import ConservativePenalty, lerp_targets
from offline_cql.config import TrainConfig
from offline_cql.networks import ActionCritics, ObservationStatistics
from offline_cql.transitions import Batch, Spaces


class Noise(NamedTuple):
    """Random numbers of one update. B states, n proposals, M backup actions, A dimensions."""

    uniform: Tensor  # [n, B, A] in [−1, 1]
    current: Tensor  # [n, B, A] standard normal, as all below
    next: Tensor  # [n, B, A]
    actor: Tensor  # [1, B, A]
    backup: Tensor  # [M, B, A]


class ContinuousCQL(Agent):
    """Tanh-Gaussian actor, E stacked critics, automatic temperature, conservative gap."""

    progress_metrics = ("critic/td_loss", "critic/gap", "cql/alpha", "cql/multiplier")

    def __init__(
        self, config: TrainConfig, spaces: Spaces, statistics: ObservationStatistics
    ) -> None:
        super().__init__(config, spaces, statistics)
        network, bf16 = config.network, config.hardware.precision == "bf16"
        self.actor = gaussian_actor(config, spaces)
        self.critic = ActionCritics(
            network.n_critics,
            spaces.observation_dim,
            spaces.action_dim,
            network.critic_hidden,
            orthogonal=network.orthogonal_critic,
            bf16=bf16,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.cql.temperature_initial)))
        self.penalty = ConservativePenalty(config)
        target_entropy = config.cql.target_entropy
        self.target_entropy = (
            -float(spaces.action_dim) if target_entropy is None else target_entropy
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        cql = self.config.cql
        return [
            {
                "name": "critic",
                "params": list(self.critic.parameters()),
                "lr": cql.critic_learning_rate,
            },
            {
                "name": "actor",
                "params": list(self.actor.parameters()),
                "lr": cql.actor_learning_rate,
            },
            {
                "name": "temperature",
                "params": [self.log_temperature],
                "lr": cql.temperature_learning_rate,
            },
            *self.penalty.parameter_groups(),
        ]

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """alpha, and the actor's rate: one while it clones, another when it follows the critics."""
        cql = self.config.cql
        self.penalty.set_alpha(self.updates)
        (actor,) = (group for group in optimizer.param_groups if group["name"] == "actor")
        actor["lr"] = cql.bc_learning_rate if self.cloning else cql.actor_learning_rate

    def graph_key(self) -> tuple[bool, ...]:
        return self.cloning, self.penalty.penalized

    @property
    def cloning(self) -> bool:
        """Whether the actor still clones the data instead of following the critics."""
        return self.updates < self.config.cql.bc_updates

    def act(self, observation: Tensor) -> Tensor:
        mean, _ = self.actor(self.statistics(observation))
        action: Tensor = self.bounds(torch.tanh(mean))
        return action

    def sample_rank_noise(self, batch_size: int) -> Noise:
        """The random numbers of one update, drawn for the global batch, this rank's share."""
        assert self.noise is not None
        drawn = self.sample_noise(batch_size, self.noise)
        return Noise(*(self.rank_slice(part, dim=1) for part in drawn))

    def sample_noise(self, batch_size: int, generator: torch.Generator) -> Noise:
        """The random numbers for a batch of this size, from a generator."""
        cql, actions = self.config.cql, self.spaces.action_dim
        n, backups = cql.n_action_samples, cql.n_action_samples if cql.backup == "max" else 1
        options: dict[str, Any] = {"generator": generator, "device": self.device}
        uniform = torch.rand(n, batch_size, actions, **options).mul_(2.0).sub_(1.0)
        normal = torch.randn(2 * n + 1 + backups, batch_size, actions, **options)
        return Noise(uniform, *torch.split(normal, [n, n, 1, backups]))

    def losses(self, batch: Batch, *, measure: bool) -> tuple[Tensor, dict[str, Tensor]]:
        return self.compute_losses(
            batch, self.sample_rank_noise(self.config.batch_size), measure=measure
        )

    def compute_losses(
        self, batch: Batch, noise: Noise, *, measure: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss of one update at given noise: a function of parameters, batch, noise."""
        observation = self.statistics(batch.observation)
        dist = self.actor(observation)
        critic, metrics = self.critic_losses(batch, observation, dist, noise, measure=measure)
        policy, more = self.policy_losses(batch, observation, dist, noise, measure=measure)
        return critic + policy, metrics | more

    def critic_losses(
        self,
        batch: Batch,
        observation: Tensor,
        dist: Gaussian,
        noise: Noise,
        *,
        measure: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """TD, the weighted gap and the multiplier's loss; no gradient reaches the actor."""
        cql, penalty = self.config.cql, self.penalty
        penalized = penalty.penalized
        with torch.no_grad():
            next_observation = self.statistics(batch.next_observation)
            next_dist = self.actor(next_observation)
            target = self.bellman_target(batch, next_observation, next_dist, noise)
            if penalized or measure:
                proposals, log_prob = self.proposals(dist, next_dist, noise)
        logged = batch.action.unsqueeze(1)
        if cql.action_clip is not None:
            logged = logged.clamp(-cql.action_clip, cql.action_clip)
        if penalized:
            q = self.critic(observation, torch.cat([logged, proposals], dim=1))
        else:
            q = self.critic(observation, logged)
        td = losses.critic_td_loss(q[..., 0], target)
        if not penalized and not measure:
            return td, {}
        if not penalized:  # Plain SAC scores proposals for the record only.
            with torch.no_grad():
                q = torch.cat([q, self.critic(observation, proposals)], dim=2)
        gap = self.gap(q[..., 1:], log_prob, q[..., 0])
        loss = td + penalty.loss(gap) if penalized else td
        if not measure:
            return loss, {}
        return loss, {
            "critic/td_loss": td.detach(),
            "critic/gap": gap.detach().mean(),
            "critic/q_logged": q[..., 0].detach().mean(),
            **self.uniform_value(q[..., 1:]),
            "critic/q_abs_max": q.detach().abs().max(),
            "critic/target": target.mean(),
            **penalty.metrics(),
        }

    def policy_losses(
        self,
        batch: Batch,
        observation: Tensor,
        dist: Gaussian,
        noise: Noise,
        *,
        measure: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's and the temperature's losses; the critics are frozen.

        For the first `bc_updates` the actor clones the logged actions and the temperature
        waits: the critics learn first what the behavior is worth.
        """
        action, log_prob = sample(dist, noise.actor)
        log_prob = log_prob.squeeze(1)
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        q = functional_call(self.critic, frozen, (observation, action)).squeeze(2)
        temperature = self.log_temperature.detach().exp()
        temperature_loss = losses.temperature_loss(
            self.log_temperature, log_prob, target_entropy=self.target_entropy
        )
        if self.cloning:
            actor = losses.behavior_cloning_loss(logged_log_prob(dist, batch.action))
            temperature_loss = 0.0 * temperature_loss  # a gradient of 0: every rank has one
        else:
            actor = losses.actor_loss(q, log_prob, temperature=temperature)
        loss = actor + temperature_loss
        if not measure:
            return loss, {}
        return loss, {
            "critic/q_policy": q.detach().mean(),
            "actor/loss": actor.detach(),
            "actor/entropy": -log_prob.detach().mean(),
            "actor/temperature": temperature,
        }

    def bellman_target(
        self,
        batch: Batch,
        next_observation: Tensor,
        next_dist: Gaussian,
        noise: Noise,
    ) -> Tensor:
        """y [B] from the target critics at fresh actions of the policy in the next state."""
        action, log_prob = sample(next_dist, noise.backup)
        q_target = self.target_critic(next_observation, action)
        if self.config.cql.backup == "entropy":
            temperature = self.log_temperature.exp()
            value = losses.sampled_value(q_target, log_prob, temperature=temperature)
        else:
            value = losses.sampled_value(q_target, None)
        return losses.bellman_target(batch.reward, batch.discount, value)

    def proposals(self, dist: Gaussian, next_dist: Gaussian, noise: Noise) -> tuple[Tensor, Tensor]:
        """Actions [B, N, A] that the gap is estimated with and their log-densities [B, N].

        Next-state actions are scored at the current state: they only widen the proposal.
        """
        uniform = noise.uniform.transpose(0, 1)
        low, high = -torch.ones_like(uniform[0, 0]), torch.ones_like(uniform[0, 0])
        uniform_log_prob = losses.uniform_log_prob(low, high).expand(uniform.shape[:2])
        current = sample(dist, noise.current)
        if self.config.cql.penalty == "expectation":
            if self.config.cql.expectation_over == "uniform":
                return uniform, uniform_log_prob
            return current
        drawn = [(uniform, uniform_log_prob), current, sample(next_dist, noise.next)]
        return torch.cat([a for a, _ in drawn], dim=1), torch.cat([d for _, d in drawn], dim=1)

    def gap(self, q_proposed: Tensor, log_prob: Tensor, q_logged: Tensor) -> Tensor:
        """The conservative gap [E, B], clipped if so configured, not scaled by alpha."""
        cql = self.config.cql
        if cql.penalty == "expectation":
            gap = losses.expectation_gap(q_proposed, q_logged)
        else:
            gap = losses.conservative_gap(
                q_proposed, log_prob, q_logged, temperature=cql.gap_temperature
            )
        return losses.clipped_gap(gap, minimum=cql.gap_min, maximum=cql.gap_max)

    def uniform_value(self, q_proposed: Tensor) -> dict[str, Tensor]:
        """Mean Q of uniform actions, where this penalty draws any."""
        cql = self.config.cql
        if cql.penalty == "expectation" and cql.expectation_over == "policy":
            return {}
        return {"critic/q_uniform": q_proposed[..., : cql.n_action_samples].detach().mean()}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """With deterministic actions, here and in the target; the gap as in training."""
        observation = self.statistics(batch.observation)
        next_observation = self.statistics(batch.next_observation)
        dist, next_dist = self.actor(observation), self.actor(next_observation)
        generator = torch.Generator(self.device).manual_seed(VALIDATION_NOISE)
        noise = self.sample_noise(len(batch.reward), generator)
        proposals, log_prob = self.proposals(dist, next_dist, noise)
        fixed = torch.stack([batch.action, torch.tanh(dist[0])], dim=1)
        q = self.critic(observation, torch.cat([fixed, proposals], dim=1))
        q_next = self.target_critic(next_observation, torch.tanh(next_dist[0]).unsqueeze(1))
        value = losses.sampled_value(q_next, None)
        target = losses.bellman_target(batch.reward, batch.discount, value)
        return {
            "td_error": (q[..., 0] - target).square().mean(dim=0),
            "gap": self.gap(q[..., 2:], log_prob, q[..., 0]).mean(dim=0),
            "q_logged": q[..., 0].mean(dim=0),
            "q_policy": q[..., 1].mean(dim=0),
            **gaussian_policy_metrics(dist, batch),
        }

    @torch.no_grad()
    def after_step(self) -> None:
        lerp_targets(self.target_critic, self.critic, self.config.cql.polyak)
        self.penalty.clamp()


def sample(gaussian: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squashed actions [B, n, A] of noise [n, B, A], and their log-densities [B, n]."""
    mean, log_std = (part.unsqueeze(0) for part in gaussian)
    pre_tanh = mean + log_std.exp() * noise
    log_prob = losses.tanh_gaussian_log_prob(pre_tanh, mean, log_std)
    return torch.tanh(pre_tanh).transpose(0, 1), log_prob.transpose(0, 1)
