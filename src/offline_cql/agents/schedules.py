"""Values that change from update to update: alpha, learning rates, the weight of cloning."""

import math
from itertools import pairwise

from offline_cql.config import AlphaScheduleConfig


def half_cosine(update: int, *, start: float, final: float | None, begin: int, end: int) -> float:
    """Return the value on the half cosine from `start` at update `begin` to `final` at `end`.

    Constant before and after; `start` throughout where `final` is None, and until `begin` where
    `end` is not after it.
    """
    if final is None or update <= begin:
        return start
    progress = 1.0 if update >= end else (update - begin) / (end - begin)
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
    if schedule.kind == "cosine":
        return half_cosine(update, start=1.0, final=final, begin=schedule.warmup, end=until)
    progress = (update - schedule.warmup) / (until - schedule.warmup)
    progress = min(1.0, max(0.0, progress))
    if schedule.kind == "linear":
        return 1.0 + (final - 1.0) * progress
    return math.pow(final, progress)


def interpolate(update: int, points: list[list[float]]) -> float:
    """Return the factor on the straight lines between the points [update, factor]."""
    if update <= points[0][0]:
        return points[0][1]
    for (start, before), (end, after) in pairwise(points):
        if update <= end:
            return before + (after - before) * (update - start) / (end - start)
    return points[-1][1]
