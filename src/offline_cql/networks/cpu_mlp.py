"""The critics' layers after the first product as one autograd function, written out for CPUs.

It computes what `StackedMLP.after_first` computes for a ReLU network, with LayerNorm or without; a
test holds values and gradients equal. It is faster because states go through all layers in blocks:
what a layer wrote is still in the cache when the next one reads it, and ReLU, bias and gradients
reuse memory. Each block is one matrix product per layer, so their size decides the rounding.

For one block, with a the actions, g = ∂L/∂q and layers l = 1 … L:

    z₀ = a · W_a + p        p: per_state, one row per state, repeated for its N actions
    hₗ = relu(zₗ)           zₗ = hₗ₋₁ · Wₗ + bₗ
    q  = h_L · w + b        w: head

With LayerNorm hₗ = relu(nₗ), nₗ = γₗ · (zₗ − mean zₗ) / std zₗ + βₗ, and a block has one critic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Product, bias and ReLU in one call, and float32 products faster than the BLAS's; decision 010.
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
CACHE_BYTES = 2**21  # of one layer's output for a block of states
EPSILON = 1e-5  # of LayerNorm's variance, torch's default

Block = tuple[slice, slice, slice]  # critics, states, rows: N rows per state


def fused_after_first(
    per_state: Tensor,
    actions: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    scales: Sequence[Tensor] = (),
    offsets: Sequence[Tensor] = (),
) -> Tensor:
    """Return q [E, B · N, 1], given the first layer's product with the states.

    per_state [E, B, H]: s · W_s + b, in the hidden layers' precision; actions [B · N, A];
    weights: W_a [E, A, H], then W₁ … W_L, the head last; biases: b₁ … b_L, the head's last;
    scales, offsets: γ₀ … γ_L and β₀ … β_L of LayerNorm, empty without.
    Head, norms and gradients of parameters are in the parameters' precision.
    """
    parameters = (*weights, *biases, *scales, *offsets)
    q: Tensor = _AfterFirst.apply(per_state, actions, len(biases), *parameters)  # type: ignore[no-untyped-call]
    return q


class _AfterFirst(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, per_state: Tensor, actions: Tensor, layers: int, *parameters: Tensor
    ) -> Tensor:
        dtype = per_state.dtype
        weights = [weight.to(dtype) for weight in parameters[:layers]]
        head, *hidden_biases, head_bias = parameters[layers : 2 * layers + 1]
        norms = _Norms(parameters[2 * layers + 1 :])
        biases = [bias.to(dtype) for bias in hidden_biases]
        inputs = actions.to(dtype)
        n_critics, rows = len(head), len(actions)
        q = head.new_empty(n_critics, rows, head.shape[2])
        blocks = _blocks(per_state, rows, one_critic=bool(norms))
        scratch = _scratch(blocks[0], head, [head])
        outputs: list[Tensor] = []  # h₀ … h_L per block
        for critics, states, block in blocks:
            stacked = inputs[block].expand(critics.stop - critics.start, -1, -1)
            h = _linear(stacked, weights[0][critics])  # a · W_a
            _by_state(h, states).add_(per_state[critics, states].unsqueeze(2))  # z₀
            h = norms.normalize(h, 0, critics) if norms else h
            outputs.append(h.relu_())  # h₀
            for layer, (weight, bias) in enumerate(zip(weights[1:], biases, strict=True), start=1):
                h = _linear(h, weight[critics], bias[critics], relu=not norms)
                h = norms.normalize(h, layer, critics).relu_() if norms else h
                outputs.append(h)  # hₗ
            product = _view(scratch, h)
            torch.mul(_widen(h, scratch), head[critics].mT, out=product)
            q_block = q[critics, block]
            torch.sum(product, dim=2, keepdim=True, out=q_block).add_(head_bias[critics])
        saved = (*weights, *norms.parameters, *outputs, *norms.statistics)
        ctx.save_for_backward(per_state, inputs, head, *saved)
        ctx.sizes = layers, len(norms.parameters), len(outputs)
        return q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers, n_norms, n_outputs = ctx.sizes
        per_state, inputs, head, *saved = ctx.saved_tensors
        weights, parameters = saved[:layers], saved[layers : layers + n_norms]
        outputs = iter(saved[layers + n_norms :][:n_outputs])
        norms = _Norms(parameters, saved[layers + n_norms + n_outputs :])
        for_actions, for_parameters = ctx.needs_input_grad[1], any(ctx.needs_input_grad[3:])
        d_state = torch.empty_like(per_state)
        d_action = torch.zeros_like(inputs, dtype=head.dtype) if for_actions else None
        d_weights = [torch.zeros_like(weight, dtype=head.dtype) for weight in weights]
        d_biases = [head.new_zeros(len(head), 1, weight.shape[2]) for weight in weights[1:]]
        d_head = torch.zeros_like(head)
        blocks = _blocks(per_state, len(inputs), one_critic=bool(norms))
        scratch = _scratch(blocks[0], head, [head, *weights[2:]])
        for number, (critics, states, block) in enumerate(blocks):
            h = [next(outputs) for _ in range(layers)]
            g = gradient[critics, block]
            product = _view(scratch, h[-1])
            if for_parameters:
                torch.mul(_widen(h[-1], scratch), g, out=product)
                d_head[critics] += product.sum(dim=1).unsqueeze(2)  # ∂L/∂w += h_Lᵀ · g
            d = torch.mul(g, head[critics].mT, out=product).to(h[-1].dtype)  # ∂L/∂h_L = g · wᵀ
            for layer in range(layers - 1, 0, -1):
                _relu_backward_(d, h[layer])  # ∂L/∂zₗ, or ∂L/∂nₗ, = ∂L/∂hₗ ⊙ [hₗ > 0]
                d = norms.backward(d, layer, number, critics) if norms else d
                if for_parameters:
                    wide = _widen(d, scratch)
                    d_biases[layer - 1][critics] += wide.sum(dim=1, keepdim=True)  # Σ ∂L/∂zₗ
                    _add_product(d_weights[layer][critics], h[layer - 1], d)  # hₗ₋₁ᵀ · ∂L/∂zₗ
                d = _linear(d, weights[layer][critics].mT)  # ∂L/∂hₗ₋₁ = ∂L/∂zₗ · Wₗᵀ
            _relu_backward_(d, h[0])  # ∂L/∂z₀, or ∂L/∂n₀
            d = norms.backward(d, 0, number, critics) if norms else d
            # ∂L/∂p = ∂L/∂z₀ summed over the state's N actions
            torch.sum(_by_state(d, states), dim=2, out=d_state[critics, states])
            if for_parameters:
                stacked = inputs[block].expand(len(d), -1, -1)
                _add_product(d_weights[0][critics], stacked, d)  # ∂L/∂W_a += aᵀ · ∂L/∂z₀
            if d_action is not None:  # ∂L/∂a += Σ over critics of ∂L/∂z₀ · W_aᵀ
                d_action[block] += torch.bmm(d, weights[0][critics].mT).sum(dim=0)
        if not for_parameters:
            return d_state, d_action, None, *[None] * (2 * layers + 1 + n_norms)
        d_head_bias = gradient.sum(dim=1, keepdim=True)  # ∂L/∂b = Σ g
        d_layers = (*d_weights, d_head, *d_biases, d_head_bias, *norms.gradients)
        return d_state, d_action, None, *d_layers


class _Norms:
    """LayerNorm of the hidden layers: γ₀ … γ_L, β₀ … β_L and their gradients; False without.

    statistics: z, mean and 1 / std per layer and block, in the order of the forward pass.
    """

    def __init__(self, parameters: Sequence[Tensor], statistics: Sequence[Tensor] = ()) -> None:
        self.parameters, self.statistics = parameters, list(statistics)
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]
        self.layers = len(parameters) // 2

    def __bool__(self) -> bool:
        return self.layers > 0

    def _of(self, layer: int, critics: slice) -> tuple[Tensor, Tensor]:
        scale, offset = self.parameters[layer], self.parameters[self.layers + layer]
        return scale[critics].flatten(), offset[critics].flatten()

    def normalize(self, z: Tensor, layer: int, critics: slice) -> Tensor:
        """Return nₗ = γₗ · (zₗ − mean zₗ) / std zₗ + βₗ of a block."""
        n, *statistics = torch.native_layer_norm(z, z.shape[2:], *self._of(layer, critics), EPSILON)
        self.statistics += z, *statistics
        return n

    def backward(self, d: Tensor, layer: int, block: int, critics: slice) -> Tensor:
        """Return ∂L/∂zₗ of the block with this number, given ∂L/∂nₗ; add to the gradients."""
        first = 3 * (block * self.layers + layer)
        z, mean, inverse_std = self.statistics[first : first + 3]
        scale, offset = self._of(layer, critics)
        d_z, d_scale, d_offset = torch.ops.aten.native_layer_norm_backward(
            *(d.to(scale.dtype), z.to(scale.dtype), d.shape[2:], mean, inverse_std, scale, offset),
            [True, True, True],
        )
        self.gradients[layer][critics] += d_scale  # ∂L/∂γₗ = Σ ∂L/∂nₗ ⊙ (zₗ − mean zₗ) / std zₗ
        self.gradients[self.layers + layer][critics] += d_offset  # ∂L/∂βₗ = Σ ∂L/∂nₗ
        d_sums: Tensor = d_z.to(d.dtype)
        return d_sums


def _blocks(per_state: Tensor, rows: int, *, one_critic: bool) -> list[Block]:
    """Split (critics, states) into blocks that fit the cache: everything, or part of one critic."""
    n_critics, states, width = per_state.shape
    n_actions = rows // states
    state_bytes = n_actions * width * per_state.element_size()
    if n_critics * states * state_bytes <= CACHE_BYTES and not one_critic:
        return [(slice(0, n_critics), slice(0, states), slice(0, rows))]
    size = max(1, CACHE_BYTES // state_bytes)
    blocks = []
    for critic in range(n_critics):
        for start in range(0, states, size):
            end = min(start + size, states)
            block = slice(start * n_actions, end * n_actions)
            blocks.append((slice(critic, critic + 1), slice(start, end), block))
    return blocks


def _by_state(hidden: Tensor, states: slice) -> Tensor:
    """Return [e, b · N, H] viewed as [e, b, N, H]."""
    return hidden.view(len(hidden), states.stop - states.start, -1, hidden.shape[2])


def _relu_backward_(gradient: Tensor, output: Tensor) -> None:
    """Set the gradient to 0, in place, where ReLU's output is 0."""
    torch.ops.aten.threshold_backward.grad_input(gradient, output, 0, grad_input=gradient)


def _linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """Return inputs · weight (+ bias, then ReLU) per critic."""
    if ONEDNN and len(inputs) == 1 and inputs.dtype in (torch.float32, torch.bfloat16):
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs[0],
            weight[0].mT,
            None if bias is None else bias.flatten(),
            "relu" if relu else "none",
            [],
            "",
        )
        return output.unsqueeze(0)
    product = torch.bmm(inputs, weight)
    if bias is not None:
        product += bias
    return product.relu_() if relu else product


def _scratch(first: Block, head: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Allocate memory in the head's precision for a block's inputs of the widest of some layers.

    first: the first block, which no other one exceeds.
    """
    critics, _, block = first
    widest = max(weight.shape[1] for weight in weights)
    return head.new_empty(critics.stop * block.stop * widest)


def _view(scratch: Tensor, like: Tensor) -> Tensor:
    """Return the beginning of the scratch memory in the shape of a tensor."""
    return scratch[: like.numel()].view(like.shape)


def _widen(tensor: Tensor, scratch: Tensor) -> Tensor:
    """Return the tensor in the precision of `scratch`: itself, or a copy in that memory."""
    return tensor if tensor.dtype == scratch.dtype else _view(scratch, tensor).copy_(tensor)


def _add_product(total: Tensor, inputs: Tensor, gradient: Tensor) -> None:
    """Add inputsᵀ · gradient to `total`, which keeps the parameters' precision."""
    if total.dtype != gradient.dtype:
        transposed = inputs.mT
        one = len(total) == 1
        total += torch.mm(transposed[0], gradient[0]) if one else torch.bmm(transposed, gradient)
    elif len(total) > 1:
        total.baddbmm_(inputs.mT, gradient)
    else:
        total[0].addmm_(inputs[0].mT, gradient[0])
