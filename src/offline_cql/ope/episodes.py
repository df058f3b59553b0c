"""The episodes that estimates are made from: those that the policy was not learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from offline_cql.config import DatasetConfig
from offline_cql.data.split import episode_rows, split_episodes
from offline_cql.transitions import Transitions


def validation_episodes(transitions: Transitions, dataset: DatasetConfig) -> Transitions:
    """Return the validation episodes of a run with the section `dataset`, in their order.

    The training rows are not in the result, so that nothing fitted to it can have seen them.
    """
    return select_episodes(transitions, split_episodes(transitions, dataset).validation)


def select_episodes(transitions: Transitions, episodes: npt.NDArray[np.int64]) -> Transitions:
    """Return the transitions of some episodes; id and sha256 stay those of the whole data set."""
    rows = episode_rows(transitions, episodes)
    images, propensities = transitions.images, transitions.propensities
    durations = transitions.durations
    return replace(
        transitions,
        rows=np.ascontiguousarray(transitions.rows[rows]),
        ends=np.cumsum(transitions.lengths[episodes]),
        images=None if images is None else np.ascontiguousarray(images[rows]),
        propensities=None if propensities is None else propensities[rows],
        durations=None if durations is None else durations[rows],
    )
