"""A baseline for benchmarks/updates.py: continuous CQL written as single-file implementations are.

Separate critics, the actor run on observations repeated for every sampled action, one optimizer and
one backward pass per network, targets averaged parameter by parameter, and 25 numbers fetched with
`.item()` at every update. The losses are those of `cql=plain` with a fixed alpha.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

GAMMA, TAU, ALPHA = 0.99, 0.005, 5.0


def perceptron(inputs: int, outputs: int, hidden: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Actor(nn.Module):
    def __init__(self, observation_dim: int, action_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = perceptron(observation_dim, 2 * action_dim, hidden)

    def forward(self, observation: Tensor, repeat: int | None = None) -> tuple[Tensor, Tensor]:
        if repeat is not None:
            observation = observation.unsqueeze(1).repeat(1, repeat, 1)
        mean, log_std = self.network(observation).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        raw = normal.rsample()
        slope = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
        return torch.tanh(raw), (normal.log_prob(raw) - slope).sum(dim=-1)


class Critic(nn.Module):
    def __init__(self, observation_dim: int, action_dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.network = perceptron(observation_dim + action_dim, 1, hidden)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        if action.dim() == 3:
            observation = observation.unsqueeze(1).repeat(1, action.shape[1], 1)
        value: Tensor = self.network(torch.cat([observation, action], dim=-1)).squeeze(-1)
        return value


class BaselineCQL:
    """Twin critics, an actor and a temperature; `update` trains on one batch."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden: tuple[int, ...],
        n_action_samples: int,
    ) -> None:
        sizes = (observation_dim, action_dim, hidden)
        self.actor = Actor(*sizes)
        self.critics = [Critic(*sizes) for _ in range(2)]
        self.targets = [Critic(*sizes) for _ in range(2)]
        for target, critic in zip(self.targets, self.critics, strict=True):
            target.load_state_dict(critic.state_dict())
        self.log_alpha = torch.zeros((), requires_grad=True)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-5)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=3e-4)
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), lr=3e-4) for c in self.critics]
        self.n_action_samples, self.action_dim = n_action_samples, action_dim

    def update(self, batch: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> dict[str, float]:
        """Make one update; return 25 metrics."""
        observation, action, reward, next_observation, done = batch
        new_action, log_pi = self.actor(observation)
        alpha_loss = -(self.log_alpha.exp() * (log_pi - self.action_dim).detach()).mean()
        temperature = self.log_alpha.exp().detach()
        q_new = [critic(observation, new_action) for critic in self.critics]
        actor_loss = (temperature * log_pi - torch.minimum(*q_new)).mean()

        with torch.no_grad():
            next_action, next_log_pi = self.actor(next_observation)
            next_q = torch.minimum(
                *[target(next_observation, next_action) for target in self.targets]
            )
            y = reward + GAMMA * (1 - done) * next_q
        q_logged = [critic(observation, action) for critic in self.critics]
        td = [functional.mse_loss(q, y) for q in q_logged]

        shape = (len(reward), self.n_action_samples, self.action_dim)
        uniform = torch.empty(shape).uniform_(-1, 1)
        current, current_log_prob = self.actor(observation, repeat=self.n_action_samples)
        next_sampled, next_log_prob = self.actor(next_observation, repeat=self.n_action_samples)
        current, next_sampled = current.detach(), next_sampled.detach()
        uniform_log_prob = -self.action_dim * math.log(2.0)
        gaps, sampled = [], []
        for critic, q in zip(self.critics, q_logged, strict=True):
            q_uniform = critic(observation, uniform)
            q_current = critic(observation, current)
            q_next = critic(observation, next_sampled)
            joined = torch.cat(
                [
                    q_uniform - uniform_log_prob,
                    q_next - next_log_prob.detach(),
                    q_current - current_log_prob.detach(),
                ],
                dim=1,
            )
            gaps.append((torch.logsumexp(joined, dim=1) - q).mean())
            sampled.append((q_uniform, q_current, q_next))
        critic_losses = [t + ALPHA * g for t, g in zip(td, gaps, strict=True)]

        self.alpha_optimizer.zero_grad()
        alpha_loss.backward()
        self.alpha_optimizer.step()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        self.actor_optimizer.step()
        for loss, optimizer in zip(critic_losses, self.critic_optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for target, critic in zip(self.targets, self.critics, strict=True):
            for slow, fast in zip(target.parameters(), critic.parameters(), strict=True):
                slow.data.copy_((1 - TAU) * slow.data + TAU * fast.data)

        metrics = {
            "log_pi": log_pi.mean(),
            "alpha": temperature,
            "alpha_loss": alpha_loss,
            "actor_loss": actor_loss,
            "target": y.mean(),
            "reward": reward.mean(),
            "next_log_pi": next_log_pi.mean(),
        }
        for k in (0, 1):
            metrics |= {
                f"td_{k}": td[k],
                f"gap_{k}": gaps[k],
                f"loss_{k}": critic_losses[k],
                f"q_{k}": q_logged[k].mean(),
                f"q_std_{k}": q_logged[k].std(),
                f"q_max_{k}": q_logged[k].max(),
                f"uniform_{k}": sampled[k][0].mean(),
                f"current_{k}": sampled[k][1].mean(),
                f"next_{k}": sampled[k][2].mean(),
            }
        return {name: value.item() for name, value in metrics.items()}
