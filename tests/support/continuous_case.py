"""Build a continuous agent in float64, a batch and its noise, also in the reference's layout."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from support.builders import (
    as_reference,
    attach,
    batch_of,
    build,
    continuous_data,
    in_double,
    settings,
)

from offline_cql.agents.cql_continuous import Noise
from offline_cql.transitions import Batch

STATES, MEAN, STD = 4, 0.5, 2.0
NARROW = ["network.actor_hidden=[3]", "network.critic_hidden=[3]", f"batch_size={STATES}"]


class Case(NamedTuple):
    """An agent in float64 whose target critics differ from its critics, one batch and its noise."""

    agent: Any
    batch: Batch
    noise: Noise

    def loss(self, **changed: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return loss and metrics; changed: another batch or noise."""
        batch, noise = changed.get("batch", self.batch), changed.get("noise", self.noise)
        return self.agent.compute_losses(batch, noise=noise, log_metrics=True)

    def gradients(self, **changed: Any) -> dict[str, torch.Tensor]:
        """Return the gradient of the loss by parameter name."""
        self.agent.zero_grad()
        self.loss(**changed)[0].backward()
        named = self.agent.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.requires_grad}


def make_case(*overrides: str) -> Case:
    """Return a Case with the settings of `python train.py <overrides>`."""
    config = settings(*NARROW, *overrides)
    data = continuous_data()
    agent = build(config, data.spaces, mean=MEAN, std=STD).double()
    attach(agent)
    with torch.no_grad():
        for parameter in agent.target_critic.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    noise = Noise(*(part.double() for part in agent.sample_rank_noise(STATES)))
    batch = in_double(batch_of(data, [3, 15, 16, 40]))  # the second one ends in a terminal state
    return Case(agent, batch, noise)


def reference_arguments(case: Case) -> dict[str, Any]:
    """Return the arguments of the reference in its layout; observations are normalized by hand."""
    agent, cql = case.agent, case.agent.cql
    n_critics = len(agent.critic.mlp.weights[0])
    arrays = {name: value.numpy() for name, value in case.batch._asdict().items()}
    for name in ("observation", "next_observation"):
        arrays[name] = (arrays[name] - MEAN) / STD
    if cql.action_clip is not None:
        arrays["action"] = np.clip(arrays["action"], -cql.action_clip, cql.action_clip)
    noise = {name: value.numpy().swapaxes(0, 1) for name, value in case.noise._asdict().items()}
    lagrange = cql.target_gap is not None
    return {
        "batch": arrays,
        "noise": noise | {"actor": noise["actor"][:, 0]},
        "actor": as_reference(agent.actor.mlp),
        "critics": [as_reference(agent.critic.mlp, e) for e in range(n_critics)],
        "target_critics": [as_reference(agent.target_critic.mlp, e) for e in range(n_critics)],
        "alpha": cql.alpha,
        "temperature": math.exp(agent.log_temperature.item()),
        "multiplier": math.exp(agent.penalty.log_multiplier.item()) if lagrange else 1.0,
        "target_gap": cql.target_gap if lagrange else 0.0,
        "target_entropy": agent.target_entropy,
        "gap_temperature": cql.gap_temperature,
        "gap_limits": (cql.gap_min, cql.gap_max),
        "backup": cql.backup,
        "log_std_limits": (agent.actor.log_std_min, agent.actor.log_std_max),
    }
