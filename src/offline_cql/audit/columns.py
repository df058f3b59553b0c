"""Figures of each observation column. Pure functions over Transitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import Array, Reading
from offline_cql.audit.distribution import QUANTILES
from offline_cql.transitions import ActionMap

FAR = 20.0  # standard deviations from the mean: no measurement of the same kind
NEARLY = 1e-6  # a standard deviation below this share of the size says nothing
SAMPLED = 20_000  # rows of the quantiles and of the comparison with the action
APART = 10.0  # widths of the middle half between a sentinel and the next value
REPEATED = 5  # times in the sample
ALWAYS = 0.99  # share of rows in which two columns agree, to be the same


@dataclass(frozen=True)
class Column:
    """One column, in the data's units. quantiles: 5, 25, 50, 75, 95 %, of a sample.

    same_as: `action …` or `reward` of the same step, where the column repeats it.
    """

    name: str
    mean: float
    std: float
    min: float
    max: float
    quantiles: list[float]
    constant: bool
    nearly_constant: bool
    binary: bool  # only 0 and 1
    whole: bool  # only whole numbers
    far: int  # rows more than 20 standard deviations from the mean
    sentinel: float | None  # an extreme that repeats, far from all else, as -999 does
    grows: bool  # with every step of every episode, as a clock does
    fixed_in_episodes: bool  # the same throughout an episode, as an id or a goal is
    same_as: str | None


@dataclass(frozen=True)
class Columns:
    """The observation's columns, or so many of a wide one, evenly spread.

    one_hot: groups of neighboring columns of which exactly one is 1.
    """

    total: int
    columns: list[Column]
    one_hot: list[list[str]]


def columns(reading: Reading) -> Columns:
    """Of the rows looked at; quantiles and comparisons with the action from a sample of them."""
    sums = _Sums(len(reading.columns))
    for rows in reading.blocks():
        longer = reading.and_one(rows)
        observations = reading.observations(longer).astype(np.float64)
        sums.add(observations[: rows.stop - rows.start])
        sums.add_changes(np.diff(observations, axis=0)[reading.inside(longer)])
    mean, std = sums.mean, np.sqrt(sums.squares / sums.count)
    far = np.zeros(len(mean), int)
    spread = FAR * std
    if ((sums.high - mean > spread) | (mean - sums.low > spread)).any():
        for rows in reading.blocks():
            far += (np.abs(reading.observations(rows) - mean) > spread).sum(axis=0)
    sample = sampled(reading)
    observations = reading.observations(sample).astype(np.float64)
    quantiles = np.quantile(observations, QUANTILES, axis=0).T
    constant = sums.low == sums.high
    size = np.maximum(np.abs(sums.low), np.abs(sums.high))
    nearly = ~constant & (std < NEARLY * size)
    steps = sums.pairs > 0
    fixed = steps & (sums.largest == 0) & (sums.smallest == 0) & ~constant
    sentinels = [_sentinel(values) for values in observations.T]
    same = _same_as(reading, sample, observations, varies=~constant)
    names = reading.names()
    found = [
        Column(
            name=names[k],
            mean=float(mean[k]),
            std=float(std[k]),
            min=float(sums.low[k]),
            max=float(sums.high[k]),
            quantiles=quantiles[k].tolist(),
            constant=bool(constant[k]),
            nearly_constant=bool(nearly[k]),
            binary=bool(sums.binary[k]),
            whole=bool(sums.whole[k]),
            far=int(far[k]),
            sentinel=sentinels[k],
            grows=bool(steps and sums.smallest[k] > 0),
            fixed_in_episodes=bool(fixed[k]),
            same_as=same[k],
        )
        for k in range(len(names))
    ]
    groups = one_hot(observations, sums.binary & ~constant)
    return Columns(
        total=reading.transitions.spaces.observation_dim,
        columns=found,
        one_hot=[[names[k] for k in group] for group in groups],
    )


def one_hot(observations: Array, binary: Array) -> list[list[int]]:
    """Neighboring columns of which exactly one is 1 in every row: the shortest such groups,
    from the left. observations [n, C]; binary [C]: which columns may take part."""
    groups: list[list[int]] = []
    start, total = 0, np.zeros(len(observations))
    for k in range(observations.shape[1]):
        if not binary[k]:
            start, total = k + 1, np.zeros(len(observations))
            continue
        total = total + observations[:, k]
        if (total == 1).all():
            groups.append(list(range(start, k + 1)))
            start, total = k + 1, np.zeros(len(observations))
    return groups


def sampled(reading: Reading, most: int = SAMPLED) -> Array:
    """Rows evenly spread over the log, ascending."""
    size = len(reading.transitions)
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def _sentinel(values: Array) -> float | None:
    """The smallest or largest of values [n], where it repeats with a wide gap to all others.

    A clipped measurement repeats its limit too, but comes close to it.
    """
    left, right = np.quantile(values, (0.25, 0.75))
    found, counts = np.unique(values, return_counts=True)
    if len(found) < 3 or left == right:
        return None
    for extreme, next_, count in (
        (found[0], found[1], counts[0]),
        (found[-1], found[-2], counts[-1]),
    ):
        if count >= REPEATED and abs(next_ - extreme) > APART * (right - left):
            return float(extreme)
    return None


def _same_as(
    reading: Reading, sample: Array, observations: Array, *, varies: Array
) -> list[str | None]:
    data = reading.transitions
    packed = data.rows[sample]
    candidates: dict[str, Array] = {"the reward": packed[:, data.columns.reward].astype(np.float64)}
    actions = packed[:, data.columns.action].astype(np.float64)
    own = data.spaces
    if own.discrete:
        candidates["the action"] = actions[:, 0]
    else:
        outside = ActionMap(own.action_low, own.action_high).to_environment(actions)
        for k in range(own.action_dim):
            name = f"action {data.action_names[k] if data.action_names else k}"
            candidates[name] = outside[:, k]
            candidates[f"{name}, scaled to [-1, 1]"] = actions[:, k]
    result: list[str | None] = [None] * observations.shape[1]
    for name, values in candidates.items():
        if values.min() == values.max():
            continue
        equal = np.isclose(observations, values[:, None], rtol=1e-5, atol=1e-6).mean(axis=0)
        for column in np.flatnonzero((equal >= ALWAYS) & varies):
            result[column] = result[column] or name
    return result


class _Sums:
    """Moments and extremes of C columns, and of their differences inside episodes, so far."""

    def __init__(self, width: int):
        self.count, self.pairs = 0, 0
        self.mean: Array = np.zeros(width)
        self.squares: Array = np.zeros(width)
        self.low: Array = np.full(width, np.inf)
        self.high: Array = -self.low
        self.smallest, self.largest = self.low, self.high
        self.whole: Array = np.ones(width, bool)
        self.binary: Array = np.ones(width, bool)

    def add(self, block: Array) -> None:
        """block [n, C] float64."""
        count, mean = len(block), block.mean(axis=0)
        # Chan, Golub & LeVeque 1979: exact enough for columns far from 0.
        shift, total = mean - self.mean, self.count + count
        self.squares += ((block - mean) ** 2).sum(axis=0)
        self.squares += shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total
        self.low = np.minimum(self.low, block.min(axis=0))
        self.high = np.maximum(self.high, block.max(axis=0))
        if self.whole.any():
            self.whole &= (block == np.rint(block)).all(axis=0)
            self.binary &= self.whole & (self.low >= 0) & (self.high <= 1)

    def add_changes(self, changes: Array) -> None:
        """changes [m, C]: differences of consecutive steps of an episode."""
        if len(changes):
            self.pairs += len(changes)
            self.smallest = np.minimum(self.smallest, changes.min(axis=0))
            self.largest = np.maximum(self.largest, changes.max(axis=0))
