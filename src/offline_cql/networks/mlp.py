"""Stacked perceptrons, a tanh-Gaussian actor, observation statistics, action bounds."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

SQRT_2 = math.sqrt(2.0)
ORTHOGONAL_HEAD_GAIN = 1e-2


class StackedMLP(nn.Module):
    """E perceptrons of one shape with ReLU between layers, one batched product per layer.

    Maps [B, inputs] to [E, B, outputs]. Each member has its own weights, drawn one after the
    other: uniform in ±1/√fan_in, or orthogonal (gain √2, head 0.01, biases 0).
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        orthogonal: bool,
        bf16: bool,
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            gain = ORTHOGONAL_HEAD_GAIN if layer == len(hidden) else SQRT_2
            weight = torch.empty(members, fan_in, fan_out)
            bias = torch.zeros(members, 1, fan_out)
            for member in range(members):
                if orthogonal:
                    nn.init.orthogonal_(weight[member], gain)
                else:
                    bound = 1.0 / math.sqrt(fan_in)
                    nn.init.uniform_(weight[member], -bound, bound)
                    nn.init.uniform_(bias[member], -bound, bound)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
        self.bf16 = bf16 and len(hidden) > 0  # the last layer is never rounded

    def forward(self, inputs: Tensor) -> Tensor:
        members, last = self.weights[0].shape[0], len(self.weights) - 1
        dtype = torch.bfloat16 if self.bf16 else inputs.dtype
        hidden = inputs.to(dtype).expand(members, *inputs.shape)
        for weight, bias in zip(self.weights[:last], self.biases[:last], strict=True):
            hidden = functional.relu(torch.baddbmm(bias.to(dtype), hidden, weight.to(dtype)))
        head = self.weights[last]
        return torch.baddbmm(self.biases[last], hidden.to(head.dtype), head)


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


class ObservationStatistics(nn.Module):
    """(observation − mean) / std with the data's statistics, held as buffers of the policy.

    Columns that hardly vary (std below 1e-6) are only centered: dividing would blow up noise.
    Not normalizing is mean 0 and std 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", torch.where(std < 1e-6, 1.0, std).float())

    def forward(self, observation: Tensor) -> Tensor:
        return (observation - self.mean) / self.std


class ActionBounds(nn.Module):
    """From [−1, 1] to the environment's bounds [low, high], per dimension, as buffers."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    def forward(self, action: Tensor) -> Tensor:
        return self.low + 0.5 * (action + 1.0) * (self.high - self.low)
