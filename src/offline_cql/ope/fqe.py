"""Fitted Q evaluation: what a fixed policy is worth, learned from the transitions of another.

Le, Voloshin & Yue 2019; the interval by bootstrapping episodes as in Hao et al. 2021. M critics
are stacked and trained in one program; each has its own bootstrap replicate of the episodes and
its own initial weights. Knows nothing of agents: a policy is the actions it takes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.data.module import Fetch
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import everything
from offline_cql.networks import ActionCritics, StackedMLP
from offline_cql.ope.estimate import Estimate, episode_draws, spread
from offline_cql.transitions import Transitions

FQE_STREAM = 0xF9E
ASSUMPTIONS = (
    "the data cover the actions that the policy takes",
    "the next state depends on the logged observation and action alone",
    "the critics can represent the policy's values",
    "the policy will start where the logged episodes start",
)


@dataclass(frozen=True, kw_only=True)
class FqeSettings:
    """ensemble_size: critics; learning_rate falls to 0 along a cosine; polyak: of the target critics."""

    ensemble_size: int
    hidden: list[int]
    updates: int
    batch_size: int
    learning_rate: float
    polyak: float
    gamma: float
    seed: int


@dataclass(frozen=True, eq=False)
class PolicyActions:
    """What the policy does, actions inside: [., A] in [-1, 1] or [.] int64.

    next: at each transition's next observation, N; initial: at each episode's first, E.
    """

    next: Tensor
    initial: Tensor


Act = Callable[[Tensor], Tensor]  # a deterministic policy: observations [K, D] to inside actions


def policy_actions(transitions: Transitions, act: Act) -> PolicyActions:
    """Ask a policy at every place that its evaluation needs."""
    first = transitions.observations[transitions.starts]
    return PolicyActions(actions_at(transitions.next_observations, act), actions_at(first, act))


@torch.no_grad()
def actions_at(observations: np.ndarray, act: Act) -> Tensor:
    """What a policy does at observations [N, D], a part at a time."""
    chunks = torch.split(torch.from_numpy(np.ascontiguousarray(observations)).float(), 65_536)
    return torch.cat([act(chunk) for chunk in chunks])


class FittedQ:
    """The critics of one policy, and the data as they read them; `fit`, then `estimate`.

    The target r + gamma · (1 − terminated) · Q'(s', π(s')) has a member's own slowly following
    critic Q'. Rewards are divided by their mean size times the horizon 1 / (1 − gamma), so that
    values are near 1 whatever the units. Every critic starts at the behavior's mean value: a fit
    that is cut short errs towards "no better than the data", not towards 0.
    """

    def __init__(
        self, transitions: Transitions, actions: PolicyActions, settings: FqeSettings
    ) -> None:
        self.settings, self.spaces, self.actions = settings, transitions.spaces, actions
        generator = np.random.default_rng([settings.seed, FQE_STREAM])
        self.generator = torch.Generator().manual_seed(int(generator.integers(2**31)))
        draws = episode_draws(len(transitions.ends), settings.ensemble_size, generator)
        self.draws = torch.from_numpy(draws)
        self.episodes = torch.from_numpy(transitions.episodes).long()
        self.fetch = Fetch(
            transitions,
            everything(transitions),
            gamma=settings.gamma,
            reward_scale=1.0,
            reward_shift=0.0,
            n_step=1,
        )
        self.starts = torch.from_numpy(transitions.starts)
        horizon = 1.0 / (1.0 - settings.gamma)
        size = float(np.abs(transitions.rewards).mean(dtype=np.float64))
        self.scale = size * horizon or 1.0
        sample = self.fetch(self.sample(10_000)).observation
        self.mean, self.std = sample.mean(dim=0), sample.std(dim=0).clamp(min=1e-3)
        self.critics = self.make_critics()
        returns = continued_returns(
            transitions.rewards, transitions.terminated, transitions.ends, gamma=settings.gamma
        )
        with torch.no_grad():
            self.head_bias().fill_(float(returns.mean()) / self.scale)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.critics.parameters(), fused=True)

    def fit(self, on_update: Callable[[], None] = lambda: None) -> FittedQ:
        """All updates; on_update is called after each."""
        for number in range(self.settings.updates):
            self.update(number)
            on_update()
        return self

    def estimate(self) -> Estimate:
        """The policy's discounted return from the first states of the logged episodes."""
        mean, low, high = spread(self.values())
        return Estimate(method="fqe", value=mean, low=low, high=high, assumptions=ASSUMPTIONS)

    def make_critics(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):  # the global generator is left as it was
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.generator)))
            return self._new_critics()

    def _new_critics(self) -> torch.nn.Module:
        spaces, settings = self.spaces, self.settings
        if spaces.discrete:
            return StackedMLP(
                settings.ensemble_size,
                spaces.observation_dim,
                settings.hidden,
                spaces.action_dim,
                orthogonal=False,
                bf16=False,
            )
        return ActionCritics(
            settings.ensemble_size,
            spaces.observation_dim,
            spaces.action_dim,
            settings.hidden,
            orthogonal=False,
            bf16=False,
        )

    def head_bias(self) -> Tensor:
        """The last layer's bias of all members."""
        network = self.critics if self.spaces.discrete else self.critics.mlp
        assert isinstance(network, StackedMLP)
        bias: Tensor = network.biases[-1]
        return bias

    def sample(self, size: int) -> Tensor:
        return torch.randint(self.fetch.size, (size,), generator=self.generator)

    def q(self, critics: torch.nn.Module, observation: Tensor, action: Tensor) -> Tensor:
        """Each member's value [M, B] of observations [B, D] and inside actions."""
        observation = (observation - self.mean) / self.std
        if not self.spaces.discrete:
            found: Tensor = critics(observation, action.unsqueeze(1)).squeeze(2)
            return found
        return losses.chosen(critics(observation), action)

    def update(self, number: int) -> None:
        settings = self.settings
        decay = 0.5 * (1.0 + math.cos(math.pi * number / settings.updates))
        self.optimizer.param_groups[0]["lr"] = settings.learning_rate * decay
        rows = self.sample(settings.batch_size)
        batch = self.fetch(rows)
        with torch.no_grad():
            value = self.q(self.targets, batch.next_observation, self.actions.next[rows])
            target = batch.reward / self.scale + batch.discount * value
        error = self.q(self.critics, batch.observation, batch.action) - target
        # A member sees an episode as often as its replicate drew it.
        loss = (self.draws[:, self.episodes[rows]] * error.square()).mean(dim=1).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            slow: list[Tensor] = list(self.targets.parameters())
            torch._foreach_lerp_(slow, list(self.critics.parameters()), settings.polyak)

    @torch.no_grad()
    def logged_values(self, action: Tensor) -> np.ndarray:
        """The members' mean value [N], in reward units, of one action at each observation [N]."""
        parts = [
            self.q(self.critics, self.fetch(rows).observation, action[rows]).mean(dim=0)
            for rows in torch.split(torch.arange(self.fetch.size), 16_384)
        ]
        return torch.cat(parts).double().numpy() * self.scale

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """Each member's mean value [M] of the initial states that its replicate drew."""
        first = self.fetch(self.starts).observation
        values = self.q(self.critics, first, self.actions.initial) * self.scale
        means = (self.draws * values).sum(dim=1) / self.draws.sum(dim=1)
        return means.double().numpy()
