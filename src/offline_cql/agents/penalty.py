"""The weight of the conservative penalty: alpha's schedule and the Lagrange multiplier."""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.config import AlphaScheduleConfig, CqlConfig

LARGEST_ALPHA = torch.finfo(torch.float32).max  # beyond it alpha is infinite: the run diverges


class ConservativePenalty(nn.Module):
    """alpha(update), and with a `target_gap` the multiplier whose *log* is the parameter.

    alpha is a tensor that is set in place: a replayed CUDA graph reads the same memory.
    """

    alpha: Tensor

    def __init__(self, cql: CqlConfig, schedule: AlphaScheduleConfig | None = None) -> None:
        super().__init__()
        self.cql, self.schedule = cql, schedule
        self.lagrange = cql.target_gap is not None
        if self.lagrange:
            assert cql.multiplier_initial is not None
            initial = math.log(cql.multiplier_initial)
            self.log_multiplier = nn.Parameter(torch.tensor(initial))
        self.register_buffer("alpha", torch.zeros(()), persistent=False)
        self.set_alpha(0)

    def set_alpha(self, updates: int) -> None:
        """Set alpha for the update after `updates` completed ones."""
        alpha = self.cql.alpha
        if self.schedule is not None:
            alpha = alpha_at(updates, alpha=alpha, schedule=self.schedule)
        self.penalized = alpha > 0.0 or self.lagrange
        self.alpha.fill_(alpha if alpha <= LARGEST_ALPHA else math.inf)

    def loss(self, gap: Tensor) -> Tensor:
        """Return the conservative loss of a gap [E, B], plus the multiplier's if there is one."""
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
        """Return alpha and the multiplier, by the names of docs/metrics.md."""
        values = {"cql/alpha": self.alpha.clone()}
        if self.lagrange:
            values["cql/multiplier"] = self.log_multiplier.detach().exp()
        return values

    def parameter_groups(self) -> list[dict[str, Any]]:
        if not self.lagrange:
            return []
        learning_rate = self.cql.multiplier_learning_rate
        return [{"name": "multiplier", "params": [self.log_multiplier], "lr": learning_rate}]

    @torch.no_grad()
    def clamp(self) -> None:
        """Clamp the log multiplier to its bounds, in place, after the step.

        Clamping exp(log multiplier) inside the loss has no gradient beyond the bound: it would stay
        there.
        """
        if self.lagrange:
            assert self.cql.multiplier_min is not None
            assert self.cql.multiplier_max is not None
            self.log_multiplier.clamp_(
                math.log(self.cql.multiplier_min), math.log(self.cql.multiplier_max)
            )


@torch.no_grad()
def lerp_targets(target: nn.Module, online: nn.Module, polyak: float) -> None:
    """Set target ← (1 − polyak) · target + polyak · online, in place, in float32."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), polyak)


def decayed(update: int, *, start: float, final: float, begin: int, end: int) -> float:
    """Return a value on the half cosine from `start` at update `begin` to `final` at `end`."""
    progress = min(1.0, max(0.0, (update - begin) / (end - begin)))
    return final + (start - final) * (1.0 + math.cos(math.pi * progress)) / 2.0


def alpha_at(update: int, *, alpha: float, schedule: AlphaScheduleConfig) -> float:
    """Return alpha * ramp(update) * factor(update) for the update with this number, from 0.

    ramp = min(1, update / warmup), 1 without a warmup. With p the fraction of the way from warmup
    to until, within [0, 1], and F = final_factor:

    - constant     factor = 1
    - linear       factor = 1 + (F - 1) p
    - cosine       factor = F + (1 - F) (1 + cos(pi p)) / 2
    - exponential  factor = F^p
    - piecewise    straight lines between the points (update, factor), flat outside of them
    """
    ramp = min(1.0, update / schedule.warmup) if schedule.warmup else 1.0
    if schedule.points is not None:
        return alpha * ramp * interpolate(update, schedule.points)
    return alpha * ramp * decay_factor(update, schedule)


def decay_factor(update: int, schedule: AlphaScheduleConfig) -> float:
    """Return the factor of a schedule without points."""
    final, until = schedule.final_factor, schedule.until
    if final is None or until is None:
        return 1.0
    progress = (update - schedule.warmup) / (until - schedule.warmup)
    progress = min(1.0, max(0.0, progress))
    if schedule.kind == "linear":
        return 1.0 + (final - 1.0) * progress
    if schedule.kind == "cosine":
        return final + (1.0 - final) * (1.0 + math.cos(math.pi * progress)) / 2.0
    return math.pow(final, progress)


def interpolate(update: int, points: list[list[float]]) -> float:
    """Return the factor on the straight lines between the points [update, factor]."""
    if update <= points[0][0]:
        return points[0][1]
    for (start, before), (end, after) in pairwise(points):
        if update <= end:
            return before + (after - before) * (update - start) / (end - start)
    return points[-1][1]
