"""Write data sets into Minari's local store: whole or not at all.

A data set is written to a hidden folder of the store and renamed, under a lock that makes a second
process wait and then use it.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from offline_cql.errors import DataError
from offline_cql.io import exclusive, flush, located, remedied, write_atomically
from offline_cql.readers.checksums import write_manifest
from offline_cql.readers.minari.store import (
    STORE_REMEDY,
    dataset_path,
    ensure_namespace,
    hidden_path,
    is_stored,
    store_root,
)
from offline_cql.render.progress import ProgressBar
from offline_cql.spaces import Space
from offline_cql.transitions import ActionMap, Transitions


def store_transitions(transitions: Transitions, name: str, *, overwrite: bool = False) -> None:
    """Write a data set in memory as the data set `name` of the local store.

    Raises DataError if it exists and overwrite is False, and for a next observation that is not
    the one of the next row: Minari stores one more observation than steps.
    """
    with writing(name):
        if is_stored(name) and not overwrite:
            raise DataError(f"data set {name} is already stored; overwrite=true writes it again")
        _refuse_gaps(transitions)
        spaces = transitions.spaces
        low, high = np.array([spaces.action_low, spaces.action_high])
        metadata = {
            "dataset_id": name,
            "algorithm_name": "unknown: logged data",
            "author": {"offline_cql"},
            "minari_version": minari.__version__,
            "description": f"{len(transitions):,} steps of {transitions.dataset_id}.",
            "observation_names": list(transitions.observation_names),
            "action_names": list(transitions.action_names),
        }
        write_dataset(
            name,
            Box(-np.inf, np.inf, (spaces.observation_dim,), np.float32),
            Discrete(spaces.action_dim) if spaces.discrete else Box(low, high, dtype=np.float64),
            _episodes(transitions, name),
            metadata,
        )


def _refuse_gaps(transitions: Transitions) -> None:
    following = np.ones(len(transitions), bool)
    following[transitions.ends - 1] = False
    rows = np.flatnonzero(following)
    same = (transitions.next_observations[rows] == transitions.observations[rows + 1]).all(axis=1)
    if not same.all():
        raise DataError(
            f"{transitions.dataset_id}: the next observations of {int((~same).sum()):,} steps are "
            "not those of the next rows, which Minari cannot store: leave out "
            "dataset.columns.next_observation"
        )


def _episodes(transitions: Transitions, name: str) -> Iterator[EpisodeBuffer]:
    """Yield the episodes with actions in the environment's units."""
    spaces = transitions.spaces
    actions: Any = transitions.actions
    if not spaces.discrete:  # float64: the same float32 come back
        bounds = ActionMap(spaces.action_low, spaces.action_high)
        actions = bounds.to_environment(np.asarray(actions, np.float64))
        actions = actions.clip(spaces.action_low, spaces.action_high)
    with ProgressBar(f"writing {name}", len(transitions)) as bar:
        for start, end in zip(transitions.starts, transitions.ends, strict=True):
            rows = slice(start, end)
            last = transitions.next_observations[end - 1 : end]
            yield EpisodeBuffer(
                observations=np.concatenate([transitions.observations[rows], last]),
                actions=actions[rows],
                rewards=transitions.rewards[rows].astype(np.float64),
                terminations=transitions.terminated[rows],
                truncations=transitions.truncated[rows],
                infos={},
            )
            bar.advance(end - start)


def write_dataset(
    name: str,
    observation_space: Space,
    action_space: Space,
    episodes: Iterable[EpisodeBuffer],
    metadata: dict[str, Any],
    *,
    spec: EnvSpec | None = None,
) -> None:
    """Write episodes to a hidden folder, flush to the disk, rename; `writing` is held.

    HDF5 writes to memory: where a disk is full it ends the process (segmentation fault).
    """
    final, staging = dataset_path(name), hidden_path(".recording", name)
    shutil.rmtree(staging, ignore_errors=True)  # of a recording that was killed
    (staging / "new").mkdir(parents=True)
    try:
        with located(staging):
            storage = MinariStorage.new(
                staging / "new" / "data",
                observation_space=observation_space,
                action_space=action_space,
                env_spec=spec,
            )
            storage._file_path, file = (content := io.BytesIO()), storage._file_path
            storage.update_metadata(metadata)
            storage.update_episodes(episodes)
            write_atomically(file, content.getvalue())
            storage.update_metadata({"dataset_size": storage.get_size()})
        for path in (staging / "new" / "data").iterdir():
            flush(path)
        write_manifest(staging / "new" / "data")
        ensure_namespace(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # overwrite: a folder can only be renamed over an empty one
            os.replace(final, staging / "old")
        os.replace(staging / "new", final)
        flush(final.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Wait for another process that writes this data set; name the store in errors."""
    lock = hidden_path(".locks", name)
    with remedied(store_root(), STORE_REMEDY), exclusive(lock, f"recording {name}"):
        yield
