"""Fitted Q evaluation (FQE): the value of a fixed policy, learned from logged transitions.

Le, Voloshin & Yue 2019; intervals by bootstrapping episodes as in Hao et al. 2021. The critics of
an ensemble are stacked and trained together; each has its own bootstrap replicate of the episodes
and its own initial weights. A policy enters only through the actions it takes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.config import OpeConfig
from offline_cql.data.dataset import TransitionDataset
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import train_on_all
from offline_cql.data.statistics import sample_statistics
from offline_cql.networks import ActionCritics, StackedMLP
from offline_cql.ope.estimate import UNSEEN, Estimate, bootstrap_counts, bootstrap_interval
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Transitions

ASSUMPTIONS = (
    UNSEEN,
    "the data cover the actions that the policy takes",
    "the next state depends only on the logged observation and action",
    "the critics can represent the policy's values",
    "the policy will start where the logged episodes start",
)

BEYOND = "the critics are right about what follows the ends of truncated episodes"

# A deterministic policy: observations [K, D] to actions, [K, A] in [-1, 1] or [K] int64.
DeterministicPolicy = Callable[[Tensor], Tensor]


@torch.no_grad()
def actions_at(observations: npt.NDArray[np.generic], policy: DeterministicPolicy) -> Tensor:
    """Return the policy's actions at observations [N, D], computed in chunks."""
    chunks = torch.split(torch.from_numpy(np.ascontiguousarray(observations)).float(), 65_536)
    return torch.cat([policy(chunk) for chunk in chunks])


class FittedQEvaluation:
    """An ensemble of critics fitted to one policy: call `fit`, then `estimate`.

    Each critic Q regresses on r + gamma · (1 − terminated) · Q'(s', π(s')), where Q' is its own
    target critic. Rewards are divided by mean |r| / (1 − gamma), so that values are near 1 in any
    unit. Every critic starts at the behavior policy's mean value, so that too few updates err
    towards "no better than the data", not towards 0.

    M critics (`ope.ensemble_size`), B transitions per update (`ope.batch_size`); the learning rate
    falls to 0 along a cosine; polyak is the share of the new weights that the targets take per
    update.
    """

    def __init__(
        self,
        transitions: Transitions,
        policy: DeterministicPolicy,
        ope: OpeConfig,
        *,
        gamma: float,
    ) -> None:
        self.ope, self.discrete = ope, transitions.spaces.discrete
        self.next_actions = actions_at(transitions.next_observations, policy)
        first = transitions.observations[transitions.starts]
        self.initial_actions = actions_at(first, policy)
        rng = np.random.default_rng([ope.seed, RandomStream.FITTED_Q])
        self.generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        # [M, episodes]: how often each critic's replicate contains each episode.
        counts = bootstrap_counts(len(transitions.ends), ope.ensemble_size, rng)
        self.counts = torch.from_numpy(counts)
        self.episodes = torch.from_numpy(transitions.episodes).long()
        self.starts = torch.from_numpy(transitions.starts)
        self.lengths = transitions.episode_times()
        self.truncated_ends = torch.from_numpy(np.flatnonzero(transitions.truncated))
        self.dataset = TransitionDataset(
            transitions,
            train_on_all(transitions),
            gamma=gamma,
            reward_scale=1.0,
            reward_shift=0.0,
            n_step=1,
        )
        mean_size = float(np.abs(transitions.rewards).mean(dtype=np.float64))
        self.scale = mean_size / (1.0 - float(np.mean(transitions.discounts(gamma)))) or 1.0
        sample = self.dataset[self.sample_indices(10_000)].observation
        self.mean, self.std = sample_statistics(sample)
        self.critics = self._new_critics(transitions)
        self._initialize_at_behavior_value(transitions, gamma)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.critics.parameters(), fused=True)

    def fit(self, on_update: Callable[[], None] = lambda: None) -> FittedQEvaluation:
        """Make all updates and return self; on_update is called after each."""
        for update in range(self.ope.updates):
            self.update(update)
            on_update()
        return self

    def estimate(self) -> Estimate:
        """Return the policy's discounted return from the first states of the logged episodes."""
        mean, low, high = bootstrap_interval(self.initial_values())
        truncated = bool(len(self.truncated_ends))
        return Estimate(
            method="fqe",
            value=mean,
            low=low,
            high=high,
            assumptions=(*ASSUMPTIONS, BEYOND) if truncated else ASSUMPTIONS,
            extrapolated=self.extrapolated(),
        )

    def update(self, update: int) -> None:
        """Make one update of all critics; `update` counts from 0 and sets the learning rate."""
        decay = 0.5 * (1.0 + math.cos(math.pi * update / self.ope.updates))
        self.optimizer.param_groups[0]["lr"] = self.ope.learning_rate * decay
        indices = self.sample_indices(self.ope.batch_size)
        batch = self.dataset[indices]
        with torch.no_grad():
            value = self.q(self.targets, batch.next_observation, self.next_actions[indices])
            target = batch.reward / self.scale + batch.discount * value
        error = self.q(self.critics, batch.observation, batch.action) - target
        # The bootstrap by weights: a transition counts as often as its episode was drawn.
        loss = (self.counts[:, self.episodes[indices]] * error.square()).mean(dim=1).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            targets: list[Tensor] = list(self.targets.parameters())
            torch._foreach_lerp_(targets, list(self.critics.parameters()), self.ope.polyak)

    def q(self, critics: torch.nn.Module, observation: Tensor, action: Tensor) -> Tensor:
        """Return each critic's scaled value [M, B] of observations [B, D] and their actions."""
        observation = (observation - self.mean) / self.std
        if self.discrete:
            return losses.action_value(critics(observation), action)
        values: Tensor = critics(observation, action.unsqueeze(1)).squeeze(2)
        return values

    @torch.no_grad()
    def mean_values(self, action: Tensor) -> npt.NDArray[np.float64]:
        """Return the critics' mean value [N], in reward units, of one action per transition."""
        chunks = [
            self.q(self.critics, self.dataset[indices].observation, action[indices]).mean(dim=0)
            for indices in torch.split(torch.arange(len(self.dataset)), 16_384)
        ]
        values: npt.NDArray[np.float64] = torch.cat(chunks).double().numpy() * self.scale
        return values

    @torch.no_grad()
    def initial_values(self) -> npt.NDArray[np.float64]:
        """Return each critic's mean value [M] over the initial states of its own replicate."""
        first = self.dataset[self.starts].observation
        values = self.q(self.critics, first, self.initial_actions) * self.scale
        means = (self.counts * values).sum(dim=1) / self.counts.sum(dim=1)
        return means.double().numpy()

    @torch.no_grad()
    def values_at_ends(self) -> npt.NDArray[np.float64]:
        """Return the critics' mean value [E], in reward units, of what follows each episode.

        It is 0 where the episode terminated, and Q(s', π(s')) of the last s' where it was
        truncated.
        """
        values = np.zeros(len(self.starts))
        rows = self.truncated_ends
        if len(rows):
            following = self.dataset[rows].next_observation
            q = self.q(self.critics, following, self.next_actions[rows]).mean(dim=0)
            values[self.episodes[rows].numpy()] = q.double().numpy() * self.scale
        return values

    def extrapolated(self) -> float:
        """Return the part of the value beyond the ends of truncated episodes.

        It is gamma^T · Q(s_T, π(s_T)), averaged over the logged episodes: exact where the policy
        is the behavior policy, and the amount that no row supports in any case.
        """
        return float((self.dataset.gamma**self.lengths * self.values_at_ends()).mean())

    def sample_indices(self, size: int) -> Tensor:
        """Draw transitions uniformly, with replacement."""
        return torch.randint(len(self.dataset), (size,), generator=self.generator)

    def _new_critics(self, transitions: Transitions) -> torch.nn.Module:
        spaces, hidden = transitions.spaces, self.ope.hidden
        sizes = (self.ope.ensemble_size, spaces.observation_dim)
        with torch.random.fork_rng(devices=[]):  # leaves torch's global generator untouched
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.generator)))
            if spaces.discrete:
                return StackedMLP(*sizes, hidden, spaces.action_dim, orthogonal=False, bf16=False)
            return ActionCritics(*sizes, spaces.action_dim, hidden, orthogonal=False, bf16=False)

    @torch.no_grad()
    def _initialize_at_behavior_value(self, transitions: Transitions, gamma: float) -> None:
        """Set the last layer's bias to the mean return of the logged steps."""
        mlp = self.critics if self.discrete else self.critics.mlp
        assert isinstance(mlp, StackedMLP)
        returns = continued_returns(
            transitions.rewards,
            transitions.terminated,
            transitions.ends,
            gamma=transitions.discounts(gamma),
        )
        bias: Tensor = mlp.biases[-1]
        bias.fill_(float(returns.mean()) / self.scale)
