"""CQL for continuous actions: SAC with a conservative critic (Kumar et al. 2020).

One update: the critic, actor, temperature and multiplier losses are evaluated at the same
parameters and summed; stop-gradients confine each loss to the parameters it trains.

Shapes: E critics, B states, N sampled actions, A action dimensions.
"""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from offline_cql import losses
from offline_cql.agents.base import (
    Agent,
    Policy,
    gaussian_actor,
    set_learning_rate,
)
from offline_cql.agents.distributions import TanhGaussian
from offline_cql.agents.penalty import ConservativePenalty
from offline_cql.agents.schedules import half_cosine
from offline_cql.config import AlphaScheduleConfig, CqlConfig, NetworkConfig
from offline_cql.networks import ActionCritics, ObservationStatistics, PolicyAverage, lerp_targets
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Batch, Spaces

SMALLEST_Q = 1e-6  # lower bound of mean |Q|, the divisor of Q in the actor's loss with bc_weight


class Noise(NamedTuple):
    """The random numbers of one update: n actions per proposal distribution, M for the target."""

    uniform: Tensor  # [n, B, A] in [−1, 1]
    current: Tensor  # [n, B, A] standard normal, as all below
    next: Tensor  # [n, B, A]
    actor: Tensor  # [1, B, A]
    backup: Tensor  # [M, B, A]


class ContinuousCQL(Agent):
    """Tanh-Gaussian actor, E stacked critics, automatic temperature, conservative gap."""

    bc_weight: Tensor  # set in place: a replayed CUDA graph reads the same memory
    largest_weight: Tensor  # that a transition had in the penalty

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
        self.actor = gaussian_actor(spaces, network, bf16=self.bf16)
        self.policy_average = PolicyAverage(self.actor, network.policy_ema)
        self.critic = ActionCritics(
            network.n_critics,
            spaces.observation_dim,
            spaces.action_dim,
            network.critic_hidden,
            orthogonal=network.orthogonal_critic,
            norm=network.critic_norm,
            bf16=self.bf16,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(cql.temperature_initial)))
        self.penalty = ConservativePenalty(cql, alpha_schedule)
        self.target_entropy = (
            -float(spaces.action_dim) if cql.target_entropy is None else cql.target_entropy
        )
        self.register_buffer("bc_weight", torch.zeros(()), persistent=False)
        self.register_buffer("largest_weight", torch.ones(()), persistent=False)

    def policy(self) -> Policy:
        return Policy(self.policy_average.acting(self.actor), "tanh_gaussian")

    def parameter_groups(self) -> list[dict[str, Any]]:
        critic, actor = list(self.critic.parameters()), list(self.actor.parameters())
        temperature, cql = [self.log_temperature], self.cql
        return [
            {"name": "critic", "params": critic, "lr": cql.critic_learning_rate},
            {"name": "actor", "params": actor, "lr": cql.actor_learning_rate},
            {"name": "temperature", "params": temperature, "lr": cql.temperature_learning_rate},
            *self.penalty.parameter_groups(),
        ]

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """Set alpha, the learning rates and the weight of the cloning term in the actor's loss."""
        cql = self.cql
        self.penalty.set_alpha(self.updates)
        factor = self.decay(1.0, cql.learning_rate_final)
        actor = cql.bc_learning_rate if self.actor_clones else factor * cql.actor_learning_rate
        set_learning_rate(optimizer, "actor", actor)
        if cql.learning_rate_final is not None:
            set_learning_rate(optimizer, "critic", factor * cql.critic_learning_rate)
        if cql.bc_weight is not None:
            self.bc_weight.fill_(self.decay(cql.bc_weight, cql.bc_weight_final))

    def decay(self, start: float, final: float | None) -> float:
        """Return the value on a half cosine from `start` to `final`; `start` if `final` is None.

        The half cosine goes from update cql.bc_updates, when behavior cloning ends, to
        cql.decay_until.
        """
        begin, end = self.cql.bc_updates, self.cql.decay_until
        return half_cosine(self.updates, start=start, final=final, begin=begin, end=end)

    def graph_key(self) -> tuple[bool, ...]:
        return self.actor_clones, self.penalty.penalized

    @property
    def actor_clones(self) -> bool:
        """True for the first `cql.bc_updates` updates: the actor's loss is behavior cloning."""
        return self.updates < self.cql.bc_updates

    def sample_rank_noise(self, states: int) -> Noise:
        """Sample the noise of the global batch; return the slice for this rank's states."""
        assert self.noise is not None
        noise = self.sample_noise(states * self.world_size, self.noise)
        return Noise(*(self.rank_slice(part, dim=1) for part in noise))

    def sample_noise(self, states: int, generator: torch.Generator) -> Noise:
        """Sample the noise of one update for B states."""
        n, actions = self.cql.n_action_samples, self.spaces.action_dim
        backups = n if self.cql.backup == "max" else 1
        options: dict[str, Any] = {"generator": generator, "device": self.device}
        uniform = torch.rand(n, states, actions, **options).mul_(2.0).sub_(1.0)
        normal = torch.randn(2 * n + 1 + backups, states, actions, **options)
        return Noise(uniform, *torch.split(normal, [n, n, 1, backups]))

    def compute_losses(
        self, batch: Batch, *, log_metrics: bool, noise: Noise | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss of one update and its metrics; sample the noise if it is None."""
        noise = self.sample_rank_noise(len(batch.reward)) if noise is None else noise
        batch = batch.clip_actions(self.cql.action_clip)
        observation = self.statistics(batch.observation)
        dist = TanhGaussian(*self.actor(observation))
        critic, metrics = self.critic_losses(
            batch, observation, dist, noise, log_metrics=log_metrics
        )
        policy, policy_metrics = self.policy_losses(
            batch, observation, dist, noise, log_metrics=log_metrics
        )
        return critic + policy, metrics | policy_metrics

    def critic_losses(
        self,
        batch: Batch,
        observation: Tensor,
        dist: TanhGaussian,
        noise: Noise,
        *,
        log_metrics: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return TD loss + conservative loss + multiplier loss, and their metrics.

        No gradient reaches the actor.
        """
        penalized = self.penalty.penalized
        with torch.no_grad():
            next_observation = self.statistics(batch.next_observation)
            next_dist = TanhGaussian(*self.actor(next_observation))
            target = self.bellman_target(batch, next_observation, next_dist, noise)
            if penalized or log_metrics:
                proposals, log_prob = self.proposals(dist, next_dist, noise)
        logged = batch.action.unsqueeze(1)
        if penalized:
            q = self.critic(observation, torch.cat([logged, proposals], dim=1))
        else:
            q = self.critic(observation, logged)
        td = losses.critic_td_loss(q[..., 0], target)
        self.note_values(q[..., 0], target)
        if not penalized and not log_metrics:
            return td, {}
        if not penalized:  # plain SAC evaluates proposals for the metrics only
            with torch.no_grad():
                q = torch.cat([q, self.critic(observation, proposals)], dim=2)
        gap = self.gap(q[..., 1:], log_prob, q[..., 0], batch.return_to_go)
        loss = td
        if penalized:
            loss = td + self.penalty.loss(self.weighted(gap, batch))
            self.note_weights(batch)
        if not log_metrics:
            return loss, {}
        return loss, {
            "critic/td_loss": td.detach(),
            "critic/gap": gap.detach().mean(),
            "critic/q_logged": q[..., 0].detach().mean(),
            **self.uniform_value(q[..., 1:]),
            "critic/q_abs_max": q.detach().abs().max(),
            "critic/target": target.mean(),
            **self.penalty.metrics(),
        }

    def policy_losses(
        self,
        batch: Batch,
        observation: Tensor,
        dist: TanhGaussian,
        noise: Noise,
        *,
        log_metrics: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return actor loss + temperature loss, and their metrics; no gradient reaches the critics.

        For the first `cql.bc_updates` updates the actor's loss is behavior cloning, so that the
        critics first learn the values of the behavior policy. The temperature does not change
        then, and never with `cql.bc_weight`.
        """
        action, log_prob = dist.sample(noise.actor)
        log_prob = log_prob.squeeze(1)
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        q = functional_call(self.critic, frozen, (observation, action)).squeeze(2)
        temperature = self.log_temperature.detach().exp()
        temperature_loss = losses.temperature_loss(
            self.log_temperature, log_prob, target_entropy=self.target_entropy
        )
        if self.actor_clones or self.cql.bc_weight is not None:
            temperature_loss = 0.0 * temperature_loss  # DDP needs a gradient of every parameter
        if self.actor_clones:
            actor = losses.behavior_cloning_loss(self.cloned_log_prob(dist, batch))
        elif self.cql.bc_weight is not None:
            log_prob_logged = self.cloned_log_prob(dist, batch)
            weighted = self.weighted(q, batch)
            scale = self.global_mean(weighted.detach().amin(dim=0).abs().mean())
            actor = losses.cloning_actor_loss(
                weighted,
                log_prob_logged,
                bc_weight=self.bc_weight,
                q_scale=scale.clamp(min=SMALLEST_Q),
            )
        else:
            actor = losses.actor_loss(q, log_prob, temperature=temperature)
        loss = actor + temperature_loss
        if not log_metrics:
            return loss, {}
        return loss, {
            "critic/q_policy": q.detach().mean(),
            "actor/loss": actor.detach(),
            "actor/entropy": -log_prob.detach().mean(),
            "actor/temperature": temperature,
        }

    def weighted(self, values: Tensor, batch: Batch) -> Tensor:
        """Return values [E, B] times the weights of cloning with cql.return_weighted."""
        return batch.cloning_weight * values if self.cql.return_weighted else values

    def note_weights(self, batch: Batch) -> None:
        """Note the largest weight that a transition had in the penalty, without a wait."""
        if self.cql.return_weighted:
            largest = batch.cloning_weight.max()
            torch.maximum(self.largest_weight, largest, out=self.largest_weight)

    def cloned_log_prob(self, dist: TanhGaussian, batch: Batch) -> Tensor:
        """Return the weighted log-density [B] of the logged actions, as cloning sees them."""
        log_prob = dist.log_prob(batch.action, saturated=self.cql.bc_saturated_action)
        return batch.cloning_weight * log_prob

    def bellman_target(
        self,
        batch: Batch,
        next_observation: Tensor,
        next_dist: TanhGaussian,
        noise: Noise,
    ) -> Tensor:
        """Return the critics' target [B], with actions that the policy samples in the next state.

        With cql.critic_warmup=returns it is the logged return-to-go while the actor clones.
        """
        if self.cql.critic_warmup == "returns" and self.actor_clones:
            return batch.return_to_go
        action, log_prob = next_dist.sample(noise.backup)
        q_target = self.target_critic(next_observation, action)
        if self.cql.target_critics is not None:
            q_target = q_target[self.draw_critics(len(q_target), self.cql.target_critics)]
        if self.cql.backup == "entropy":
            temperature = self.log_temperature.exp()
            value = losses.sampled_value(q_target, log_prob, temperature=temperature)
        else:
            value = losses.sampled_value(q_target, None)
        return losses.bellman_target(batch.reward, batch.discount, value)

    def proposals(
        self, dist: TanhGaussian, next_dist: TanhGaussian, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Return the sampled actions [B, N, A] of the gap and their log_prob [B, N].

        All are evaluated by the critics at the current state, also those sampled from the policy at
        the next state. log_prob is that of the distribution each action was sampled from, as
        importance sampling requires.
        """
        uniform = noise.uniform.transpose(0, 1)
        low, high = -torch.ones_like(uniform[0, 0]), torch.ones_like(uniform[0, 0])
        uniform_log_prob = losses.uniform_log_prob(low, high).expand(uniform.shape[:2])
        current = dist.sample(noise.current)
        if self.cql.penalty == "expectation":
            if self.cql.expectation_over == "uniform":
                return uniform, uniform_log_prob
            return current
        samples = [(uniform, uniform_log_prob), current, next_dist.sample(noise.next)]
        actions, log_probs = zip(*samples, strict=True)
        return torch.cat(actions, dim=1), torch.cat(log_probs, dim=1)

    def gap(
        self, q_proposed: Tensor, log_prob: Tensor, q_logged: Tensor, return_to_go: Tensor
    ) -> Tensor:
        """Return the gap [E, B], clipped to cql.gap_min and cql.gap_max, not scaled by alpha."""
        cql = self.cql
        if cql.calibrated:  # bounds the policy's actions, not the uniform ones
            uniform, sampled = q_proposed.tensor_split([cql.n_action_samples], dim=2)
            sampled = losses.calibrated_value(sampled, return_to_go)
            q_proposed = torch.cat([uniform, sampled], dim=2)
        if cql.penalty == "expectation":
            gap = losses.expectation_gap(q_proposed, q_logged)
        elif not cql.importance_sampling:
            gap = losses.unweighted_gap(q_proposed, q_logged, temperature=cql.gap_temperature)
        else:
            gap = losses.conservative_gap(
                q_proposed, log_prob, q_logged, temperature=cql.gap_temperature
            )
        return losses.clip_gap(gap, minimum=cql.gap_min, maximum=cql.gap_max)

    def uniform_value(self, q_proposed: Tensor) -> dict[str, Tensor]:
        """Return the mean Q of the uniform actions; an empty dict if the penalty samples none."""
        cql = self.cql
        if cql.penalty == "expectation" and cql.expectation_over == "policy":
            return {}
        return {"critic/q_uniform": q_proposed[..., : cql.n_action_samples].detach().mean()}

    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Return the validation metrics, [B] each.

        td_error and q_policy use the policy's deterministic action; the gap uses sampled actions as
        in training, with the same noise at every evaluation.
        """
        batch = batch.clip_actions(self.cql.action_clip)
        observation = self.statistics(batch.observation)
        next_observation = self.statistics(batch.next_observation)
        actor = self.policy().network
        dist = TanhGaussian(*actor(observation))
        next_dist = TanhGaussian(*actor(next_observation))
        generator = torch.Generator(self.device).manual_seed(RandomStream.VALIDATION_NOISE)
        noise = self.sample_noise(len(batch.reward), generator)
        proposals, log_prob = self.proposals(dist, next_dist, noise)
        logged_and_mode = torch.stack([batch.action, dist.mode()], dim=1)
        q = self.critic(observation, torch.cat([logged_and_mode, proposals], dim=1))
        q_next = self.target_critic(next_observation, next_dist.mode().unsqueeze(1))
        value = losses.sampled_value(q_next, None)
        target = losses.bellman_target(batch.reward, batch.discount, value)
        return {
            "td_error": (q[..., 0] - target).square().mean(dim=0),
            "gap": self.gap(q[..., 2:], log_prob, q[..., 0], batch.return_to_go).mean(dim=0),
            "q_logged": q[..., 0].mean(dim=0),
            "q_policy": q[..., 1].mean(dim=0),
            **dist.policy_metrics(batch, saturated=self.cql.bc_saturated_action),
        }

    def bonus(self) -> Tensor:
        """Return the penalty's largest push, plus the largest entropy bonus of the target."""
        push = self.largest_weight * self.penalty.largest_push()
        if self.cql.backup != "entropy":
            return push
        return push + self.log_temperature.detach().exp() * self.spaces.action_dim * math.log(2)

    @torch.no_grad()
    def after_step(self) -> None:
        lerp_targets(self.target_critic, self.critic, self.cql.polyak)
        self.policy_average.update(self.actor)
        self.penalty.clamp()
