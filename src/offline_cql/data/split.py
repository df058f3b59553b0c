"""The split into training and validation episodes; an episode is never divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.config import DatasetConfig
from offline_cql.errors import DataError
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Transitions


@dataclass(frozen=True, eq=False)
class Split:
    """Episode indices of both parts, ascending; training rows [M], or None for all rows."""

    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None
    size: int  # number of training rows


def split_episodes(transitions: Transitions, dataset: DatasetConfig) -> Split:
    """Split the episodes by the section `dataset`, as a function of the data and its split_seed.

    A random dataset.fraction of the episodes is used; dataset.validation_fraction of those is
    for validation; of the rest the dataset.top_fraction with the highest returns is trained on.
    Runs that differ only in `seed` share the split. Raises DataError when a part that was
    requested has no episode.
    """
    count = len(transitions.ends)
    order = np.random.default_rng([dataset.split_seed, RandomStream.SPLIT]).permutation(count)
    sample = order[: _at_least_one(count, dataset.fraction)]
    validation_count = round(len(sample) * dataset.validation_fraction)
    validation, training = sample[:validation_count], sample[validation_count:]
    if dataset.top_fraction < 1:
        returns = transitions.episode_returns()[training]
        ranking = np.argsort(-returns, kind="stable")
        training = training[ranking[: _at_least_one(len(training), dataset.top_fraction)]]
    if not len(training) or (dataset.validation_fraction and not len(validation)):
        raise DataError(
            f"{transitions.dataset_id} (episodes: {count}): {dataset.setting('fraction')} and "
            f"{dataset.setting('validation_fraction')} leave {len(training)} for training and "
            f"{len(validation)} for validation; log more episodes, or set "
            "dataset.validation_fraction=0"
        )
    training, validation = np.sort(training), np.sort(validation)
    rows = None if len(training) == count else episode_rows(transitions, training)
    size = len(transitions) if rows is None else len(rows)
    return Split(training, validation, rows, size)


def train_on_all(transitions: Transitions) -> Split:
    """Return the split with every episode in the training part."""
    episodes = np.arange(len(transitions.ends))
    return Split(episodes, episodes[:0], None, len(transitions))


def episode_rows(
    transitions: Transitions, episodes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the rows of `episodes`, in their order."""
    lengths = transitions.lengths[episodes]
    starts = transitions.ends[episodes] - lengths
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _at_least_one(count: int, fraction: float) -> int:
    return max(1, round(count * fraction))
