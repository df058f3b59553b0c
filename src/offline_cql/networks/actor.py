"""The tanh-Gaussian policy network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from offline_cql.networks.mlp import StackedMLP


class TanhGaussianActor(nn.Module):
    """Mean and log standard deviation of the Gaussian that tanh squashes into [−1, 1].

    Maps [B, D] to two tensors [B, A]. The log standard deviation is clamped to its bounds; with
    `log_std_affine` it first passes through a trainable multiplier (1) and offset (−1).
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        log_std_min: float,
        log_std_max: float,
        log_std_affine: bool,
        orthogonal: bool,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.mlp = StackedMLP(
            1, observation_dim, hidden, 2 * action_dim, orthogonal=orthogonal, bf16=bf16
        )
        self.log_std_min, self.log_std_max = log_std_min, log_std_max
        self.log_std_affine = log_std_affine
        if log_std_affine:
            self.log_std_multiplier = nn.Parameter(torch.tensor(1.0))
            self.log_std_offset = nn.Parameter(torch.tensor(-1.0))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.mlp(observation).squeeze(0).chunk(2, dim=-1)
        if self.log_std_affine:
            log_std = self.log_std_multiplier * log_std + self.log_std_offset
        return mean, log_std.clamp(self.log_std_min, self.log_std_max)
