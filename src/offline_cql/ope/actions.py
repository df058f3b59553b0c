"""Compare the actions that a policy chooses with the logged ones.

Shares of discrete actions or spreads of continuous ones, and the regions of the state space in
which they differ most: the leaves of a small decision tree. N states, A dimensions of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.render.numbers import format_number

Array = npt.NDArray[Any]
DEPTH = 2  # of the tree: regions have up to two conditions
MIN_SHARE = 0.05  # of the states in a region
QUANTILES = np.arange(0.1, 1, 0.1)  # where a column may be split
MIN_GAIN = 0.01  # of a node's impurity
CHANCE = 20.0  # states times gain; the best of hundreds of splits reaches as much by chance
MAX_STATES = 20_000  # that the tree is grown on


@dataclass(frozen=True, kw_only=True)
class ActionShare:
    """One action: the shares of the states in which the data and the policy take it."""

    name: str
    logged: float
    chosen: float


@dataclass(frozen=True, kw_only=True)
class Region:
    """States that fulfill the conditions, as `speed > 0.3`: their share and the agreement.

    logged, chosen: the most frequent pair of different actions, and its share of the region's
    states; None where all agree.
    """

    conditions: list[str]
    share: float
    agreement: float
    logged: str | None
    chosen: str | None
    pair_share: float


@dataclass(frozen=True, kw_only=True)
class ActionComparison:
    """What a policy with discrete actions does beside the data, on so many states.

    agreement: share of the states with the same action. regions: those with the most differing
    states first; one without conditions where no column tells where they differ.
    """

    states: int
    agreement: float
    actions: list[ActionShare]
    regions: list[Region]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean, standard deviation, and the 5 % and 95 % quantiles, in the environment's units."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class DimensionComparison:
    """One dimension of a continuous action; difference: mean |chosen - logged|."""

    name: str
    logged: Spread
    chosen: Spread
    difference: float


@dataclass(frozen=True, kw_only=True)
class ContinuousRegion:
    """States that fulfill the conditions: their share and the mean distance of the actions.

    distance: mean over dimensions of |chosen - logged|, in standard deviations of the logged
    actions. dimension, shift: the one with the largest mean change, chosen less logged, in the
    environment's units.
    """

    conditions: list[str]
    share: float
    distance: float
    dimension: str
    shift: float


@dataclass(frozen=True, kw_only=True)
class ContinuousComparison:
    """What a policy does beside the data, on so many states; regions: the most distant first."""

    states: int
    dimensions: list[DimensionComparison]
    regions: list[ContinuousRegion]


Comparison = ActionComparison | ContinuousComparison


def compare_continuous(
    observations: Array,
    logged: Array,
    chosen: Array,
    *,
    action_names: Sequence[str],
    observation_names: Sequence[str],
) -> ContinuousComparison:
    """Compare logged and chosen actions [N, A] in states [N, D]; D is 0 for images."""
    stride = -(-len(logged) // MAX_STATES)
    change, std = (chosen - logged)[::stride].astype(np.float64), logged.std(axis=0)
    scaled = change / np.where(std > 0, std, 1.0)
    distance = np.abs(scaled).mean(axis=1)
    leaves = _grow(observations[::stride], distance, np.ones(len(change), bool), [])
    regions = []
    for rows, conditions in leaves:
        k = int(np.abs(scaled[rows].mean(axis=0)).argmax())
        region = ContinuousRegion(
            conditions=_texts(conditions, observation_names),
            share=float(rows.mean()),
            distance=float(distance[rows].mean()),
            dimension=action_names[k],
            shift=float(change[rows, k].mean()),
        )
        regions.append(region)
    return ContinuousComparison(
        states=len(logged),
        dimensions=[
            DimensionComparison(
                name=name,
                logged=_spread(logged[:, k]),
                chosen=_spread(chosen[:, k]),
                difference=float(np.abs(chosen[:, k] - logged[:, k]).mean()),
            )
            for k, name in enumerate(action_names)
        ],
        regions=sorted(regions, key=lambda region: -region.distance),
    )


def _spread(values: Array) -> Spread:
    low, high = np.quantile(values, (0.05, 0.95))
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return Spread(mean=float(mean), std=float(std), low=float(low), high=float(high))


def compare_actions(
    observations: Array,
    logged: Array,
    chosen: Array,
    *,
    action_names: Sequence[str],
    observation_names: Sequence[str],
) -> ActionComparison:
    """Compare logged and chosen discrete actions [N] in states [N, D]; D is 0 for images."""
    counts = [np.bincount(a, minlength=len(action_names)) / len(a) for a in (logged, chosen)]
    stride = -(-len(logged) // MAX_STATES)
    states, taken, policy = observations[::stride], logged[::stride], chosen[::stride]
    leaves = _grow(states, (taken != policy) * 1.0, np.ones(len(taken), bool), [])
    regions = [
        _region(conditions, taken[rows], policy[rows], len(rows), action_names, observation_names)
        for rows, conditions in leaves
    ]
    return ActionComparison(
        states=len(logged),
        agreement=float((logged == chosen).mean()),
        actions=[
            ActionShare(name=name, logged=float(a), chosen=float(b))
            for name, a, b in zip(action_names, *counts, strict=True)
        ],
        regions=sorted(regions, key=lambda region: -region.share * (1 - region.agreement)),
    )


Condition = tuple[int, float, bool]  # column, threshold, above it
Leaf = tuple[Array, list[Condition]]


def _grow(
    observations: Array, target: Array, rows: Array, conditions: list[Condition]
) -> list[Leaf]:
    """Return the leaves below a node: masks of states [N] and their conditions."""
    split = _best_split(observations, target, rows) if len(conditions) < DEPTH else None
    if split is None:
        return [(rows, conditions)]
    column, threshold = split
    above = observations[:, column] > threshold
    sides = (rows & above, True), (rows & ~above, False)
    return [
        leaf
        for side, is_above in sides
        for leaf in _grow(observations, target, side, [*conditions, (column, threshold, is_above)])
    ]


def _best_split(observations: Array, target: Array, rows: Array) -> tuple[int, float] | None:
    """Return the column and threshold that explain most of target's variance; None without gain.

    Of a target of 0 and 1 the variance is Gini's impurity.
    """
    values, y = observations[rows].astype(np.float64), target[rows]
    size, y = len(y), y - y.mean()
    least = max(1.0, MIN_SHARE * len(target))
    best, most = None, (y**2).sum() * max(MIN_GAIN, CHANCE / size)
    for column in range(values.shape[1]):
        for threshold in np.unique(np.quantile(values[:, column], QUANTILES)):
            above = values[:, column] > threshold
            count = int(above.sum())
            if min(count, size - count) < least:
                continue
            gain = y[above].sum() ** 2 * (1 / count + 1 / (size - count))
            if gain > most:
                best, most = (column, float(threshold)), gain
    return best


def _texts(conditions: list[Condition], names: Sequence[str]) -> list[str]:
    return [
        f"{names[column]} {'>' if above else '≤'} {format_number(threshold)}"
        for column, threshold, above in conditions
    ]


def _region(
    conditions: list[Condition],
    logged: Array,
    chosen: Array,
    states: int,
    action_names: Sequence[str],
    observation_names: Sequence[str],
) -> Region:
    differs = logged != chosen
    pairs = logged[differs] * len(action_names) + chosen[differs]
    counts = np.bincount(pairs) if len(pairs) else np.zeros(1, int)
    taken, policy = divmod(int(counts.argmax()), len(action_names))
    return Region(
        conditions=_texts(conditions, observation_names),
        share=len(logged) / states,
        agreement=float(1 - differs.mean()),
        logged=action_names[taken] if len(pairs) else None,
        chosen=action_names[policy] if len(pairs) else None,
        pair_share=float(counts.max() / len(logged)),
    )
