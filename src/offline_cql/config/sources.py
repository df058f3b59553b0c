"""The data sources of `dataset=…`: the settings that each needs and those it does not read.

Their readers are registered in commands/load_data.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from offline_cql.config.data import ColumnsConfig, D4RLConfig, DatasetConfig, EnvConfig

TABLE = tuple(
    f"dataset.{name}" for name in ("one_step", "encoding", "missing", "filter", "time_unit")
)
COLUMNS = tuple(f"dataset.columns.{name}" for name in ColumnsConfig.model_fields)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One option of `dataset`.

    check raises ConfigError when the environment has no such data set; unused returns the full key
    of each setting that the source does not read, with the reason; simulator returns the
    environment with the simulator that fits the data (its id is None where there is none).
    """

    check: Callable[[EnvConfig, DatasetConfig], None]
    unused: Callable[[DatasetConfig], dict[str, str]]
    simulator: Callable[[EnvConfig], EnvConfig] = lambda env: env


def _check_simulated(env: EnvConfig, dataset: DatasetConfig) -> None:
    none = f"must be minari, d4rl or table with env={env.name}: no simulated data come with it"
    dataset.require(bool(env.qualities), "source", none)
    choices = f"must be one of {', '.join(env.qualities)} with env={env.name}"
    dataset.require(dataset.quality in env.qualities, "quality", choices)
    dataset.require(dataset.size is not None, "size", "must be a number of transitions")


def _check_stored(dataset: DatasetConfig) -> None:
    whole = f"has no effect with dataset={dataset.source}: all of it is read; see dataset.fraction"
    dataset.require(dataset.size is None, "size", whole)


def _check_id_or_path(example: str, env: EnvConfig, dataset: DatasetConfig) -> None:
    _check_stored(dataset)
    is_set = dataset.id is not None or dataset.path is not None
    missing = f"must be set with env={env.name}, as in dataset.id={example}"
    dataset.require(is_set, "id", missing)


def _check_table(_env: EnvConfig, dataset: DatasetConfig) -> None:
    _check_stored(dataset)
    missing = "must be the file with your logs, as in dataset.path=logs.parquet"
    dataset.require(dataset.path is not None, "path", missing)


def _unused_columns(dataset: DatasetConfig) -> dict[str, str]:
    return dict.fromkeys((*TABLE, *COLUMNS), f"{dataset.source} needs no mapping of columns")


def _unused_id(dataset: DatasetConfig) -> dict[str, str]:
    reason = f"{dataset.source} is read from {dataset.setting('path')}"
    return dict.fromkeys(("dataset.id", "dataset.quality"), reason)


def _unused_quality(dataset: DatasetConfig) -> dict[str, str]:
    """Return dataset.quality unless it is part of the id: a typed id need not contain it."""
    if (dataset.quality or "") in str(dataset.id):
        return {}
    return {"dataset.quality": f"{dataset.setting('id')} selects the data"}


def _unused_simulated(dataset: DatasetConfig) -> dict[str, str]:
    path = {"dataset.path": f"{dataset.source} is selected by dataset.id"}
    return _unused_columns(dataset) | path


def _unused_minari(dataset: DatasetConfig) -> dict[str, str]:
    return _unused_simulated(dataset) | _unused_quality(dataset)


def _unused_d4rl(dataset: DatasetConfig) -> dict[str, str]:
    location = _unused_quality(dataset) if dataset.path is None else _unused_id(dataset)
    return _unused_columns(dataset) | location


def _d4rl_simulator(env: EnvConfig) -> EnvConfig:
    d4rl = env.d4rl or D4RLConfig()  # an environment without D4RL's data has no simulator for them
    return env.model_copy(update=d4rl.model_dump(exclude={"task"}))


SOURCES = {
    "simulated": DataSource(check=_check_simulated, unused=_unused_simulated),
    "minari": DataSource(
        check=partial(_check_id_or_path, "mujoco/hopper/medium-v0"), unused=_unused_minari
    ),
    "d4rl": DataSource(
        check=partial(_check_id_or_path, "hopper-medium-v2"),
        unused=_unused_d4rl,
        simulator=_d4rl_simulator,
    ),
    "table": DataSource(check=_check_table, unused=_unused_id),
}


def check_dataset(env: EnvConfig, dataset: DatasetConfig) -> None:
    """Raise ConfigError when the environment has no such data set."""
    exists = dataset.source in SOURCES
    dataset.require(exists, "source", f"must be one of {', '.join(SOURCES)}")
    SOURCES[dataset.source].check(env, dataset)
