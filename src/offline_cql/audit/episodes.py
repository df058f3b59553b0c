"""Statistics of episodes (lengths, returns, ends) and of rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.distribution import Array, Distribution, summarize
from offline_cql.transitions import Transitions

MAX_POINTS = 200  # of the returns over the log
MAX_DISTINCT = 20  # distinct rewards that are counted


@dataclass(frozen=True)
class EpisodeStatistics:
    """Lengths in steps, returns in the environment's units, and how the episodes end.

    longest: episodes of the largest length; longest_terminated: those of them that terminate.
    over_log: per group of consecutive episodes the number of its first one, then the mean, minimum
    and maximum of the returns.
    """

    count: int
    length: Distribution
    undiscounted: Distribution
    discounted: Distribution
    gamma: float
    terminated: int
    truncated: int
    single_step: int
    longest: int
    longest_terminated: int
    over_log: list[list[float]]


def compute_episodes(transitions: Transitions, *, gamma: float) -> EpisodeStatistics:
    """Return the statistics of all episodes; `discounted` is Σ_t gamma^t · r_t of an episode."""
    lengths, returns = transitions.lengths, transitions.episode_returns()
    terminated = transitions.rows[transitions.ends - 1, transitions.columns.terminated] != 0
    longest = lengths == lengths.max()
    return EpisodeStatistics(
        count=len(lengths),
        length=summarize(lengths),
        undiscounted=summarize(returns),
        discounted=summarize(discounted_returns(transitions, gamma=gamma)),
        gamma=gamma,
        terminated=int(terminated.sum()),
        truncated=int((~terminated).sum()),
        single_step=int((lengths == 1).sum()),
        longest=int(longest.sum()),
        longest_terminated=int((longest & terminated).sum()),
        over_log=_returns_over_log(returns),
    )


def discounted_returns(transitions: Transitions, *, gamma: float) -> Array:
    """Return Σ_t gamma^t · r_t per episode, [E]; t: the time, if steps take different times."""
    starts = transitions.starts
    if transitions.durations is None:  # few different powers: faster
        step = np.arange(len(transitions)) - np.repeat(starts, transitions.lengths)
        weights = (gamma ** np.arange(transitions.lengths.max(), dtype=np.float64))[step]
    else:
        weights = gamma**transitions.elapsed
    returns: Array = np.add.reduceat(transitions.rewards * weights, starts)
    return returns


def _returns_over_log(returns: Array) -> list[list[float]]:
    count = min(len(returns), MAX_POINTS)
    starts = np.linspace(0, len(returns), count, endpoint=False).astype(int)
    sums = np.add.reduceat(returns, starts)
    sizes = np.diff(np.append(starts, len(returns)))
    lows, highs = np.minimum.reduceat(returns, starts), np.maximum.reduceat(returns, starts)
    return np.column_stack([starts, sums / sizes, lows, highs]).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RewardStatistics:
    """Rewards of single steps, in the environment's units.

    zero: share of the steps with reward 0. on_last_steps: share of Σ|r| on the last steps of
    episodes. distinct: number of distinct values, None above MAX_DISTINCT.
    """

    step: Distribution
    zero: float
    on_last_steps: float
    distinct: int | None


def compute_rewards(transitions: Transitions) -> RewardStatistics:
    """Return the statistics of the rewards of all steps."""
    rewards = np.ascontiguousarray(transitions.rewards)
    sizes = np.abs(rewards)
    total = float(sizes.sum(dtype=np.float64))
    on_last_steps = float(sizes[transitions.ends - 1].sum(dtype=np.float64))
    # A glance at the first rows spares most data sets a sort of all.
    few = len(np.unique(rewards[: 10 * MAX_DISTINCT])) <= MAX_DISTINCT
    distinct = len(np.unique(rewards)) if few else MAX_DISTINCT + 1
    return RewardStatistics(
        step=summarize(rewards),
        zero=float((rewards == 0).mean()),
        on_last_steps=on_last_steps / total if total else 0.0,
        distinct=distinct if distinct <= MAX_DISTINCT else None,
    )


def value_scale(episodes: EpisodeStatistics, rewards: RewardStatistics) -> float:
    """Return the order of magnitude of the values that critics learn, in the environment's units.

    The larger of the 5 % and 95 % quantiles of the discounted returns in absolute value and the
    largest |reward|. Not a bound.
    """
    returns = max(abs(episodes.discounted.q05), abs(episodes.discounted.q95))
    return max(returns, abs(rewards.step.min), abs(rewards.step.max))
