"""Sums of rewards along episodes: returns-to-go and n-step returns. Pure functions of arrays.

N transitions of E episodes, one after the other; ends [E] is the row after each episode's last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def returns_to_go(rewards: Array, ends: Array, *, gamma: float) -> npt.NDArray[np.float64]:
    """G_t = r_t + gamma · G_{t+1} up to the end of t's episode, [N], in the rewards' units.

    Where an episode was truncated the sum stops there too: it is then too small (for positive
    rewards) by what would have followed. gamma in [0, 1].
    """
    result = rewards.astype(np.float64)
    lengths = np.diff(ends, prepend=0)
    longest_first = np.argsort(-lengths, kind="stable")
    last, length = ends[longest_first] - 1, lengths[longest_first]
    # One step back in all episodes at once that are long enough: N additions in all.
    for back in range(1, int(length[0])):
        rows = last[: np.searchsorted(-length, -back)] - back
        result[rows] += gamma * result[rows + 1]
    return result


def continued_returns(
    rewards: Array, terminated: Array, ends: Array, *, gamma: float
) -> npt.NDArray[np.float64]:
    """Discounted returns-to-go [N]; a truncated episode is taken to go on at its mean reward.

    Without that a time limit would make every late state look poor, which the critics, who
    bootstrap there, rightly do not believe. ends [E]: the row after each episode's last.
    """
    lengths = np.diff(ends, prepend=0)
    means = np.add.reduceat(rewards.astype(np.float64), ends - lengths) / lengths
    tail = np.where(terminated[ends - 1], 0.0, means * gamma / (1.0 - gamma))
    extended = rewards.astype(np.float64)
    extended[ends - 1] += tail
    return returns_to_go(extended, ends, gamma=gamma)


class NStep(NamedTuple):
    """reward [N]: discounted sum of up to n rewards; discount [N]: factor of the value that
    follows; last [N]: the row whose next observation it is the value of."""

    reward: npt.NDArray[np.float32]
    discount: npt.NDArray[np.float32]
    last: npt.NDArray[np.int64]


def n_step_returns(
    rewards: Array, terminated: Array, ends: Array, *, gamma: float, n: int
) -> NStep:
    """R_t = Σ_{k<m} gamma^k r_{t+k}; discount gamma^m · (1 − terminated), m ≤ n steps.

    m is n, or what is left of t's episode: nothing crosses its end, and a truncated episode
    bootstraps from its last next observation. Sutton & Barto 2018, ch. 7.
    """
    size = len(rewards)
    rows = np.arange(size)
    left = np.repeat(ends, np.diff(ends, prepend=0)) - rows
    steps = np.minimum(n, left)
    total = np.zeros(size, np.float64)
    for k in range(n):
        going = np.flatnonzero(steps > k)
        total[going] += gamma**k * rewards[going + k]
    last = rows + steps - 1
    discount = gamma**steps * (1.0 - terminated[last])
    return NStep(total.astype(np.float32), discount.astype(np.float32), last)
