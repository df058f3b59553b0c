"""Spread of actions and returns among similar states: the part that the state leaves open.

A nearest-neighbor estimate that needs no training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import Array, entropy
from offline_cql.data.returns import returns_to_go

MAX_QUERIES = 2_000  # states whose neighbors are searched
MAX_CANDIDATES = 100_000  # states among which they are searched
K = 20  # neighbors per state
QUERIES_PER_BLOCK = 100  # a block of distances then takes 40 MB
CLIP_STD = 5.0  # standard deviations; limits the weight of an outlier in the distance
BINS = 20
SEED = 0x5EED


@dataclass(frozen=True)
class NeighborStatistics:
    """The spread of actions and returns among the k nearest states, taken from other episodes.

    action_spread: local variance over the total variance, mean over dimensions and states; for
    discrete actions local entropy over total entropy. 0 when the state decides the action, about 1
    when it does not matter. action_entropy (local) and action_entropy_total in nats, None for
    continuous actions. return_spread: the same for discounted returns-to-go, None when all are
    equal. relative_distance: median distance of a neighbor over that of a random state; near 1 the
    neighbors are not similar and the spreads mean little. counts [20] of states by their own action
    spread, edges from 0 to 2; the last bin holds the rest.

    Where action_spread is near 0, the data show one action per state: behavior cloning reaches
    what they show, and CQL has nothing to choose from. Where both spread, different actions had
    different outcomes, and CQL can prefer the better ones.

    Limits: the spread is too high where neighbors are far apart (many dimensions, few data). The
    return's spread includes the environment's randomness and later actions, and the returns of a
    truncated episode stop at its end.
    """

    states: int
    candidates: int
    k: int
    other_episodes: bool
    relative_distance: float
    action_spread: float
    action_entropy: float | None
    action_entropy_total: float | None
    return_spread: float | None
    edges: list[float]
    counts: list[int]


def compute_neighbors(reader: BlockReader, *, gamma: float) -> NeighborStatistics | None:
    """Return the statistics of a sample of states drawn with a fixed seed.

    None with fewer than 2 K transitions. Neighbors come from the same episode only when the other
    episodes together have fewer than 2 K candidates.
    """
    data = reader.transitions
    if len(data) < 2 * K:
        return None
    candidates = _draw(len(data), MAX_CANDIDATES, 0)
    queries = _draw(len(candidates), MAX_QUERIES, 1)  # positions in `candidates`
    points = _standardize(reader.observations(candidates))
    episode = np.searchsorted(data.ends, candidates, side="right")
    other_episodes = len(candidates) - int(np.bincount(episode).max()) >= 2 * K
    group = episode if other_episodes else np.arange(len(candidates))
    nearest, distance = _find_nearest(points, queries, group)
    actions = data.rows[candidates][:, data.columns.action].astype(np.float64)
    spread, local_entropy, total_entropy = _action_spread(actions, nearest, data.spaces.discrete)
    counts, edges = np.histogram(np.minimum(spread, 1.999), BINS, (0.0, 2.0))
    discounts = data.discounts(gamma)
    returns = returns_to_go(data.rewards, data.ends, gamma=discounts)[candidates]
    random_distance = _random_distance(points)
    return NeighborStatistics(
        states=len(queries),
        candidates=len(candidates),
        k=K,
        other_episodes=other_episodes,
        relative_distance=float(np.median(distance)) / random_distance if random_distance else 0.0,
        action_spread=float(spread.mean()),
        action_entropy=local_entropy,
        action_entropy_total=total_entropy,
        return_spread=_return_spread(returns, nearest),
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def _draw(size: int, max_count: int, stream: int) -> Array:
    """Return distinct indices below `size`, ascending: all of them, or a random sample."""
    if size <= max_count:
        return np.arange(size)
    generator = np.random.default_rng([SEED, stream])
    return np.sort(generator.choice(size, max_count, replace=False))


def _standardize(observations: Array) -> Array:
    """Return the columns that vary with zero mean and unit variance, clipped to ±CLIP_STD."""
    points = observations.astype(np.float64)  # the squares of 1e30 overflow float32
    mean, std = points.mean(axis=0), points.std(axis=0)
    varies = std > 0
    scaled: Array = (points[:, varies] - mean[varies]) / std[varies]
    return np.clip(scaled, -CLIP_STD, CLIP_STD).astype(np.float32)


def _find_nearest(points: Array, queries: Array, group: Array) -> tuple[Array, Array]:
    """Return positions [S, K] of the nearest points of another group, and their distances."""
    import torch  # imported late: only this needs it; its top-k is ten times as fast as NumPy's

    all_points = torch.from_numpy(points)
    squares = (all_points**2).sum(dim=1)
    groups = torch.from_numpy(np.ascontiguousarray(group))
    positions, distances = [], []
    for start in range(0, len(queries), QUERIES_PER_BLOCK):
        block = torch.from_numpy(queries[start : start + QUERIES_PER_BLOCK])
        # |x − y|² without |x|², which is the same for every y.
        scores = torch.addmm(squares, all_points[block], all_points.T, alpha=-2.0)
        scores.masked_fill_(groups[block][:, None] == groups[None, :], torch.inf)
        nearest = scores.topk(K, dim=1, largest=False)
        positions.append(nearest.indices.numpy())
        distance = (nearest.values + squares[block][:, None]).clamp(min=0).sqrt()
        distances.append(distance.numpy())
    return np.concatenate(positions), np.concatenate(distances)


def _random_distance(points: Array) -> float:
    """Return the median distance of two states drawn at random."""
    generator = np.random.default_rng([SEED, 2])
    first, second = generator.integers(0, len(points), (2, 10_000))
    return float(np.median(np.sqrt(((points[first] - points[second]) ** 2).sum(axis=1))))


def _action_spread(
    actions: Array, nearest: Array, discrete: bool
) -> tuple[Array, float | None, float | None]:
    """Return the action spread [S] per state, and for discrete actions local and total entropy."""
    if not discrete:
        total = actions.var(axis=0)
        varies = total > 0
        if not varies.any():
            return np.zeros(len(nearest)), None, None
        local = actions[nearest][..., varies].var(axis=1, ddof=1) / total[varies]
        return local.mean(axis=1), None, None
    indices = actions[:, 0].astype(np.int64)
    distinct = np.unique(indices)
    total_entropy = entropy(np.bincount(indices))
    counts = (indices[nearest][..., None] == distinct).sum(axis=1)  # [S, distinct actions]
    entropies = np.array([entropy(row) for row in counts])
    relative = entropies / total_entropy if total_entropy else np.zeros(len(entropies))
    return relative, float(entropies.mean()), total_entropy


def _return_spread(returns: Array, nearest: Array) -> float | None:
    """Return the mean local variance of the returns-to-go over their total variance."""
    total = float(returns.var())
    return float(returns[nearest].var(axis=1, ddof=1).mean()) / total if total else None
