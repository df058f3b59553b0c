"""Compare the actions that a policy chooses with the logged ones, for discrete actions.

Shares per action, agreement, and the regions of the state space in which they differ most: the
leaves of a small decision tree. N states; actions are indices.
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
    """What a policy does beside the data, on so many states.

    agreement: share of the states with the same action. regions: those with the most differing
    states first; one without conditions where no column tells where they differ.
    """

    states: int
    agreement: float
    actions: list[ActionShare]
    regions: list[Region]


def compare_actions(
    observations: Array,
    logged: Array,
    chosen: Array,
    *,
    action_names: Sequence[str],
    observation_names: Sequence[str],
) -> ActionComparison:
    """Compare logged and chosen actions [N] in states [N, D]; D is 0 for images."""
    counts = [np.bincount(a, minlength=len(action_names)) / len(a) for a in (logged, chosen)]
    stride = -(-len(logged) // MAX_STATES)
    states, taken, policy = observations[::stride], logged[::stride], chosen[::stride]
    leaves = _grow(states, taken != policy, np.ones(len(taken), bool), [])
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
    observations: Array, differs: Array, rows: Array, conditions: list[Condition]
) -> list[Leaf]:
    """Return the leaves below a node: masks of states [N] and their conditions."""
    split = _best_split(observations, differs, rows) if len(conditions) < DEPTH else None
    if split is None:
        return [(rows, conditions)]
    column, threshold = split
    above = observations[:, column] > threshold
    sides = (rows & above, True), (rows & ~above, False)
    return [
        leaf
        for side, is_above in sides
        for leaf in _grow(observations, differs, side, [*conditions, (column, threshold, is_above)])
    ]


def _best_split(observations: Array, differs: Array, rows: Array) -> tuple[int, float] | None:
    """Return the column and threshold with the purest sides (Gini), None if none gains enough."""
    values, target = observations[rows].astype(np.float64), differs[rows].astype(np.float64)
    size, total = len(target), target.sum()
    least = max(1.0, MIN_SHARE * len(differs))
    impurity = total * (size - total) / size
    best, least_impurity = None, impurity * (1 - max(MIN_GAIN, CHANCE / size))
    for column in range(values.shape[1]):
        for threshold in np.unique(np.quantile(values[:, column], QUANTILES)):
            above = values[:, column] > threshold
            count, hits = above.sum(), target[above].sum()
            if min(count, size - count) < least:
                continue
            misses, rest = total - hits, size - count
            sides = hits * (count - hits) / count + misses * (rest - misses) / rest
            if sides < least_impurity:
                best, least_impurity = (column, float(threshold)), sides
    return best


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
        conditions=[
            f"{observation_names[column]} {'>' if above else '≤'} {format_number(threshold)}"
            for column, threshold, above in conditions
        ],
        share=len(logged) / states,
        agreement=float(1 - differs.mean()),
        logged=action_names[taken] if len(pairs) else None,
        chosen=action_names[policy] if len(pairs) else None,
        pair_share=float(counts.max() / len(logged)),
    )
