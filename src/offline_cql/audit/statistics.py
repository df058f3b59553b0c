"""The statistics of a data set as plain values: the content of audit.json.

Computes and does not judge; `rules.py` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from offline_cql.audit.actions import (
    ActionStatistics,
    PropensityStatistics,
    compute_actions,
    compute_propensities,
)
from offline_cql.audit.alignment import Alignment, compute_alignment
from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.columns import ObservationStatistics, compute_columns
from offline_cql.audit.duplicates import Duplicates, find_duplicates
from offline_cql.audit.episodes import (
    EpisodeStatistics,
    RewardStatistics,
    compute_episodes,
    compute_rewards,
)
from offline_cql.audit.leakage import Leakage, find_leaks
from offline_cql.audit.misalignment import Misalignment, compute_misalignment
from offline_cql.audit.neighbors import NeighborStatistics, compute_neighbors
from offline_cql.config import DatasetConfig
from offline_cql.data.split import split_episodes
from offline_cql.transitions import Transitions

FORMAT = 2  # version of audit.json; increase when a key changes its meaning
SHORT_ROWS = 50_000  # rows that the short audit reads for columns, actions and alignment
FULL_PASSES = 4  # passes over all rows for which a full audit reports progress


@dataclass(frozen=True)
class Identity:
    """Name, content hash, size and spaces of the data set.

    action_kind_inferred: a column's type, and no setting, made the actions discrete or continuous.
    """

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
    action_kind_inferred: bool


@dataclass(frozen=True)
class SplitSummary:
    """Sizes of the training and validation split, and how a run transforms the rewards."""

    training_episodes: int
    training_transitions: int
    validation_episodes: int
    reward_scale: float
    reward_shift: float
    return_range: float | None


@dataclass(frozen=True)
class Scores:
    """Mean return of the behavior policy, and the reference returns that normalize it."""

    behavior_return: float
    normalized_score: float | None
    reference_min: float | None
    reference_max: float | None
    reference_source: str | None


@dataclass(frozen=True)
class DatasetStatistics:
    """All statistics of one data set.

    rows_read: rows that alignment, observations and actions are based on. repairs: what was
    repaired while reading, with counts. misalignment, duplicates and neighbors are None in a short
    audit; they, leakage and propensities also where they do not apply.
    """

    format: int
    short: bool
    rows_read: int
    identity: Identity
    repairs: dict[str, int]
    split: SplitSummary
    scores: Scores
    episodes: EpisodeStatistics
    rewards: RewardStatistics
    alignment: Alignment
    misalignment: Misalignment | None
    observations: ObservationStatistics
    leakage: Leakage | None
    actions: ActionStatistics
    propensities: PropensityStatistics | None
    duplicates: Duplicates | None
    neighbors: NeighborStatistics | None


def compute_statistics(
    transitions: Transitions,
    dataset: DatasetConfig,
    scores: Scores,
    *,
    gamma: float,
    short: bool,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> DatasetStatistics:
    """Return the statistics of all transitions, whatever the split.

    short: skip misalignment, duplicates and neighbors, and sample SHORT_ROWS rows for alignment,
    observations and actions. on_rows is called with the number of rows per block, for progress:
    FULL_PASSES times all rows in total. Raises DataError when the split leaves nothing to train on.
    """
    split = split_episodes(transitions, dataset)
    reader = BlockReader(transitions, max_rows=SHORT_ROWS if short else None, on_rows=on_rows)
    return DatasetStatistics(
        format=FORMAT,
        short=short,
        rows_read=reader.size,
        identity=_identity(transitions, dataset),
        repairs=dict(transitions.repairs),
        split=SplitSummary(
            training_episodes=len(split.training),
            training_transitions=split.size,
            validation_episodes=len(split.validation),
            reward_scale=dataset.reward_scale,
            reward_shift=dataset.reward_shift,
            return_range=dataset.return_range,
        ),
        scores=scores,
        episodes=compute_episodes(transitions, gamma=gamma),
        rewards=compute_rewards(transitions),
        alignment=compute_alignment(reader),
        misalignment=None if short else compute_misalignment(reader),
        observations=compute_columns(reader),
        leakage=find_leaks(reader),
        actions=compute_actions(reader),
        propensities=compute_propensities(transitions),
        duplicates=None if short else find_duplicates(reader),
        neighbors=None if short else compute_neighbors(reader, gamma=gamma),
    )


def _identity(transitions: Transitions, dataset: DatasetConfig) -> Identity:
    spaces = transitions.spaces
    return Identity(
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
        action_kind_inferred=dataset.columns is not None and dataset.columns.discrete is None,
    )
