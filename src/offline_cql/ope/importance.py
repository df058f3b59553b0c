"""Importance sampling and the doubly robust estimate, for discrete actions.

Both weigh logged episodes by how much likelier the policy was to act so than the behavior was.
The behavior's probabilities are logged, or fitted. Pure functions of arrays; N transitions of E
episodes one after the other, ends [E] the row after each episode's last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.ope.estimate import Estimate, episode_draws, spread

Array = npt.NDArray[Any]
REPLICATES = 100
IS_STREAM = 0x15
COVERED = (
    "the behavior took every action that the policy takes with a probability above 0",
    "the behavior's probabilities are right",
    "the policy will start where the logged episodes start",
)


def cumulative_ratios(policy: Array, behavior: Array, ends: Array) -> npt.NDArray[np.float64]:
    """rho_t = Π_{k≤t} π(a_k | s_k) / β(a_k | s_k) within each episode, [N].

    policy, behavior [N]: probabilities of the logged actions, behavior > 0.
    """
    ratios = policy.astype(np.float64) / behavior.astype(np.float64)
    result = np.empty_like(ratios)
    start = 0
    for end in ends:
        result[start:end] = np.cumprod(ratios[start:end])
        start = int(end)
    return result


def weighted_importance_sampling(
    rewards: Array, policy: Array, behavior: Array, ends: Array, *, gamma: float, seed: int
) -> Estimate:
    """Per-decision weighted importance sampling, Σ_t gamma^t Σ_e (rho_et / Σ_e rho_et) r_et.

    Precup, Sutton & Singh 2000. Consistent, biased towards the behavior while few episodes carry
    weight; an episode that ended earlier has reward 0 and keeps its last weight. Interval by
    bootstrapping episodes.
    """
    rho = _table(cumulative_ratios(policy, behavior, ends), ends, hold=True)
    reward = _table(rewards.astype(np.float64), ends, hold=False)
    discount = gamma ** np.arange(reward.shape[1])

    def value(draws: Array) -> float:
        weight = draws[:, None] * rho
        total = weight.sum(axis=0)
        mean = np.divide((weight * reward).sum(axis=0), total, where=total > 0, out=0 * total)
        return float((discount * mean).sum())

    return _bootstrapped("wis", value, len(ends), seed)


def doubly_robust(
    rewards: Array,
    policy: Array,
    behavior: Array,
    ends: Array,
    *,
    q_logged: Array,
    value: Array,
    gamma: float,
    seed: int,
) -> Estimate:
    """Weighted doubly robust: V(s_0) corrected by weighted TD errors of a model of the values.

    Jiang & Li 2016; weights normalized as in Thomas & Brunskill 2016. q_logged [N]: the model's
    Q(s, a) of the logged action; value [N]: Σ_a π(a|s) Q(s, a). Right if the model or the
    behavior's probabilities are.
    """
    rho = _table(cumulative_ratios(policy, behavior, ends), ends, hold=True)
    before = np.concatenate([np.ones((len(rho), 1)), rho[:, :-1]], axis=1)
    reward = _table(rewards.astype(np.float64), ends, hold=False)
    q = _table(q_logged.astype(np.float64), ends, hold=False)
    v = _table(value.astype(np.float64), ends, hold=False)
    discount = gamma ** np.arange(reward.shape[1])

    def estimate(draws: Array) -> float:
        now, then = draws[:, None] * rho, draws[:, None] * before
        sums = [np.maximum(weight.sum(axis=0), 1e-300) for weight in (now, then)]
        parts = (now / sums[0] * (reward - q)).sum(axis=0) + (then / sums[1] * v).sum(axis=0)
        return float((discount * parts).sum())

    return _bootstrapped("dr", estimate, len(ends), seed)


def effective_sample_size(policy: Array, behavior: Array, ends: Array) -> float:
    """(Σ rho)² / Σ rho² over whole episodes: how many of them carry the estimate. In [1, E]."""
    whole = cumulative_ratios(policy, behavior, ends)[ends - 1]
    return float(whole.sum() ** 2 / np.maximum((whole**2).sum(), 1e-300))


def _table(values: Array, ends: Array, *, hold: bool) -> npt.NDArray[np.float64]:
    """Values [N] as [E, longest]; after an episode's end 0, or its last value held."""
    lengths = np.diff(ends, prepend=0)
    table = np.zeros((len(ends), int(lengths.max())))
    inside = np.arange(table.shape[1]) < lengths[:, None]
    table[inside] = values
    if hold:
        last = np.broadcast_to(values[ends - 1][:, None], table.shape)
        table[~inside] = last[~inside]
    return table


def _bootstrapped(method: str, value: Any, episodes: int, seed: int) -> Estimate:
    generator = np.random.default_rng([seed, IS_STREAM])
    draws = episode_draws(episodes, REPLICATES, generator)
    _, low, high = spread(np.array([value(draw) for draw in draws]))
    middle = value(np.ones(episodes))
    half = (high - low) / 2
    return Estimate(
        method=method, value=middle, low=middle - half, high=middle + half, assumptions=COVERED
    )
