"""What happens in similar states: how far the state decides the action, and the outcome.

An estimate from nearest neighbors, before anything is learned. Pure functions over Transitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import Reading
from offline_cql.audit.distribution import Array, entropy
from offline_cql.data.returns import returns_to_go

STATES = 2_000  # whose neighborhoods are looked at
AMONG = 100_000  # states that neighbors are searched in
NEAREST = 20
AT_ONCE = 100  # states; a block of distances then takes 40 MB
FARTHEST = 5.0  # standard deviations: an outlier beyond counts as this
BINS = 20
SEED = 0x5EED


@dataclass(frozen=True)
class Neighbors:
    """The spread of actions and returns among a state's 20 nearest in other episodes.

    action: mean local variance over the data's variance (mean over dimensions), or the mean local
    entropy over the data's entropy: 0 when the state decides the action, about 1 when it says
    nothing. returns: the same of the discounted returns-to-go. distance: the median distance of a
    neighbor over that of a random state; near 1 the neighbors are none, and the rest says little.
    counts [20] of states by their own local spread, between 0 and 2 (the last holds the rest).

    What it means: where the action spread is near 0, the data hold one action a state; cloning
    reaches what they show and CQL has nothing to choose from. Where actions and returns both
    spread, different choices had different outcomes, and CQL can prefer the better ones.
    Limits: the spread is too high where neighbors are far (many dimensions, few data), the
    return's spread holds the environment's chance and the future's choices too, and a truncated
    episode's returns stop at its end.
    """

    states: int
    among: int
    nearest: int
    other_episodes: bool
    distance: float
    action: float
    action_entropy: float | None  # nats, mean of the neighborhoods; discrete actions
    action_entropy_of_all: float | None
    returns: float | None  # None: all returns are the same
    edges: list[float]
    counts: list[int]


def neighbors(reading: Reading, *, gamma: float) -> Neighbors | None:
    """Of a sample of states, drawn by a fixed seed; None with too few transitions."""
    data = reading.transitions
    size = len(data)
    if size < 2 * NEAREST:
        return None
    among = _drawn(size, AMONG, 0)
    asked = _drawn(len(among), STATES, 1)  # positions in `among`
    points = _standardised(reading.observations(among))
    episode = np.searchsorted(data.ends, among, side="right")
    others = len(among) - int(np.bincount(episode).max()) >= 2 * NEAREST
    nearest, distance = _nearest(points, asked, episode if others else np.arange(len(among)))
    actions = data.rows[among][:, data.columns.action].astype(np.float64)
    returns = returns_to_go(data.rewards, data.ends, gamma=gamma)[among]
    outcome = float(returns.var())
    local, of_all, mean_entropy = _action_spread(actions, nearest, data.spaces.discrete)
    counts, edges = np.histogram(np.minimum(local, 1.999), BINS, (0.0, 2.0))
    random = _random_distance(points)
    return Neighbors(
        states=len(asked),
        among=len(among),
        nearest=NEAREST,
        other_episodes=others,
        distance=float(np.median(distance)) / random if random else 0.0,
        action=float(local.mean()),
        action_entropy=mean_entropy,
        action_entropy_of_all=of_all,
        returns=float(returns[nearest].var(axis=1, ddof=1).mean()) / outcome if outcome else None,
        edges=edges.tolist(),
        counts=counts.tolist(),
    )


def _drawn(size: int, most: int, stream: int) -> Array:
    """Different numbers below size, ascending."""
    if size <= most:
        return np.arange(size)
    generator = np.random.default_rng([SEED, stream])
    return np.sort(generator.choice(size, most, replace=False))


def _standardised(observations: Array) -> Array:
    points = observations.astype(np.float32)
    mean, std = points.mean(axis=0), points.std(axis=0)
    varies = std > 0
    scaled: Array = (points[:, varies] - mean[varies]) / std[varies]
    return np.clip(scaled, -FARTHEST, FARTHEST)


def _nearest(points: Array, asked: Array, group: Array) -> tuple[Array, Array]:
    """Positions [S, k] of the nearest of another group, and their distances [S, k]."""
    import torch  # late: only this needs it, and its top-k is ten times as fast as NumPy's sort

    all_ = torch.from_numpy(points)
    squares = (all_**2).sum(dim=1)
    groups = torch.from_numpy(np.ascontiguousarray(group))
    positions, distances = [], []
    for start in range(0, len(asked), AT_ONCE):
        some = torch.from_numpy(asked[start : start + AT_ONCE])
        # |x − y|² without |x|², which is the same for every y.
        apart = torch.addmm(squares, all_[some], all_.T, alpha=-2.0)
        apart.masked_fill_(groups[some][:, None] == groups[None, :], torch.inf)
        found = apart.topk(NEAREST, dim=1, largest=False)
        positions.append(found.indices.numpy())
        near = (found.values + squares[some][:, None]).clamp(min=0).sqrt()
        distances.append(near.numpy())
    return np.concatenate(positions), np.concatenate(distances)


def _random_distance(points: Array) -> float:
    """The median distance of two states drawn at random."""
    generator = np.random.default_rng([SEED, 2])
    one, other = generator.integers(0, len(points), (2, 10_000))
    return float(np.median(np.sqrt(((points[one] - points[other]) ** 2).sum(axis=1))))


def _action_spread(
    actions: Array, nearest: Array, discrete: bool
) -> tuple[Array, float | None, float | None]:
    """The local spread [S] relative to the data's; with choices also the two entropies."""
    if not discrete:
        total = actions.var(axis=0)
        varies = total > 0
        if not varies.any():
            return np.zeros(len(nearest)), None, None
        local = actions[nearest][..., varies].var(axis=1, ddof=1) / total[varies]
        return local.mean(axis=1), None, None
    chosen = actions[:, 0].astype(np.int64)
    choices = np.unique(chosen)
    of_all = entropy(np.bincount(chosen))
    counts = (chosen[nearest][..., None] == choices).sum(axis=1)  # [S, choices that occur]
    entropies = np.array([entropy(row) for row in counts])
    relative = entropies / of_all if of_all else np.zeros(len(entropies))
    return relative, of_all, float(entropies.mean())
