"""An off-policy estimate: a value, an interval, and what has to hold for it to mean something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95  # of the intervals
# Half the width of a 95 % interval in standard deviations of Student's t, by degrees of freedom.
STUDENT = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 49: 2.010, 99: 1.984}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected discounted return from the data's initial states, in the environment's units.

    low, high: the interval at LEVEL; assumptions: one sentence each.
    """

    method: str
    value: float
    low: float
    high: float
    assumptions: tuple[str, ...]


def spread(values: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Mean of bootstrap replicates [M] and the interval at LEVEL about it.

    Each replicate varies as the estimate itself would over data sets, so their standard deviation
    is its standard error (Efron & Tibshirani 1993, ch. 13); Student's t with M − 1 degrees of
    freedom, because M is small.
    """
    freedom = max(bound for bound in STUDENT if bound <= max(len(values) - 1, min(STUDENT)))
    mean, width = float(values.mean()), STUDENT[freedom] * float(values.std(ddof=1))
    return mean, mean - width, mean + width


def episode_draws(
    episodes: int, replicates: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """How often each episode is drawn in each bootstrap replicate, [replicates, episodes].

    Whole episodes are the independent draws in logged data; steps within one are not.
    """
    draws = generator.multinomial(episodes, np.full(episodes, 1 / episodes), size=replicates)
    return draws.astype(np.float32)
