"""Stacked perceptrons: E networks of one shape, evaluated together."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
}
NORMS = ("none", "layer")

SQRT_2 = math.sqrt(2.0)
ORTHOGONAL_HEAD_GAIN = 1e-2


class StackedMLP(nn.Module):
    """E perceptrons of one shape, one batched matrix product per layer.

    Maps [B, inputs] to [E, B, outputs]. A hidden layer is activation(norm(x · W + b)); the last
    layer, the head, is linear. Every member has its own weights, drawn one member after the other:
    uniform in ±1/√fan_in, or orthogonal (gain √2, head 0.01, biases 0). norm "layer" is a LayerNorm
    with a scale and an offset per member (Ball et al. 2023 put it there against overestimation).
    With bf16 the products of the hidden layers are in bfloat16; norm and head stay float32.
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
        activation: str = "relu",
        norm: str = "none",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} must be one of {', '.join(ACTIVATIONS)}")
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}")
        self.activation, self.norm = activation, norm
        self.bf16 = bf16 and len(hidden) > 0  # the head is never rounded
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise([inputs, *hidden, outputs])):
            gain = ORTHOGONAL_HEAD_GAIN if layer == len(hidden) else SQRT_2
            weight, bias = initial_layer(members, fan_in, fan_out, gain if orthogonal else None)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(bias))
        widths = hidden if norm == "layer" else ()
        self.norm_scales = nn.ParameterList([torch.ones(members, 1, width) for width in widths])
        self.norm_offsets = nn.ParameterList([torch.zeros(members, 1, width) for width in widths])

    def forward(self, inputs: Tensor) -> Tensor:
        weight, bias = self.weights[0], self.biases[0]
        dtype = self.hidden_dtype(inputs)
        stacked = inputs.to(dtype).expand(len(weight), *inputs.shape)  # [E, B, inputs]
        return self.after_first(torch.baddbmm(bias.to(dtype), stacked, weight.to(dtype)))

    def after_first(self, sums: Tensor) -> Tensor:
        """Return the outputs [E, B, outputs], given the first layer's sums x · W + b [E, B, H]."""
        for layer in range(1, len(self.weights)):
            weight, bias = self.weights[layer], self.biases[layer]
            hidden = self.activate(sums, layer - 1)
            is_head = layer == len(self.weights) - 1
            dtype = weight.dtype if is_head else sums.dtype
            sums = torch.baddbmm(bias.to(dtype), hidden.to(dtype), weight.to(dtype))
        return sums

    def activate(self, sums: Tensor, layer: int) -> Tensor:
        """Return activation(norm(sums)) of a hidden layer [E, B, H]."""
        if self.norm == "layer":
            scale, offset = self.norm_scales[layer], self.norm_offsets[layer]
            normalized = functional.layer_norm(sums.to(scale.dtype), sums.shape[-1:])
            sums = torch.addcmul(offset, normalized, scale).to(sums.dtype)
        return ACTIVATIONS[self.activation](sums)

    def hidden_dtype(self, inputs: Tensor) -> torch.dtype:
        """The precision of the hidden layers' products."""
        return torch.bfloat16 if self.bf16 else inputs.dtype


def initial_layer(
    members: int, fan_in: int, fan_out: int, orthogonal_gain: float | None
) -> tuple[Tensor, Tensor]:
    """Draw weights [E, fan_in, fan_out] and biases [E, 1, fan_out] from torch's global generator.

    Uniform in ±1/√fan_in; with a gain, weights are orthogonal times the gain and biases 0.
    """
    weight = torch.empty(members, fan_in, fan_out)
    bias = torch.zeros(members, 1, fan_out)
    bound = 1.0 / math.sqrt(fan_in)
    for member in range(members):
        if orthogonal_gain is not None:
            nn.init.orthogonal_(weight[member], orthogonal_gain)
        else:
            nn.init.uniform_(weight[member], -bound, bound)
            nn.init.uniform_(bias[member], -bound, bound)
    return weight, bias


class ObservationStatistics(nn.Module):
    """(observation − mean) / std with the data's statistics, held as buffers of the policy.

    Columns that hardly vary (std below 1e-6) are only centered: dividing would amplify noise.
    Mean 0 and std 1 leave observations as they are.
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
    """The affine map from [−1, 1] to the environment's bounds [low, high], per dimension.

    `transitions.ActionMap` is the same map for NumPy arrays. Neither direction clips.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))

    def forward(self, action: Tensor) -> Tensor:
        """Return actions [..., A] in [−1, 1] in the environment's units."""
        return self.low + 0.5 * (action + 1.0) * (self.high - self.low)

    def inverse(self, action: Tensor) -> Tensor:
        """Return actions [..., A] in the environment's units in [−1, 1]."""
        return 2.0 * (action - self.low) / (self.high - self.low) - 1.0
