"""Statistics of each observation column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import QUANTILES, Array

OUTLIER_STD = 20.0  # standard deviations from the mean
NEARLY_CONSTANT = 1e-4  # std / |mean|; normalized, 1 % of the mean is then 100 units
SAMPLE_ROWS = 20_000  # for quantiles
SENTINEL_GAP = 10.0  # interquartile ranges between a sentinel and the next value
SENTINEL_REPEATS = 5  # in the sample


@dataclass(frozen=True)
class ColumnStatistics:
    """One observation column, in the data's units.

    quantiles: 5, 25, 50, 75 and 95 % of a sample. integer: whole numbers only; binary: 0 and 1
    only. outliers: rows more than 20 standard deviations from the mean, of flags 0, which are not
    standardized. sentinel: an extreme value
    that repeats far from all others, as -999 for a missing measurement does. increasing: grows with
    every step of every episode, as a clock does. constant_per_episode: does not change within an
    episode, as an id or a goal does.
    """

    name: str
    mean: float
    std: float
    min: float
    max: float
    quantiles: list[float]
    constant: bool
    nearly_constant: bool
    binary: bool
    integer: bool
    outliers: int
    sentinel: float | None
    increasing: bool
    constant_per_episode: bool


@dataclass(frozen=True)
class ObservationStatistics:
    """The columns of the observation; of a wide one a subset, evenly spread.

    total: columns of the observation. one_hot_groups: neighboring columns, by name, of which
    exactly one is 1.
    """

    total: int
    columns: list[ColumnStatistics]
    one_hot_groups: list[list[str]]


def compute_columns(reader: BlockReader) -> ObservationStatistics:
    """Return the statistics of the rows and columns that the reader reads."""
    moments = _compute_moments(reader)
    outliers = _count_outliers(reader, moments)
    sample = reader.observations(reader.sample_rows(SAMPLE_ROWS)).astype(np.float64)
    quantiles = np.quantile(sample, QUANTILES, axis=0).T
    constant = moments.low == moments.high
    nearly_constant = ~constant & (moments.std < NEARLY_CONSTANT * np.abs(moments.mean))
    has_pairs = moments.pairs > 0
    increasing = has_pairs & (moments.smallest_change > 0)
    unchanged = (moments.largest_change == 0) & (moments.smallest_change == 0)
    names = reader.column_names()
    columns = [
        ColumnStatistics(
            name=names[k],
            mean=float(moments.mean[k]),
            std=float(moments.std[k]),
            min=float(moments.low[k]),
            max=float(moments.high[k]),
            quantiles=quantiles[k].tolist(),
            constant=bool(constant[k]),
            nearly_constant=bool(nearly_constant[k]),
            binary=bool(moments.binary[k]),
            integer=bool(moments.integer[k]),
            outliers=0 if moments.binary[k] else int(outliers[k]),
            sentinel=find_sentinel(sample[:, k]),
            increasing=bool(increasing[k]),
            constant_per_episode=bool(has_pairs and unchanged[k] and not constant[k]),
        )
        for k in range(len(names))
    ]
    groups = find_one_hot_groups(sample, moments.binary & ~constant)
    return ObservationStatistics(
        total=reader.transitions.spaces.observation_dim,
        columns=columns,
        one_hot_groups=[[names[k] for k in group] for group in groups],
    )


def find_one_hot_groups(observations: Array, binary: Array) -> list[list[int]]:
    """Return the shortest runs of neighboring columns of which exactly one is 1 in every row.

    observations [n, C]; binary [C]: mask of the columns that may belong to a group.
    """
    groups: list[list[int]] = []
    start, total = 0, np.zeros(len(observations))
    for k in range(observations.shape[1]):
        total = total + observations[:, k]
        complete = bool(binary[k]) and (total == 1).all()
        if complete:
            groups.append(list(range(start, k + 1)))
        if complete or not binary[k]:
            start, total = k + 1, np.zeros(len(observations))
    return groups


def find_sentinel(values: Array) -> float | None:
    """Return the minimum or maximum of `values` [n] if it repeats far from all other values.

    At least SENTINEL_REPEATS times, and more than SENTINEL_GAP interquartile ranges from the next
    value. A clipped measurement repeats its limit too, but other values come close to it.
    """
    q25, q75 = np.quantile(values, (0.25, 0.75))
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 3 or q25 == q75:
        return None
    for extreme, neighbor, count in (
        (distinct[0], distinct[1], counts[0]),
        (distinct[-1], distinct[-2], counts[-1]),
    ):
        if count >= SENTINEL_REPEATS and abs(neighbor - extreme) > SENTINEL_GAP * (q75 - q25):
            return float(extreme)
    return None


def _compute_moments(reader: BlockReader) -> _Moments:
    moments = _Moments(len(reader.column_indices))
    for rows in reader.blocks():
        extended = reader.with_next_row(rows)
        observations = reader.observations(extended).astype(np.float64)
        moments.add(observations[: rows.stop - rows.start])
        moments.add_changes(np.diff(observations, axis=0)[reader.consecutive(extended)])
    return moments


def _count_outliers(reader: BlockReader, moments: _Moments) -> Array:
    """Return the number of rows per column beyond OUTLIER_STD; a second pass only if needed."""
    outliers = np.zeros(len(moments.mean), int)
    limit = OUTLIER_STD * moments.std
    if ((moments.high - moments.mean > limit) | (moments.mean - moments.low > limit)).any():
        for rows in reader.blocks():
            outliers += (np.abs(reader.observations(rows) - moments.mean) > limit).sum(axis=0)
    return outliers


class _Moments:
    """Running moments and extremes of C columns, and of their changes within episodes."""

    def __init__(self, width: int):
        self.count, self.pairs = 0, 0
        self.mean: Array = np.zeros(width)
        self.squares: Array = np.zeros(width)
        self.low: Array = np.full(width, np.inf)
        self.high: Array = -self.low
        self.smallest_change, self.largest_change = self.low, self.high
        self.integer: Array = np.ones(width, bool)
        self.binary: Array = np.ones(width, bool)

    @property
    def std(self) -> Array:
        """Standard deviation [C] of the population."""
        std: Array = np.sqrt(self.squares / self.count)
        return std

    def add(self, block: Array) -> None:
        """Add rows `block` [n, C], float64."""
        count, mean = len(block), block.mean(axis=0)
        # Chan, Golub & LeVeque 1979: exact enough for columns far from 0.
        shift, total = mean - self.mean, self.count + count
        self.squares += ((block - mean) ** 2).sum(axis=0)
        self.squares += shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total
        self.low = np.minimum(self.low, block.min(axis=0))
        self.high = np.maximum(self.high, block.max(axis=0))
        if self.integer.any():
            self.integer &= (block == np.rint(block)).all(axis=0)
            self.binary &= self.integer & (self.low >= 0) & (self.high <= 1)

    def add_changes(self, changes: Array) -> None:
        """Add differences [m, C] between consecutive steps of an episode."""
        if len(changes):
            self.pairs += len(changes)
            self.smallest_change = np.minimum(self.smallest_change, changes.min(axis=0))
            self.largest_change = np.maximum(self.largest_change, changes.max(axis=0))
