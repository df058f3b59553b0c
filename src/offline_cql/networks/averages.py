"""Exponential moving averages of weights: target networks, and the policy that acts."""

import copy

import torch
from torch import Tensor, nn


@torch.no_grad()
def lerp_targets(target: nn.Module, online: nn.Module, polyak: float) -> None:
    """Set target ← (1 − polyak) · target + polyak · online, in place, in float32."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), polyak)


class PolicyAverage(nn.Module):
    """The exponential moving average of an actor's weights, which acts instead of the actor.

    After each update average ← d · average + (1 − d) · actor, d = min(decay, (1 + t) / (10 + t))
    after t updates, so that a young average forgets the initial weights; with decay None the actor
    itself acts. Training does not use the average.
    """

    updates: Tensor  # t, on the device: a CUDA graph counts too

    def __init__(self, actor: nn.Module, decay: float | None) -> None:
        super().__init__()
        self.decay = decay
        self.network = None if decay is None else copy.deepcopy(actor).requires_grad_(False)
        if decay is not None:
            self.register_buffer("updates", torch.zeros(()))

    def acting(self, actor: nn.Module) -> nn.Module:
        """Return the network that acts: the average, or the actor."""
        return actor if self.network is None else self.network

    @torch.no_grad()
    def update(self, actor: nn.Module) -> None:
        """Move the average towards the actor."""
        if self.network is None or self.decay is None:
            return
        weight = (9.0 / (10.0 + self.updates)).clamp(min=1.0 - self.decay)
        for average, current in zip(self.network.parameters(), actor.parameters(), strict=True):
            average.lerp_(current, weight)
        self.updates += 1
