"""Everything that is measured about a data set, as plain values: what audit.json holds.

Pure functions over Transitions; nothing here judges. Knows nothing of files and of training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from offline_cql.audit.actions import Actions, Propensities, actions, propensities
from offline_cql.audit.alignment import Alignment, alignment
from offline_cql.audit.block_reader import Reading
from offline_cql.audit.columns import Columns, columns
from offline_cql.audit.duplicates import Duplicates, duplicates
from offline_cql.audit.episodes import Episodes, Rewards, episodes, rewards
from offline_cql.audit.misalignment import Lags, lags
from offline_cql.audit.neighbors import Neighbors, neighbors
from offline_cql.config import DatasetConfig
from offline_cql.data.split import split_episodes
from offline_cql.transitions import Transitions

FORMAT = 1  # of audit.json; another number when a key changes its meaning
SHORT = 50_000  # rows that the short audit looks at for columns, actions and alignment
FULL_PASSES = 4  # over all rows, in which a full audit tells how far it is


@dataclass(frozen=True)
class Identity:
    """Which data they are."""

    dataset_id: str
    sha256: str
    transitions: int
    episodes: int
    observation_dim: int
    action_dim: int
    discrete: bool
    images: bool
    action_low: list[float]
    action_high: list[float]


@dataclass(frozen=True)
class Split:
    """What dataset.fraction, dataset.validation_fraction and dataset.top_fraction leave, and the rewards' transform."""

    training_episodes: int
    training_transitions: int
    validation_episodes: int
    reward_scale: float
    reward_shift: float
    return_range: float | None


@dataclass(frozen=True)
class Scores:
    """The behavior's mean return and the references that normalize it, with their source."""

    behavior_return: float
    normalized_score: float | None
    reference_min: float | None
    reference_max: float | None
    reference_source: str | None


@dataclass(frozen=True)
class Figures:
    """All figures of one data set; None where they were not taken (short) or do not apply.

    looked_at: rows from which columns, actions and alignment come. found: what was mended.
    """

    format: int
    short: bool
    looked_at: int
    identity: Identity
    found: dict[str, int]
    split: Split
    scores: Scores
    episodes: Episodes
    rewards: Rewards
    alignment: Alignment
    lags: Lags | None
    columns: Columns
    actions: Actions
    propensities: Propensities | None
    duplicates: Duplicates | None
    neighbors: Neighbors | None

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists."""
        return asdict(self)


def measured(
    transitions: Transitions,
    dataset: DatasetConfig,
    scores: Scores,
    *,
    gamma: float,
    short: bool,
    advance: Callable[[int], None] = lambda rows: None,
) -> Figures:
    """The figures of all transitions, whatever the split.

    short: counts, lengths, returns and rewards of all; columns, actions and alignment of a sample;
    no lags, duplicates and neighbors. advance is told of rows, FULL_PASSES times each.
    """
    reading = Reading(transitions, most=SHORT if short else None, advance=advance)
    spaces = transitions.spaces
    identity = Identity(
        dataset_id=transitions.dataset_id,
        sha256=transitions.sha256,
        transitions=len(transitions),
        episodes=len(transitions.ends),
        observation_dim=spaces.observation_dim,
        action_dim=spaces.action_dim,
        discrete=spaces.discrete,
        images=transitions.images is not None,
        action_low=list(spaces.action_low),
        action_high=list(spaces.action_high),
    )
    return Figures(
        format=FORMAT,
        short=short,
        looked_at=reading.size,
        identity=identity,
        found=dict(transitions.repairs),
        split=split(transitions, dataset),
        scores=scores,
        episodes=episodes(transitions, gamma=gamma),
        rewards=rewards(transitions),
        alignment=alignment(reading),
        lags=None if short else lags(reading),
        columns=columns(reading),
        actions=actions(reading),
        propensities=propensities(transitions),
        duplicates=None if short else duplicates(reading),
        neighbors=None if short else neighbors(reading, gamma=gamma),
    )


def split(transitions: Transitions, dataset: DatasetConfig) -> Split:
    """What a run with these settings trains on. Raises DataError when nothing is left."""
    selection = split_episodes(transitions, dataset)
    return Split(
        training_episodes=len(selection.training),
        training_transitions=selection.size,
        validation_episodes=len(selection.validation),
        reward_scale=dataset.reward_scale,
        reward_shift=dataset.reward_shift,
        return_range=dataset.return_range,
    )
