"""Figures of the actions: how much of the space they cover. Pure functions over Transitions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from offline_cql.audit.block_reader import Reading
from offline_cql.audit.columns import sampled
from offline_cql.audit.distribution import Array, Distribution, distribution, entropy
from offline_cql.transitions import Transitions

BINS = 20  # over [-1, 1]
SATURATED = 0.999  # of the bound
PAIRS = 66  # of dimensions that are looked at together: those of the first 12
PAIR_ROWS = 50_000


@dataclass(frozen=True)
class Dimension:
    """One dimension of a continuous action, scaled to [-1, 1] between its bounds.

    counts [20] over [-1, 1]; evenness: their entropy relative to that of equal counts, 0 to 1.
    """

    name: str
    mean: float
    std: float
    min: float
    max: float
    saturated: float  # share of the steps within 0.1 % of a bound
    evenness: float
    counts: list[int]


@dataclass(frozen=True)
class Choice:
    """One discrete action and how often it was taken."""

    name: str
    count: int


@dataclass(frozen=True)
class Actions:
    """Dimensions of a continuous action, or the choices of a discrete one.

    pairs: share of the 20 x 20 cells that a pair of dimensions occupies, mean over pairs, and the
    smallest; None with one dimension. entropy: of the choices, in nats.
    """

    dimensions: list[Dimension]
    pairs: float | None
    pairs_min: float | None
    choices: list[Choice]
    entropy: float | None


def actions(reading: Reading) -> Actions:
    """Of the rows looked at; pairs from a sample of them."""
    data = reading.transitions
    return _discrete(reading) if data.spaces.discrete else _continuous(reading)


def _discrete(reading: Reading) -> Actions:
    data = reading.transitions
    count = data.spaces.action_dim
    counts = np.zeros(count, np.int64)
    for rows in reading.blocks():
        taken = data.rows[rows, data.columns.action][:, 0].astype(np.int64)
        counts += np.bincount(taken, minlength=count)
    names = data.action_names or tuple(str(k) for k in range(count))
    choices = [Choice(name, int(n)) for name, n in zip(names, counts, strict=True)]
    return Actions([], None, None, choices, entropy(counts))


def _continuous(reading: Reading) -> Actions:
    data = reading.transitions
    width = data.spaces.action_dim
    counts, beyond = np.zeros((width, BINS), np.int64), np.zeros(width, np.int64)
    total, squares, size = np.zeros(width), np.zeros(width), 0
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for rows in reading.blocks():
        block = data.rows[rows, data.columns.action].astype(np.float64)
        for k, cells in enumerate(_cells(block).T):
            counts[k] += np.bincount(cells, minlength=BINS)
        beyond += (np.abs(block) > SATURATED).sum(axis=0)
        total, squares = total + block.sum(axis=0), squares + (block**2).sum(axis=0)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        size += len(block)
    mean = total / size
    std = np.sqrt(np.maximum(squares / size - mean**2, 0))
    dimensions = [
        Dimension(
            name=name,
            mean=float(mean[k]),
            std=float(std[k]),
            min=float(low[k]),
            max=float(high[k]),
            saturated=float(beyond[k] / size),
            evenness=entropy(counts[k]) / float(np.log(BINS)),
            counts=counts[k].tolist(),
        )
        for k, name in enumerate(data.action_names or map(str, range(width)))
    ]
    shares = _occupied(data.rows[sampled(reading, PAIR_ROWS), data.columns.action])
    mean_share = float(np.mean(shares)) if shares else None
    return Actions(dimensions, mean_share, min(shares) if shares else None, [], None)


def _cells(block: Array) -> Array:
    """The number 0 … 19 of each action's interval of [-1, 1]."""
    return np.clip(((block + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)


def _occupied(block: Array) -> list[float]:
    """Share of occupied cells of each pair of dimensions, block [n, A] in [-1, 1]."""
    cells = _cells(block)
    pairs = list(combinations(range(cells.shape[1]), 2))[:PAIRS]
    found = (np.bincount(cells[:, i] * BINS + cells[:, j], minlength=BINS**2) for i, j in pairs)
    return [float((counts > 0).mean()) for counts in found]


@dataclass(frozen=True)
class Propensities:
    """The behavior's probabilities (densities, in the environment's units) of what it did.

    effective: share of the steps that would count if they were reweighted to a policy that
    chooses at random, (Σw)² / (N Σw²) with w = uniform / propensity; another policy has another.
    """

    values: Distribution
    certain: float  # share of steps with probability 1; 0 with densities
    effective: float


def propensities(transitions: Transitions) -> Propensities | None:
    """Of all steps; None when none were logged."""
    if transitions.propensities is None:
        return None
    logged = np.asarray(transitions.propensities, np.float64)
    weights = 1 / logged  # the uniform factor cancels
    effective = weights.sum() ** 2 / (len(logged) * (weights**2).sum())
    certain = float((logged == 1).mean()) if transitions.spaces.discrete else 0.0
    return Propensities(distribution(logged), certain, float(effective))
