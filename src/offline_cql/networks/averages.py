"""Exponential moving averages of weights: target networks, and the policy that acts."""

import copy

import torch
from torch import nn


@torch.no_grad()
def lerp_targets(target: nn.Module, online: nn.Module, polyak: float) -> None:
    """Set target ← (1 − polyak) · target + polyak · online, in place, in float32."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), polyak)


class PolicyAverage(nn.Module):
    """The exponential moving average of an actor's weights, which acts instead of the actor.

    After each update average ← decay · average + (1 − decay) · actor; with decay None the actor
    itself acts. Training does not use the average.
    """

    def __init__(self, actor: nn.Module, decay: float | None) -> None:
        super().__init__()
        self.decay = decay
        self.network = None if decay is None else copy.deepcopy(actor).requires_grad_(False)

    def acting(self, actor: nn.Module) -> nn.Module:
        """Return the network that acts: the average, or the actor."""
        return actor if self.network is None else self.network

    def update(self, actor: nn.Module) -> None:
        """Move the average towards the actor."""
        if self.network is not None and self.decay is not None:
            lerp_targets(self.network, actor, 1.0 - self.decay)
