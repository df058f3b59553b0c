"""Figures of episodes and rewards. Pure functions over Transitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.distribution import Array, Distribution, distribution
from offline_cql.transitions import Transitions

MOST_POINTS = 200  # of the return over the log
MOST_VALUES = 20  # of different rewards that are counted


@dataclass(frozen=True)
class Episodes:
    """Lengths in steps, returns in the environment's units. over_the_log: in groups of
    consecutive episodes, the first one's number and the returns' mean, minimum and maximum."""

    count: int
    length: Distribution
    undiscounted: Distribution
    discounted: Distribution
    gamma: float
    terminal: int
    truncated: int
    of_one_step: int
    longest: int  # episodes of the largest length
    longest_terminal: int  # of those, how many end terminal
    over_the_log: list[list[float]]


def episodes(transitions: Transitions, *, gamma: float) -> Episodes:
    """Of all episodes; `discounted` is the sum of gamma^t · r_t from an episode's first step."""
    lengths, returns = transitions.lengths, transitions.episode_returns()
    ended = transitions.rows[transitions.ends - 1, transitions.columns.terminated] != 0
    longest = lengths == lengths.max()
    return Episodes(
        count=len(lengths),
        length=distribution(lengths),
        undiscounted=distribution(returns),
        discounted=distribution(discounted_returns(transitions, gamma=gamma)),
        gamma=gamma,
        terminal=int(ended.sum()),
        truncated=int((~ended).sum()),
        of_one_step=int((lengths == 1).sum()),
        longest=int(longest.sum()),
        longest_terminal=int((longest & ended).sum()),
        over_the_log=_over_the_log(returns),
    )


def discounted_returns(transitions: Transitions, *, gamma: float) -> Array:
    """Σ_t gamma^t · r_t of each episode, [E]."""
    starts = transitions.starts
    step = np.arange(len(transitions)) - np.repeat(starts, transitions.lengths)
    weights = gamma ** np.arange(transitions.lengths.max(), dtype=np.float64)
    found: Array = np.add.reduceat(transitions.rewards * weights[step], starts)
    return found


def _over_the_log(returns: Array) -> list[list[float]]:
    count = min(len(returns), MOST_POINTS)
    starts = np.linspace(0, len(returns), count, endpoint=False).astype(int)
    sums = np.add.reduceat(returns, starts)
    sizes = np.diff(np.append(starts, len(returns)))
    lows, highs = np.minimum.reduceat(returns, starts), np.maximum.reduceat(returns, starts)
    return np.column_stack([starts, sums / sizes, lows, highs]).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Rewards:
    """Of single steps, in the environment's units."""

    step: Distribution
    zero: float  # share of the steps
    at_ends: float  # share of Σ|r| that falls on the last steps of episodes
    values: int | None  # how many different ones; None: more than are counted


def rewards(transitions: Transitions) -> Rewards:
    """Of all steps."""
    found = np.ascontiguousarray(transitions.rewards)
    size = np.abs(found)
    total = float(size.sum(dtype=np.float64))
    last = float(size[transitions.ends - 1].sum(dtype=np.float64))
    # Looking at some first spares most data sets a sort of all.
    few = len(np.unique(found[: 10 * MOST_VALUES])) <= MOST_VALUES
    values = len(np.unique(found)) if few else MOST_VALUES + 1
    return Rewards(
        step=distribution(found),
        zero=float((found == 0).mean()),
        at_ends=last / total if total else 0.0,
        values=values if values <= MOST_VALUES else None,
    )


def value_size(episodes: Episodes, rewards: Rewards) -> float:
    """How large values are that critics have to learn, in the environment's units.

    The larger of the 95 % of |discounted return| over episodes and the largest |reward|: an
    order of magnitude, not a bound.
    """
    returns = max(abs(episodes.discounted.q05), abs(episodes.discounted.q95))
    return max(returns, abs(rewards.step.min), abs(rewards.step.max))
