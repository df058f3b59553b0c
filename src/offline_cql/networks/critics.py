"""Q(s, a) for many actions per state: nearly all of an update's arithmetic happens here.

The plain path is the one to read. It runs on every device, in every dtype, under torch.compile and
torch.func; `cpu_mlp.py` computes the same faster for the common case on a CPU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from offline_cql.networks.cpu_mlp import fused_after_first
from offline_cql.networks.mlp import StackedMLP


class ActionCritics(nn.Module):
    """E action-value functions Q_i(s, a), evaluated for N actions per state in one pass.

    observation [B, D] and action [B, N, A] in [−1, 1] give [E, B, N]. The first layer's product
    with the observation is computed once per state and shared by its N actions.
    fused=False never takes the hand-written CPU path, which torch.func cannot transform.
    """

    def __init__(
        self,
        n_critics: int,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        orthogonal: bool,
        bf16: bool,
        activation: str = "relu",
        norm: str = "none",
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.observation_dim, self.fused = observation_dim, fused
        self.mlp = StackedMLP(
            *(n_critics, observation_dim + action_dim, hidden, 1),
            orthogonal=orthogonal,
            bf16=bf16,
            activation=activation,
            norm=norm,
        )

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        states, n_actions, action_dim = action.shape
        weight, bias = self.mlp.weights[0], self.mlp.biases[0]
        n_critics, dtype = len(weight), self.mlp.hidden_dtype(observation)

        # [s, a] · W + b = (s · W_s + b) + a · W_a
        state_weight, action_weight = weight.split([self.observation_dim, action_dim], dim=1)
        state = observation.to(dtype).expand(n_critics, *observation.shape)
        per_state = torch.baddbmm(bias.to(dtype), state, state_weight.to(dtype))  # [E, B, H]
        actions = action.reshape(states * n_actions, action_dim)  # [B · N, A]

        if self.uses_fused_path(observation):
            weights, biases = [action_weight, *self.mlp.weights[1:]], list(self.mlp.biases[1:])
            scales, offsets = list(self.mlp.norm_scales), list(self.mlp.norm_offsets)
            q = fused_after_first(per_state, actions, weights, biases, scales, offsets)
        else:
            stacked = actions.to(dtype).expand(n_critics, *actions.shape)
            per_action = torch.bmm(stacked, action_weight.to(dtype))  # [E, B · N, H]
            per_action = per_action.view(n_critics, states, n_actions, -1)
            sums = per_action + per_state.unsqueeze(2)
            q = self.mlp.after_first(sums.flatten(1, 2))
        return q.view(n_critics, states, n_actions)

    def uses_fused_path(self, observation: Tensor) -> bool:
        """Return True where cpu_mlp.py applies: a float32 ReLU network on a CPU."""
        mlp, weight = self.mlp, self.mlp.weights[0]
        plain = mlp.activation == "relu" and len(mlp.weights) > 1
        float32 = observation.dtype == weight.dtype == torch.float32
        on_cpu = observation.device.type == "cpu" and not torch.compiler.is_compiling()
        return self.fused and plain and float32 and on_cpu
