"""Q(s, a) of many actions of each state: nearly all of an update's arithmetic is done here.

The hidden layers have their backward pass written out. A part of the states goes through all layers
before the next part, so that what a layer wrote is still in the processor's cache when the next one
reads it, and ReLU, bias and products reuse their memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from offline_cql.networks.mlp import StackedMLP

# Product, bias and ReLU in one, and float32 products faster than the BLAS's; decision 010.
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
CACHED = 2**21  # bytes of one layer that a part of the states has on a CPU

Part = tuple[slice, slice, slice]  # members, states, rows: N of them a state


class ActionCritics(nn.Module):
    """E action-value functions Q_i(s, a), scored for N actions of each state in one pass.

    observation [B, D] and action [B, N, A] in [−1, 1] give [E, B, N]. The first layer's product
    with the observation is made once a state and shared by its N actions.
    """

    def __init__(
        self,
        members: int,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        orthogonal: bool,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.observation_dim = observation_dim
        self.mlp = StackedMLP(
            members, observation_dim + action_dim, hidden, 1, orthogonal=orthogonal, bf16=bf16
        )

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        states, count, action_dim = action.shape
        first, *rest = self.mlp.weights
        bias, *biases = self.mlp.biases
        members = first.shape[0]
        state_weight, action_weight = first.split([self.observation_dim, action_dim], dim=1)
        dtype = torch.bfloat16 if self.mlp.bf16 else observation.dtype
        given = observation.to(dtype).expand(members, *observation.shape)
        per_state = torch.baddbmm(bias.to(dtype), given, state_weight.to(dtype))
        flat = action.reshape(states * count, action_dim)
        if not rest:
            linear = torch.bmm(flat.expand(members, *flat.shape), action_weight)
            return linear.view(members, states, count) + per_state
        q: Tensor = _AfterFirstLayer.apply(  # type: ignore[no-untyped-call]
            per_state, flat, action_weight, *rest, *biases
        )
        return q.view(members, states, count)


class _AfterFirstLayer(torch.autograd.Function):
    """The rest of the network, and its gradient.

    per_state [E, B, H]: the first layer's sums without the action's share, in the hidden layers'
    precision; action [B · N, A]; action_weight [E, A, H]; then the weights and the biases of the
    layers that follow, the head last. Returns [E, B · N, 1]. The head, and all gradients of
    parameters, are in the parameters' precision.
    """

    @staticmethod
    def forward(ctx: Any, per_state: Tensor, action: Tensor, *parameters: Tensor) -> Tensor:
        layers, dtype = len(parameters) // 2, per_state.dtype
        weights = [weight.to(dtype) for weight in parameters[:layers]]
        head, *hidden_biases, head_bias = parameters[layers:]
        biases = [bias.to(dtype) for bias in hidden_biases]
        inputs = action.to(dtype)
        members, rows = len(head), len(action)
        result = head.new_empty(members, rows, head.shape[2])
        scratch = _scratch(per_state, head, rows, [head])
        hidden: list[Tensor] = []  # of each part, what each layer wrote
        for which, states, part in _parts(per_state, rows):
            given = inputs[part].expand(which.stop - which.start, -1, -1)
            below = _linear(given, weights[0][which])
            _by_state(below, states).add_(per_state[which, states].unsqueeze(2))
            hidden.append(below.relu_())
            for weight, bias in zip(weights[1:], biases, strict=True):
                below = _linear(below, weight[which], bias[which], relu=True)
                hidden.append(below)
            wide = _like(scratch, below)
            torch.mul(_widened(below, scratch), head[which].mT, out=wide)
            torch.sum(wide, dim=2, keepdim=True, out=result[which, part]).add_(head_bias[which])
        ctx.save_for_backward(per_state, inputs, head, *weights, *hidden)
        ctx.layers = layers
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers = ctx.layers
        per_state, inputs, head, *saved = ctx.saved_tensors
        weights, hidden = saved[:layers], iter(saved[layers:])
        of_action, of_parameters = ctx.needs_input_grad[1], any(ctx.needs_input_grad[2:])
        d_state = torch.empty_like(per_state)
        d_action = torch.zeros_like(inputs, dtype=head.dtype) if of_action else None
        d_weights = [torch.zeros_like(weight, dtype=head.dtype) for weight in weights]
        d_biases = [head.new_zeros(len(head), 1, weight.shape[2]) for weight in weights[1:]]
        d_head = torch.zeros_like(head)
        scratch = _scratch(per_state, head, len(inputs), [head, *weights[2:]])
        for which, states, part in _parts(per_state, len(inputs)):
            outputs = [next(hidden) for _ in range(layers)]
            upper, below = gradient[which, part], outputs[-1]
            wide = _like(scratch, below)
            if of_parameters:
                torch.mul(_widened(below, scratch), upper, out=wide)
                d_head[which] += wide.sum(dim=1).unsqueeze(2)
            delta = torch.mul(upper, head[which].mT, out=wide).to(below.dtype)
            for layer in range(layers - 1, 0, -1):
                _through_relu(delta, outputs[layer])
                if of_parameters:
                    wide = _widened(delta, scratch)
                    d_biases[layer - 1][which] += wide.sum(dim=1, keepdim=True)
                    _add_product(d_weights[layer][which], outputs[layer - 1], delta)
                delta = _linear(delta, weights[layer][which].mT)
            _through_relu(delta, outputs[0])
            torch.sum(_by_state(delta, states), dim=2, out=d_state[which, states])
            if of_parameters:
                given = inputs[part].expand(len(delta), -1, -1)
                _add_product(d_weights[0][which], given, delta)
            if d_action is not None:
                d_action[part] += torch.bmm(delta, weights[0][which].mT).sum(dim=0)
        if not of_parameters:
            return d_state, d_action, *[None] * (2 * layers + 1)
        d_head_bias = gradient.sum(dim=1, keepdim=True)
        return d_state, d_action, *d_weights, d_head, *d_biases, d_head_bias


def _parts(per_state: Tensor, rows: int) -> Iterator[Part]:
    """Members and states that go through all layers together: everything; on a CPU that would not
    keep it in its cache, one member and as many states as it keeps."""
    members, states, width = per_state.shape
    count = rows // states
    size = count * width * per_state.element_size()  # of one state's share of a layer
    if per_state.device.type != "cpu" or members * states * size <= CACHED:
        yield slice(0, members), slice(0, states), slice(0, rows)
        return
    most = max(1, CACHED // size)
    for member in range(members):
        for start in range(0, states, most):
            end = min(start + most, states)
            yield slice(member, member + 1), slice(start, end), slice(start * count, end * count)


def _by_state(hidden: Tensor, states: slice) -> Tensor:
    """[e, b · N, H] as [e, b, N, H]."""
    return hidden.view(len(hidden), states.stop - states.start, -1, hidden.shape[2])


def _through_relu(delta: Tensor, output: Tensor) -> None:
    """The gradient of ReLU's input from that of its output, in place."""
    torch.ops.aten.threshold_backward.grad_input(delta, output, 0, grad_input=delta)


def _linear(
    below: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """below · weight (+ bias, ReLU), member by member."""
    known = below.device.type == "cpu" and below.dtype in (torch.float32, torch.bfloat16)
    if known and len(below) == 1 and ONEDNN:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            below[0],
            weight[0].mT,
            None if bias is None else bias.flatten(),
            "relu" if relu else "none",
            [],
            "",
        )
        return made.unsqueeze(0)
    product = torch.bmm(below, weight)
    if bias is not None:
        product += bias
    return product.relu_() if relu else product


def _scratch(per_state: Tensor, head: Tensor, rows: int, weights: Sequence[Tensor]) -> Tensor:
    """Memory in the head's precision for what a part puts into the widest of some layers."""
    which, _, part = next(_parts(per_state, rows))
    widest = max(weight.shape[1] for weight in weights)
    return head.new_empty(which.stop * part.stop * widest)


def _like(scratch: Tensor, tensor: Tensor) -> Tensor:
    """That memory in the shape of a tensor."""
    return scratch[: tensor.numel()].view(tensor.shape)


def _widened(tensor: Tensor, scratch: Tensor) -> Tensor:
    """In the precision of `scratch`, in its memory; the tensor itself where it has that."""
    return tensor if tensor.dtype == scratch.dtype else _like(scratch, tensor).copy_(tensor)


def _add_product(total: Tensor, below: Tensor, delta: Tensor) -> None:
    """total += belowᵀ · delta; total keeps the parameters' precision."""
    if total.dtype != delta.dtype:
        left, right = below.mT, delta
        total += torch.bmm(left, right) if len(total) > 1 else torch.mm(left[0], right[0])
    elif len(total) > 1:
        total.baddbmm_(below.mT, delta)
    else:
        total[0].addmm_(below[0].mT, delta[0])
