"""Importance sampling and doubly robust estimates for discrete actions, as pure functions.

Both reweight logged episodes by the probability ratio of the evaluated policy and the behavior
policy, whose probabilities are logged or fitted. Shapes: N transitions of E episodes, one episode
after the other; ends [E] holds the row after the last one of each episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.ope.estimate import UNSEEN, Estimate, bootstrap_counts, bootstrap_interval
from offline_cql.random_streams import RandomStream

Array = npt.NDArray[Any]
N_REPLICATES = 100
FEWEST = 10  # effective episodes; a bootstrap of fewer gives intervals that are too narrow
SMALLEST_WEIGHT = 1e-300  # avoids 0 / 0 where no episode of a replicate has weight
ASSUMPTIONS = (
    UNSEEN,
    "the behavior policy takes every action of the policy with a probability above 0",
    "the behavior probabilities are right",
    "the policy will start where the logged episodes start",
)
BOUNDED = (
    f"from step {{step}} on fewer than {FEWEST} episodes follow the policy: rewards there are "
    "between the lowest and the highest logged one"
)


def cumulative_ratios(policy: Array, behavior: Array, ends: Array) -> npt.NDArray[np.float64]:
    """Return rho_t = Π_{k≤t} π(a_k | s_k) / β(a_k | s_k) within each episode, [N].

    policy and behavior [N] are probabilities of the logged actions; behavior > 0.
    """
    ratios = policy.astype(np.float64) / behavior.astype(np.float64)
    products = np.empty_like(ratios)
    start = 0
    for end in ends:
        products[start:end] = np.cumprod(ratios[start:end])
        start = int(end)
    return products


def weighted_importance_sampling(
    rewards: Array,
    policy: Array,
    behavior: Array,
    ends: Array,
    *,
    gamma: float,
    durations: Array | None = None,
    seed: int,
) -> Estimate:
    """Return the per-decision weighted estimate Σ_t gamma^t Σ_e (rho_et / Σ_e rho_et) r_et.

    durations [N]: of the steps, where gamma is the discount of a time; then gamma^time.

    Precup, Sutton & Singh 2000. Consistent; biased towards the behavior policy while few episodes
    carry weight. An episode that has ended keeps its last weight and has reward 0. The interval
    bootstraps episodes. From the first step t on at which fewer than FEWEST episodes carry weight,
    the estimate takes the mean reward of all episodes, and the interval the lowest and the highest.
    """
    rho = _by_episode(cumulative_ratios(policy, behavior, ends), ends, repeat_last=True)
    reward = _by_episode(rewards.astype(np.float64), ends)
    discount = _discounts(gamma, durations, ends)[:, :-1]
    value_now = discount * reward
    few = effective_episodes(rho) < FEWEST
    known = int(few.argmax()) if few.any() else len(few)

    def value(counts: Array) -> float:
        weight = _normalize(counts[:, None] * rho[:, :known])
        return float((weight * value_now[:, :known]).sum())

    estimate = _bootstrap("wis", value, len(ends), seed)
    if known == len(few):
        return estimate
    later = float(value_now[:, known:].mean(axis=0).sum())
    largest = discount[:, known:].max(axis=0).sum()  # of the episodes that last so long
    low, high = (float(bound * largest) for bound in (reward.min(), reward.max()))
    return replace(
        estimate,
        value=estimate.value + later,
        low=estimate.low + low,
        high=estimate.high + high,
        assumptions=(*estimate.assumptions, BOUNDED.format(step=known)),
    )


def effective_episodes(rho: Array) -> Array:
    """Return the number of episodes that carry the weight at each step: (Σ_e rho)² / Σ_e rho², [T].

    Kish 1965. rho [E, T]; 0 where no episode has weight.
    """
    squares = np.maximum((rho**2).sum(axis=0), SMALLEST_WEIGHT)
    number: Array = rho.sum(axis=0) ** 2 / squares
    return number


def doubly_robust(
    rewards: Array,
    policy: Array,
    behavior: Array,
    ends: Array,
    *,
    q_logged: Array,
    v: Array,
    v_end: Array,
    gamma: float,
    durations: Array | None = None,
    seed: int,
) -> Estimate:
    """Return the weighted doubly robust estimate: V(s_0) plus importance-weighted TD errors.

    Jiang & Li 2016, with the weights of Thomas & Brunskill 2016. q_logged [N] is a model's
    Q(s, a) of the logged action, v [N] its Σ_a π(a|s) Q(s, a). Consistent if either the model or
    the behavior probabilities are right.
    """
    rho = _by_episode(cumulative_ratios(policy, behavior, ends), ends, repeat_last=True)
    previous_rho = np.concatenate([np.ones((len(rho), 1)), rho[:, :-1]], axis=1)
    reward = _by_episode(rewards.astype(np.float64), ends)
    q = _by_episode(q_logged.astype(np.float64), ends)
    v = _by_episode(v.astype(np.float64), ends)
    episodes, lengths = np.arange(len(ends)), np.diff(ends, prepend=0)
    discounts = _discounts(gamma, durations, ends)
    discount, end_discount = discounts[:, :-1], discounts[episodes, lengths]

    def value(counts: Array) -> float:
        weight, previous = (_normalize(counts[:, None] * table) for table in (rho, previous_rho))
        steps = weight * (reward - q) + previous * v
        return float((discount * steps).sum()) + extrapolated(counts)

    def extrapolated(counts: Array) -> float:
        weight = _normalize(counts[:, None] * rho)[episodes, lengths - 1]
        return float((weight * end_discount * v_end).sum())

    estimate = _bootstrap("dr", value, len(ends), seed)
    return replace(estimate, extrapolated=extrapolated(np.ones(len(ends))))


def _discounts(gamma: float, durations: Array | None, ends: Array) -> Array:
    """Return gamma^t at the start of each step and at the end of the last, [E, longest + 1]."""
    lengths = np.diff(ends, prepend=0)
    steps = np.ones((len(ends), int(lengths.max())))
    if durations is not None:
        steps = _by_episode(durations.astype(np.float64), ends)
    times = np.concatenate([np.zeros((len(ends), 1)), np.cumsum(steps, axis=1)], axis=1)
    discounts: Array = gamma**times
    return discounts


def _normalize(weights: Array) -> Array:
    """Divide weights [E, T] by their sum over episodes at each step."""
    normalized: Array = weights / np.maximum(weights.sum(axis=0), SMALLEST_WEIGHT)
    return normalized


def _by_episode(
    values: Array, ends: Array, *, repeat_last: bool = False
) -> npt.NDArray[np.float64]:
    """Return values [N] as [E, longest], padded with 0 or with the episode's last value."""
    lengths = np.diff(ends, prepend=0)
    table = np.zeros((len(ends), int(lengths.max())))
    inside = np.arange(table.shape[1]) < lengths[:, None]
    table[inside] = values
    if repeat_last:
        last = np.broadcast_to(values[ends - 1][:, None], table.shape)
        table[~inside] = last[~inside]
    return table


def _bootstrap(
    method: str, value: Callable[[Array], float], n_episodes: int, seed: int
) -> Estimate:
    """Return the estimate from all episodes with the interval's width over replicates."""
    generator = np.random.default_rng([seed, RandomStream.IMPORTANCE_SAMPLING])
    counts = bootstrap_counts(n_episodes, N_REPLICATES, generator)
    _, low, high = bootstrap_interval(np.array([value(replicate) for replicate in counts]))
    center, half_width = value(np.ones(n_episodes)), (high - low) / 2
    return Estimate(
        method=method,
        value=center,
        low=center - half_width,
        high=center + half_width,
        assumptions=ASSUMPTIONS,
    )
