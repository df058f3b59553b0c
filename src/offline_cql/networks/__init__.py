"""The networks. Hidden layers may run in bf16; what leaves a network is float32."""

from offline_cql.networks.actor import TanhGaussianActor
from offline_cql.networks.averages import PolicyAverage, lerp_targets
from offline_cql.networks.critics import ActionCritics
from offline_cql.networks.mlp import ActionBounds, ObservationStatistics, StackedMLP

__all__ = [
    "ActionBounds",
    "ActionCritics",
    "ObservationStatistics",
    "PolicyAverage",
    "StackedMLP",
    "TanhGaussianActor",
    "lerp_targets",
]
