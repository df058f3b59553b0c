"""From the settings to the transitions: which source, for which environment."""

from __future__ import annotations

from collections.abc import Callable

from offline_cql.data.recording import ensure_recorded
from offline_cql.environments import make_environments, spaces_of
from offline_cql.schema import DatasetConfig, EnvConfig
from offline_cql.sources import Source, load
from offline_cql.sources.minari_store import MinariStore
from offline_cql.transitions import DataError, Spaces, Transitions


def load_transitions(env: EnvConfig, dataset: DatasetConfig) -> Transitions:
    """The data set of the settings, recorded or downloaded first if need be.

    With a simulator, its spaces must be those of the data. Raises DataError.
    """
    spaces = environment_spaces(env)
    transitions = load(SOURCES[dataset.source](env, dataset, spaces))
    if spaces is not None and spaces != transitions.spaces:
        raise DataError(
            f"{transitions.dataset_id} does not fit env={env.name}: "
            f"the data have {transitions.spaces}, the environment {spaces}"
        )
    return transitions


def environment_spaces(env: EnvConfig) -> Spaces | None:
    """Sizes and bounds of the simulator; None without one."""
    if env.id is None:
        return None
    (environment,) = make_environments(env.id, 1)
    spaces = spaces_of(environment)
    environment.close()
    return spaces


def _embedded(env: EnvConfig, dataset: DatasetConfig, spaces: Spaces | None) -> Source:
    return MinariStore(ensure_recorded(env, dataset))


def _minari(env: EnvConfig, dataset: DatasetConfig, spaces: Spaces | None) -> Source:
    assert dataset.id is not None
    return MinariStore(dataset.id)


SOURCES: dict[str, Callable[[EnvConfig, DatasetConfig, Spaces | None], Source]] = {
    "embedded": _embedded,
    "minari": _minari,
}
