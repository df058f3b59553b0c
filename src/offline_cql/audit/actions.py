"""Statistics of the actions: coverage of the action space, and logged propensities."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import Array, Distribution, entropy, summarize
from offline_cql.readers.writer import FEW_VALUES, few_values
from offline_cql.transitions import Transitions

BINS = 20  # over [-1, 1]
SATURATION = 0.999  # of the bound
MAX_PAIRS = 66  # pairs of dimensions: those of the first 12
PAIR_ROWS = 50_000


@dataclass(frozen=True)
class ActionDimension:
    """One dimension of a continuous action, scaled to [-1, 1] between its bounds.

    at_bounds: share of the steps within 0.1 % of a bound. counts [20]: histogram over [-1, 1].
    normalized_entropy: entropy of counts relative to a uniform histogram, 0 to 1. distinct: number
    of different values, None above FEW_VALUES.
    """

    name: str
    mean: float
    std: float
    min: float
    max: float
    at_bounds: float
    normalized_entropy: float
    counts: list[int]
    distinct: int | None


@dataclass(frozen=True)
class DiscreteAction:
    """One discrete action and the number of steps that took it."""

    name: str
    count: int


@dataclass(frozen=True)
class ActionStatistics:
    """Coverage of the action space: dimensions if it is continuous, discrete_actions if not.

    pair_coverage: share of 20 x 20 cells that a pair of dimensions occupies, mean over pairs;
    pair_coverage_min: the smallest; None with one dimension. entropy: of the discrete actions,
    in nats.
    """

    dimensions: list[ActionDimension] = field(default_factory=list)
    pair_coverage: float | None = None
    pair_coverage_min: float | None = None
    discrete_actions: list[DiscreteAction] = field(default_factory=list)
    entropy: float | None = None


def compute_actions(reader: BlockReader) -> ActionStatistics:
    """Return the statistics of the rows that the reader reads; pair coverage from a sample."""
    if reader.transitions.spaces.discrete:
        return _compute_discrete(reader)
    coverage = _pair_coverage(reader)
    return ActionStatistics(
        dimensions=_compute_dimensions(reader),
        pair_coverage=float(np.mean(coverage)) if coverage else None,
        pair_coverage_min=min(coverage) if coverage else None,
    )


def _compute_discrete(reader: BlockReader) -> ActionStatistics:
    data = reader.transitions
    size = data.spaces.action_dim
    counts = np.zeros(size, np.int64)
    for rows in reader.blocks():
        indices = data.rows[rows, data.columns.action][:, 0].astype(np.int64)
        counts += np.bincount(indices, minlength=size)
    names = data.action_names or map(str, range(size))
    actions = [DiscreteAction(name, int(n)) for name, n in zip(names, counts, strict=True)]
    return ActionStatistics(discrete_actions=actions, entropy=entropy(counts))


def _compute_dimensions(reader: BlockReader) -> list[ActionDimension]:
    data = reader.transitions
    width = data.spaces.action_dim
    counts, at_bounds = np.zeros((width, BINS), np.int64), np.zeros(width, np.int64)
    total, squares, size = np.zeros(width), np.zeros(width), 0
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    distinct: list[Array] = [np.empty(0)] * width
    for rows in reader.blocks():
        actions = data.rows[rows, data.columns.action].astype(np.float64)
        distinct = [few_values(*pair) for pair in zip(distinct, actions.T, strict=True)]
        for k, bins in enumerate(_bin_indices(actions).T):
            counts[k] += np.bincount(bins, minlength=BINS)
        at_bounds += (np.abs(actions) > SATURATION).sum(axis=0)
        total, squares = total + actions.sum(axis=0), squares + (actions**2).sum(axis=0)
        low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
        size += len(actions)
    mean = total / size
    std = np.sqrt(np.maximum(squares / size - mean**2, 0))
    return [
        ActionDimension(
            name=name,
            mean=float(mean[k]),
            std=float(std[k]),
            min=float(low[k]),
            max=float(high[k]),
            at_bounds=float(at_bounds[k] / size),
            normalized_entropy=entropy(counts[k]) / float(np.log(BINS)),
            counts=counts[k].tolist(),
            distinct=len(distinct[k]) if len(distinct[k]) <= FEW_VALUES else None,
        )
        for k, name in enumerate(data.action_names or map(str, range(width)))
    ]


def _pair_coverage(reader: BlockReader) -> list[float]:
    """Return the share of occupied 20 x 20 cells per pair of dimensions."""
    data = reader.transitions
    bins = _bin_indices(data.rows[reader.sample_rows(PAIR_ROWS), data.columns.action])
    pairs = list(combinations(range(bins.shape[1]), 2))[:MAX_PAIRS]
    cells = (np.bincount(bins[:, i] * BINS + bins[:, j], minlength=BINS**2) for i, j in pairs)
    return [float((counts > 0).mean()) for counts in cells]


def _bin_indices(actions: Array) -> Array:
    """Return the histogram bin 0 … 19 over [-1, 1] of each action."""
    return np.clip(((actions + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)


@dataclass(frozen=True)
class PropensityStatistics:
    """Logged probabilities of the behavior policy (densities, in the environment's units).

    deterministic: share of the steps with probability 1; 0 with densities.
    effective_sample_share: (Σw)² / (N Σw²) with w = uniform / propensity, the share of the steps
    that would count in an estimate for the uniformly random policy; other policies differ.
    """

    values: Distribution
    deterministic: float
    effective_sample_share: float


def compute_propensities(transitions: Transitions) -> PropensityStatistics | None:
    """Return the statistics over all steps; None when no propensities were logged."""
    if transitions.propensities is None:
        return None
    propensities = np.asarray(transitions.propensities, np.float64)
    weights = 1 / propensities  # the uniform factor cancels
    effective = weights.sum() ** 2 / (len(propensities) * (weights**2).sum())
    discrete = transitions.spaces.discrete
    deterministic = float((propensities == 1).mean()) if discrete else 0.0
    return PropensityStatistics(summarize(propensities), deterministic, float(effective))
