"""The networks. They know nothing about losses, data sets or training.

Hidden layers may run in bf16; what leaves a network is always float32.
"""

from offline_cql.networks.critics import ActionCritics
from offline_cql.networks.mlp import (
    ActionBounds,
    ObservationStatistics,
    StackedMLP,
    TanhGaussianActor,
)

__all__ = [
    "ActionBounds",
    "ActionCritics",
    "ObservationStatistics",
    "StackedMLP",
    "TanhGaussianActor",
]
