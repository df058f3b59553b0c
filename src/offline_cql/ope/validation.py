"""Metrics of critics and policy on validation episodes, as pure functions.

N validation steps; values and returns are in scaled reward units, those that the critics see.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def validation_metrics(
    step_metrics: Mapping[str, Tensor], return_to_go: Tensor, *, best: float
) -> dict[str, float]:
    """Return the means of the agent's metrics per step [N], and how well Q predicts returns.

    best is the largest return-to-go of the training episodes. An agent without critics (no
    q_logged, q_policy) has only the means.
    """
    metrics = {f"validation/{name}": float(values.mean()) for name, values in step_metrics.items()}
    if "q_logged" not in step_metrics:
        return metrics
    q_logged, q_policy = (step_metrics[name].double() for name in ("q_logged", "q_policy"))
    returns = return_to_go.double()
    return metrics | {
        "validation/return_to_go": float(returns.mean()),
        "validation/calibration_bias": float((q_logged - returns).mean()),
        "validation/calibration_correlation": correlation(q_logged, returns),
        "validation/above_best_share": float((q_policy > best).double().mean()),
    }


def correlation(x: Tensor, y: Tensor) -> float:
    """Return Pearson's correlation of x [N] and y [N]; 0 where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = torch.sqrt(x.square().sum() * y.square().sum())
    return float((x * y).sum() / norm) if norm > 0 else 0.0
