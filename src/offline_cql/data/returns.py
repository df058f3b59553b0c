"""Returns-to-go and n-step returns along episodes, as pure functions of arrays.

N transitions of E episodes, one episode after the other; ends [E] is the row after each
episode's last. gamma: the discount of a step, or of each step, [N], where steps take different
times.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
LARGEST_STRENGTH = 1e3  # of episode weights, per standard deviation of the returns
BISECTIONS = 60
MANY_EPISODES = 32  # from which a NumPy call for one step of all of them is worth it


def returns_to_go(rewards: Array, ends: Array, *, gamma: float | Array) -> npt.NDArray[np.float64]:
    """Return G_t = r_t + gamma_t · G_{t+1} up to the end of t's episode, [N], in reward units.

    The sum also stops where an episode was truncated: `continued_returns` extrapolates there.
    gamma in [0, 1].
    """
    result = rewards.astype(np.float64)
    discounts = np.broadcast_to(np.asarray(gamma, np.float64), result.shape)
    lengths = np.diff(ends, prepend=0)
    longest_first = np.argsort(-lengths, kind="stable")
    last, length = ends[longest_first] - 1, lengths[longest_first]
    lag = 1
    # Each pass goes one step back in all episodes that are long enough: N additions in all.
    while lag < length[0] and (active := int(np.searchsorted(-length, -lag))) >= MANY_EPISODES:
        rows = last[:active] - lag
        result[rows] += discounts[rows] * result[rows + 1]
        lag += 1
    # Few long episodes: one step at a time costs less in plain Python.
    for end, size in zip(last[length > lag], length[length > lag], strict=True):
        part = slice(end + 1 - size, end - lag + 2)
        steps, factors = result[part].tolist(), discounts[part].tolist()
        for step in range(len(steps) - 2, -1, -1):
            steps[step] += factors[step] * steps[step + 1]
        result[part] = steps
    return result


def continued_returns(
    rewards: Array, terminated: Array, ends: Array, *, gamma: float | Array
) -> npt.NDArray[np.float64]:
    """Return discounted returns-to-go [N], continuing truncated episodes at their mean reward.

    Without this a time limit would lower the return of every late state, while the critics
    bootstrap there. gamma in [0, 1); of each step: continued at the geometric mean of the
    episode's.
    """
    lengths = np.diff(ends, prepend=0)
    means = np.add.reduceat(rewards.astype(np.float64), ends - lengths) / lengths
    later = gamma
    if isinstance(gamma, np.ndarray):
        later = np.exp(np.add.reduceat(np.log(gamma), ends - lengths) / lengths)
    tail = np.where(terminated[ends - 1], 0.0, means * later / (1.0 - later))
    extended = rewards.astype(np.float64)
    extended[ends - 1] += tail
    return returns_to_go(extended, ends, gamma=gamma)


def episode_weights(returns: Array, lengths: Array, *, share: float) -> npt.NDArray[np.float64]:
    """Return weights [E] of episodes that grow exponentially with the return, mean 1 over steps.

    w = exp(k · R), normalized; k >= 0 is chosen so that the steps' effective sample size
    (Σ w)² / Σ w² is `share` of their number, or larger where the best episodes alone have more.
    Hong et al. 2023 weigh trajectories by exp(k · R) with a fixed k; an effective share needs no
    unit. returns, lengths [E]: undiscounted return and number of steps; share in (0, 1].
    """
    standardized = returns - returns.max()
    if (std := float(returns.std())) > 0:
        standardized = standardized / std

    def weights(strength: float) -> npt.NDArray[np.float64]:
        values = np.exp(strength * standardized)
        result: npt.NDArray[np.float64] = values * lengths.sum() / (values @ lengths)
        return result

    low, high = 0.0, LARGEST_STRENGTH
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        effective = lengths.sum() / (weights(middle) ** 2 @ lengths)
        low, high = (middle, high) if effective > share else (low, middle)
    return weights(low)


class NStep(NamedTuple):
    """reward [N]: discounted sum of up to n rewards; discount [N]: factor of the bootstrapped
    value; last [N]: the row whose next observation is bootstrapped from."""

    reward: npt.NDArray[np.float32]
    discount: npt.NDArray[np.float32]
    last: npt.NDArray[np.int64]


def lambda_steps(
    size: int, *, n: int, td_lambda: float, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw the steps [size] of n-step targets whose mean is the λ-return truncated at n steps.

    With (1 − λ) λ^(k−1) as the probability of k < n steps and λ^(n−1) as that of n, the mean of
    the k-step returns G^(k) is (1 − λ) Σ_{k<n} λ^(k−1) G^(k) + λ^(n−1) G^(n) (Sutton & Barto 2018,
    ch. 12). The gradient of the squared TD error is linear in the target, so its mean is that of
    the λ-return too. td_lambda in (0, 1]; 1: n steps everywhere.
    """
    steps = np.full(size, n, np.int64)
    if td_lambda < 1:
        steps = np.minimum(generator.geometric(1 - td_lambda, size), n)
    return steps


def n_step_returns(
    rewards: Array, terminated: Array, ends: Array, *, gamma: float | Array, n: int | Array
) -> NStep:
    """Return R_t = Σ_{k<m} gamma^k r_{t+k} and the discount gamma^m · (1 − terminated).

    Where steps have discounts of their own, products of them stand for powers of gamma.

    m is n, which may differ between transitions ([N]), or fewer at the end of t's episode: no sum
    crosses an episode's end, and a truncated episode bootstraps from its last next observation.
    Sutton & Barto 2018, ch. 7.
    """
    size = len(rewards)
    rows = np.arange(size)
    remaining = np.repeat(ends, np.diff(ends, prepend=0)) - rows
    steps = np.minimum(n, remaining)
    total, product = np.zeros(size, np.float64), np.ones(size, np.float64)
    discounts = np.broadcast_to(np.asarray(gamma, np.float64), (size,))
    for k in range(int(np.max(steps))):
        active = np.flatnonzero(steps > k)
        total[active] += product[active] * rewards[active + k]
        product[active] *= discounts[active + k]
    last = rows + steps - 1
    discount = product * (1.0 - terminated[last])
    return NStep(total.astype(np.float32), discount.astype(np.float32), last)


class ValueRange(NamedTuple):
    """The values that rewards and discounts allow: `low` <= 0 <= `high`, in reward units.

    horizon: the sum of the discounts of an endless episode, so that b more per step adds at most
    b · horizon.
    """

    low: float
    high: float
    horizon: float


def value_range(reward: Array, discount: Array) -> ValueRange:
    """Return the range in which all values lie, whatever the policy, and 0.

    A value v with r + d · v <= v for every transition is above all values: v = max r / (1 − d).
    Likewise below; 0, where new networks start, is always inside. reward, discount [N], discount
    in [0, 1).
    """
    horizons = 1.0 / (1.0 - discount.astype(np.float64))
    values = reward * horizons
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return ValueRange(low, high, float(horizons.max()))
