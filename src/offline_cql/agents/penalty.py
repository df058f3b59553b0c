"""How strong the conservative penalty is: alpha's schedule and the Lagrange multiplier.

Shared by the discrete and the continuous agent. Knows nothing about networks or batches.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.config import AlphaScheduleConfig, TrainConfig

LARGEST = torch.finfo(torch.float32).max  # beyond it alpha is infinite, and the run diverges


class ConservativePenalty(nn.Module):
    """alpha(update), and with a `target_gap` the multiplier whose *log* is the parameter.

    The losses read alpha from the device: an update that was recorded is replayed with another.
    """

    alpha: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.cql, self.schedule = config.cql, config.alpha_schedule
        self.lagrange = config.cql.target_gap is not None
        if self.lagrange:
            assert config.cql.multiplier_initial is not None
            initial = math.log(config.cql.multiplier_initial)
            self.log_multiplier = nn.Parameter(torch.tensor(initial))
        self.register_buffer("alpha", torch.zeros(()), persistent=False)
        self.set_alpha(0)

    def set_alpha(self, updates: int) -> None:
        """That of the update which follows so many finished ones."""
        alpha = alpha_at(updates, alpha=self.cql.alpha, schedule=self.schedule)
        self.penalized = alpha > 0.0 or self.lagrange
        self.alpha.fill_(alpha if alpha <= LARGEST else math.inf)

    def loss(self, gap: Tensor) -> Tensor:
        """What the gap [E, B] adds to the summed loss: the critics' part and the multiplier's."""
        alpha = self.alpha
        if not self.lagrange:
            return losses.conservative_loss(gap, alpha=alpha)
        multiplier, target_gap = self.log_multiplier.exp(), self.cql.target_gap
        assert target_gap is not None
        critic = losses.conservative_loss(
            gap, alpha=alpha, multiplier=multiplier.detach(), target_gap=target_gap
        )
        return critic + losses.multiplier_loss(
            multiplier, gap.detach(), alpha=alpha, target_gap=target_gap
        )

    def metrics(self) -> dict[str, Tensor]:
        values = {"cql/alpha": self.alpha.clone()}
        if self.lagrange:
            values["cql/multiplier"] = self.log_multiplier.detach().exp()
        return values

    def parameter_groups(self) -> list[dict[str, Any]]:
        if not self.lagrange:
            return []
        return [
            {
                "name": "multiplier",
                "params": [self.log_multiplier],
                "lr": self.cql.multiplier_learning_rate,
            }
        ]

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep the log multiplier within its bounds, in place, after the step.

        A clamp of exp(log multiplier) inside the loss has no gradient beyond the bound and latches.
        """
        if self.lagrange:
            assert self.cql.multiplier_min is not None
            assert self.cql.multiplier_max is not None
            self.log_multiplier.clamp_(
                math.log(self.cql.multiplier_min), math.log(self.cql.multiplier_max)
            )


@torch.no_grad()
def lerp_targets(target: nn.Module, online: nn.Module, polyak: float) -> None:
    """target ← (1 − polyak) · target + polyak · online, in place, in float32."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), polyak)


def alpha_at(update: int, *, alpha: float, schedule: AlphaScheduleConfig) -> float:
    """alpha * ramp(update) * factor(update) for the update with this number, from 0.

    ramp = min(1, update / warmup), 1 without a warmup. With p the share of the way from warmup to
    until, within [0, 1], and F = final_factor:

    - constant     factor = 1
    - linear       factor = 1 + (F - 1) p
    - cosine       factor = F + (1 - F) (1 + cos(pi p)) / 2
    - exponential  factor = F^p
    - piecewise    straight lines between the points (update, factor), flat outside of them
    """
    ramp = min(1.0, update / schedule.warmup) if schedule.warmup else 1.0
    if schedule.points is not None:
        return alpha * ramp * _interpolated(update, schedule.points)
    return alpha * ramp * _decayed(update, schedule)


def _decayed(update: int, schedule: AlphaScheduleConfig) -> float:
    final, until = schedule.final_factor, schedule.until
    if final is None or until is None:
        return 1.0
    share = (update - schedule.warmup) / (until - schedule.warmup)
    share = min(1.0, max(0.0, share))
    if schedule.kind == "linear":
        return 1.0 + (final - 1.0) * share
    if schedule.kind == "cosine":
        return final + (1.0 - final) * (1.0 + math.cos(math.pi * share)) / 2.0
    return math.pow(final, share)


def _interpolated(update: int, points: list[list[float]]) -> float:
    if update <= points[0][0]:
        return points[0][1]
    for (start, left), (end, right) in pairwise(points):
        if update <= end:
            return left + (right - left) * (update - start) / (end - start)
    return points[-1][1]
