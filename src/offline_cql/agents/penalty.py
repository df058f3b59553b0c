"""The weight of the conservative penalty: alpha's schedule and the Lagrange multiplier."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.agents.schedules import alpha_at
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

    def largest_push(self) -> Tensor:
        """Return how far the penalty raises the Q of a logged action at most, per step.

        (Q − y)² + weight · (soft maximum − Q) is smallest at Q <= y + weight / 2.
        """
        weight = self.alpha * self.log_multiplier.detach().exp() if self.lagrange else self.alpha
        return weight / 2

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
