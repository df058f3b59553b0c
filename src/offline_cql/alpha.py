"""CQL's weight alpha as a function of the update. Knows nothing about losses, agents or time."""

import math
from itertools import pairwise

from offline_cql.schema import AlphaScheduleConfig


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
