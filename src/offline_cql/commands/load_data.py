"""Load the transitions that the sections `env` and `dataset` describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym

from offline_cql.config import SOURCES, DatasetConfig, EnvConfig
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import expand_home
from offline_cql.readers import Reader, load
from offline_cql.readers.d4rl import D4RLReader, ensure_task_file, task_path
from offline_cql.readers.minari.download import ensure_stored
from offline_cql.readers.minari.store import MinariReader, is_stored
from offline_cql.readers.table.reader import TableReader
from offline_cql.render.message import print_message
from offline_cql.simulation.collect import dataset_id, ensure_recorded
from offline_cql.simulation.environments import make_simulators, spaces_of
from offline_cql.transitions import Spaces, Transitions


@dataclass(frozen=True)
class SourceReader:
    """The reader of one data source.

    make returns it, with the data downloaded or recorded first; spaces: the simulator's. is_local
    returns whether nothing has to be downloaded or recorded for that.
    """

    make: Callable[[EnvConfig, DatasetConfig, Spaces | None], Reader]
    is_local: Callable[[DatasetConfig], bool]


def simulator_settings(env: EnvConfig, dataset: DatasetConfig) -> EnvConfig:
    """Return the environment with the simulator that fits the data: D4RL's has its own."""
    return SOURCES[dataset.source].simulator(env)


def load_transitions(env: EnvConfig, dataset: DatasetConfig) -> Transitions:
    """Return the data set, simulated or downloaded first if it is not stored.

    Raises DataError when its spaces differ from the simulator's.
    """
    env = simulator_settings(env, dataset)
    spaces = environment_spaces(env)
    transitions = load(READERS[dataset.source].make(env, dataset, spaces))
    if spaces is not None and spaces != transitions.spaces:
        raise DataError(
            f"{transitions.dataset_id} does not fit env={env.name}: "
            f"the data have {transitions.spaces}, the environment {spaces}"
        )
    return transitions


def is_local(dataset: DatasetConfig) -> bool:
    """Return whether the data set is on this machine."""
    return READERS[dataset.source].is_local(dataset)


def environment_spaces(env: EnvConfig) -> Spaces | None:
    """Return the sizes and bounds of the simulator; None without one."""
    if env.id is None:
        return None
    (environment,) = make_simulators(env, 1)
    spaces = spaces_of(environment)
    environment.close()
    return spaces


def _minari(env: EnvConfig, dataset: DatasetConfig, spaces: Spaces | None) -> Reader:
    if dataset.id is None:
        raise ConfigError(
            f"{dataset.setting('path')} has no effect with dataset=minari: set dataset.id, and "
            "MINARI_DATASETS_PATH to the store"
        )
    if env.id is not None and env.reference_min is None:
        print_message(
            f"warning: env={env.name} has no reference returns: normalized scores stay empty"
        )
    offline = f"env={env.name if env.qualities else 'hopper'} dataset=simulated"
    identifier = ensure_stored(dataset.id, alternative=offline)
    return MinariReader(identifier, observation_keys=env.observation_keys)


def _d4rl(env: EnvConfig, dataset: DatasetConfig, spaces: Spaces | None) -> Reader:
    limit = gym.spec(env.id).max_episode_steps if env.id is not None else None
    if dataset.path is not None:
        path = expand_home(dataset.path, "set dataset.path to an absolute path")
        return D4RLReader(path, path.stem, simulator=spaces, episode_length=limit)
    assert dataset.id is not None
    return D4RLReader(
        ensure_task_file(dataset.id), dataset.id, simulator=spaces, episode_length=limit
    )


READERS = {
    "simulated": SourceReader(
        lambda env, dataset, _spaces: MinariReader(ensure_recorded(env, dataset)),
        lambda dataset: is_stored(dataset_id(dataset)),
    ),
    "minari": SourceReader(_minari, lambda dataset: is_stored(str(dataset.id))),
    "d4rl": SourceReader(
        _d4rl, lambda dataset: dataset.path is not None or task_path(str(dataset.id)).exists()
    ),
    "table": SourceReader(
        lambda _env, dataset, spaces: TableReader.of(dataset, spaces),
        lambda _dataset: True,
    ),  # reading reports a missing file
}
