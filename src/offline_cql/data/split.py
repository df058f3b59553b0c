"""Which episodes are trained on and which are kept for judging; always whole episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.config import DatasetConfig
from offline_cql.errors import DataError
from offline_cql.transitions import Transitions

SPLIT_STREAM = 0x5B117  # keeps the split apart from every other use of its seed


@dataclass(frozen=True, eq=False)
class Split:
    """Episodes [.] by number, ascending; training rows [M], None where they are all rows."""

    training: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None
    size: int  # training rows


def split_episodes(transitions: Transitions, dataset: DatasetConfig) -> Split:
    """The split that the settings ask for, a function of the data and dataset.split_seed alone.

    First dataset.fraction of the episodes is drawn, then dataset.validation_fraction of those is kept out,
    then dataset.top_fraction of the rest is kept, by return. Runs that differ in their seed share the
    split. Raises DataError when nothing is left on one side that was asked for.
    """
    count = len(transitions.ends)
    order = np.random.default_rng([dataset.split_seed, SPLIT_STREAM]).permutation(count)
    drawn = order[: _share(count, dataset.fraction)]
    out = round(len(drawn) * dataset.validation_fraction)
    validation, training = drawn[:out], drawn[out:]
    if dataset.top_fraction < 1:
        returns = transitions.episode_returns()[training]
        best = np.argsort(-returns, kind="stable")[: _share(len(training), dataset.top_fraction)]
        training = training[best]
    if not len(training) or (dataset.validation_fraction and not len(validation)):
        raise DataError(
            f"{transitions.dataset_id} has {count} episodes, {dataset.setting('fraction')} and "
            f"{dataset.setting('validation_fraction')} leave {len(training)} to train on and "
            f"{len(validation)} held out"
        )
    training, validation = np.sort(training), np.sort(validation)
    rows = None if len(training) == count else rows_of(transitions, training)
    size = len(transitions) if rows is None else len(rows)
    return Split(training, validation, rows, size)


def everything(transitions: Transitions) -> Split:
    """All episodes to train on, none held out."""
    episodes = np.arange(len(transitions.ends))
    return Split(episodes, episodes[:0], None, len(transitions))


def rows_of(transitions: Transitions, episodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows of some episodes, in their order."""
    lengths = transitions.lengths[episodes]
    starts = transitions.ends[episodes] - lengths
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _share(count: int, part: float) -> int:
    return max(1, round(count * part))
