"""What critics and policy look like on episodes that training has not seen. Pure functions.

N validation steps; values and returns in reward units (those the critics see).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def validation_metrics(
    figures: Mapping[str, Tensor], return_to_go: Tensor, *, best: float
) -> dict[str, float]:
    """The figures of each step [N] as metrics; best: the largest return-to-go of the training data.

    Without critics (q_logged, q_policy) there is nothing to compare with the returns.
    """
    metrics = {f"validation/{name}": float(values.mean()) for name, values in figures.items()}
    if "q_logged" not in figures:
        return metrics
    logged, policy = figures["q_logged"].double(), figures["q_policy"].double()
    expected = return_to_go.double()
    return metrics | {
        "validation/return_to_go": float(expected.mean()),
        "validation/calibration_bias": float((logged - expected).mean()),
        "validation/calibration_correlation": correlation(logged, expected),
        "validation/above_best_share": float((policy > best).double().mean()),
    }


def correlation(left: Tensor, right: Tensor) -> float:
    """Pearson's correlation of two [N], 0 where either is constant."""
    left, right = left - left.mean(), right - right.mean()
    norm = torch.sqrt(left.square().sum() * right.square().sum())
    return float((left * right).sum() / norm) if norm > 0 else 0.0
