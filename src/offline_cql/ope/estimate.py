"""An off-policy estimate with its interval, and the bootstrap over episodes behind it.

Imports no torch, because the report reads estimates too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRACTION = 0.2  # dataset.validation_fraction where estimates are needed: docs/decisions/015
UNSEEN = "the policy was not learned from these episodes"  # holds for validation episodes

# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
STUDENT_T = {4: 2.776, 9: 2.262, 14: 2.145, 19: 2.093, 29: 2.045, 49: 2.010, 99: 1.984}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected discounted return from the initial states of the data, in reward units.

    low and high are the bounds of the 95 % interval; each assumption is one clause. extrapolated:
    the part of value that lies beyond the ends of truncated episodes, where nothing was observed.
    """

    method: str
    value: float
    low: float
    high: float
    assumptions: tuple[str, ...]
    extrapolated: float = 0.0

    @property
    def observed(self) -> float:
        """The part of value up to the ends of the logged episodes."""
        return self.value - self.extrapolated

    @property
    def width(self) -> float:
        """The width of the interval."""
        return self.high - self.low


def bootstrap_counts(
    n_episodes: int, n_replicates: int, generator: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Draw how often each bootstrap replicate contains each episode, [n_replicates, n_episodes].

    Episodes are resampled, not steps, because steps within an episode are dependent.
    """
    counts = generator.multinomial(
        n_episodes, np.full(n_episodes, 1 / n_episodes), size=n_replicates
    )
    return counts.astype(np.float32)


def bootstrap_interval(values: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Return mean, lower and upper bound of the 95 % interval of bootstrap replicates [M].

    The standard deviation over replicates estimates the standard error (Efron & Tibshirani 1993,
    ch. 13). Student's t with M − 1 degrees of freedom accounts for the small M.
    """
    degrees = max(key for key in STUDENT_T if key <= max(len(values) - 1, min(STUDENT_T)))
    mean, half_width = float(values.mean()), STUDENT_T[degrees] * float(values.std(ddof=1))
    return mean, mean - half_width, mean + half_width
