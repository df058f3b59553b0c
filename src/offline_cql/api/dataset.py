"""A data set for Python programs: arrays, tables, files and Minari's data sets.

A data set is a list of settings, as they are typed after `python train.py`: whatever is trained on
it can be resumed, evaluated and reported from the shell too. Arrays and tables in memory are
written to a Parquet file for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from offline_cql.api.settings import merge_overrides, setting, settings_of
from offline_cql.errors import DataError
from offline_cql.io import write_atomically
from offline_cql.readers.table.actions import may_be_choices
from offline_cql.readers.writer import CHUNK

if TYPE_CHECKING:
    from offline_cql.commands.audit import Audit
    from offline_cql.config import AuditConfig, CollectConfig
    from offline_cql.transitions import Transitions

Array = npt.NDArray[Any]
FOLDER = Path("outputs/datasets")  # of arrays and tables that were in memory
ROLES = ("episode", "step", "terminated", "truncated", "propensity")  # of one column each


class Dataset:
    """A data set, by the settings that describe it.

    settings: overrides of train.py, for example ["env=hopper", "dataset=minari"]. Nothing is read,
    simulated or downloaded before it is needed.
    """

    def __init__(self, settings: Sequence[str]) -> None:
        self.settings = merge_overrides((), settings)
        self._transitions: Transitions | None = None

    @classmethod
    def from_arrays(
        cls,
        observations: npt.ArrayLike,
        actions: npt.ArrayLike,
        rewards: npt.ArrayLike,
        terminated: npt.ArrayLike,
        truncated: npt.ArrayLike | None = None,
        *,
        next_observations: npt.ArrayLike | None = None,
        discrete: bool | None = None,
        folder: str | Path = FOLDER,
    ) -> Dataset:
        """Return the data set of N steps, in the order in which they were logged.

        observations [N, D]; actions [N] integers 0 … K − 1 or booleans (discrete), or [N, A] floats
        in any bounds, which are taken from the data; discrete: which of both, where the type does
        not tell; rewards [N]; terminated [N]: the task ended with the step; truncated [N]: only
        the recording did, or a time limit. Without next_observations [N, D], each step is followed
        by the next row's observation, and a truncated one, whose is unknown, is left out. A
        Parquet file of the content is written to the folder. Raises DataError for other shapes and
        types.
        """
        table, are_choices = _table_of_arrays(
            observations, actions, rewards, terminated, truncated, next_observations, discrete
        )
        columns = f"dataset.columns.discrete={str(are_choices).lower()}"
        return cls([*_of_file(_write(table, Path(folder))), columns])

    @classmethod
    def from_dataframe(
        cls,
        frame: Any,
        *,
        observation: Sequence[str],
        action: str | Sequence[str],
        reward: str,
        categories: Sequence[str] = (),
        missing: str = "refuse",
        folder: str | Path = FOLDER,
        **columns: str,
    ) -> Dataset:
        """Return the data set of a data frame of pandas or polars, or of a pyarrow Table.

        The names are those of `from_parquet`. A Parquet file is written to the folder.
        """
        try:
            table = pa.table(frame)
        except (TypeError, ValueError, pa.ArrowInvalid) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"the data frame is not a table ({reason}); see pyarrow.table"
            ) from error
        path = _write(table, Path(folder))
        names: dict[str, Any] = {"observation": observation, "action": action, "reward": reward}
        return cls.from_parquet(path, **names, categories=categories, missing=missing, **columns)

    @classmethod
    def from_parquet(
        cls,
        path: str | Path,
        *,
        observation: Sequence[str] | None = None,
        action: str | Sequence[str] | None = None,
        reward: str | None = None,
        categories: Sequence[str] = (),
        missing: str = "refuse",
        **columns: str,
    ) -> Dataset:
        """Return the data set of one row per step, in a file or in several (logs/*.parquet).

        observation, action, reward: the names of the columns, or patterns with *, or `=` and an
        expression; categories: observed columns that are one-hot encoded; missing: refuse, drop,
        fill or forward; columns: those of episode, step, terminated, truncated and propensity.
        Without one, names are expected as docs/data.md lists them.
        """
        if unknown := set(columns) - set(ROLES):
            raise TypeError(f"{sorted(unknown)[0]} is not a column; use {', '.join(ROLES)}")
        lists = {"observation": observation, "action": action, "categories": categories or None}
        settings = [*_of_file(Path(path)), setting("dataset.missing", missing)]
        for name, value in lists.items():
            if value is not None:
                names = list(map(str, [value] if isinstance(value, str | int) else value))
                settings.append(setting(f"dataset.columns.{name}", names))
        if reward is not None:
            columns["reward"] = reward
        roles = (setting(f"dataset.columns.{key}", str(name)) for key, name in columns.items())
        return cls([*settings, *roles])

    @classmethod
    def from_minari(cls, dataset_id: str, *, env: str = "logged") -> Dataset:
        """Return a data set of Minari, downloaded on first use if it is not in the local store.

        env: an environment of this project, whose simulator evaluates policies; logged: none.
        """
        return cls([setting("env", env), "dataset=minari", setting("dataset.id", dataset_id)])

    @property
    def transitions(self) -> Transitions:
        """The transitions in memory-mapped arrays; read and validated at the first use.

        Raises DataError, with the position of the first fault.
        """
        if self._transitions is None:
            from offline_cql.commands.load_data import load_transitions
            from offline_cql.simulation.environments import import_package

            config = cast("AuditConfig", settings_of("audit", self.settings, ()))
            import_package(config.env.package)
            self._transitions = load_transitions(config.env, config.dataset)
        return self._transitions

    def __len__(self) -> int:
        """Return the number of transitions."""
        return len(self.transitions)

    def __repr__(self) -> str:
        return f"Dataset({self.settings})"

    def audit(self, overrides: Sequence[str] = ()) -> Audit:
        """Return the statistics of the data and their problems; write a page with plots.

        overrides: settings of audit.py. An error is a finding here, not an exception.
        """
        from offline_cql.commands.audit import audit_dataset

        return audit_dataset(cast("AuditConfig", settings_of("audit", self.settings, overrides)))


def collect(overrides: Sequence[str] = (), policy: Callable[[Array], Any] | None = None) -> Dataset:
    """Record a data set in a simulator, unless it is recorded already.

    overrides: settings of collect.py, as in ["env=hopper", "dataset.size=100_000"]. policy: acts,
    from a flat observation [D] to an action; None: that of the settings.
    """
    from offline_cql.commands.collect import record_once

    settings = cast("CollectConfig", settings_of("collect", (), overrides))
    identifier = record_once(settings, policy)
    environment = [word for word in overrides if word.startswith(("env=", "env."))]
    return Dataset([*environment, "dataset=minari", setting("dataset.id", identifier)])


def _of_file(path: Path) -> list[str]:
    """Return the settings of a file of logs, found from any folder."""
    return ["env=logged", "dataset=table", setting("dataset.path", path.expanduser().absolute())]


def _write(table: Any, folder: Path) -> Path:
    """Write a table to a Parquet file that is named after its content, whole or not at all."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    content = memoryview(buffer.getvalue())
    name = hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if not path.exists():
        write_atomically(path, content)
    return path


def _table_of_arrays(
    observations: Any,
    actions: Any,
    rewards: Any,
    terminated: Any,
    truncated: Any,
    following: Any,
    discrete: bool | None,
) -> tuple[Any, bool]:
    """Return the arrays as a table, and whether the actions are discrete. Raises DataError."""
    matrices = {"obs": _matrix("observations", observations)}
    if following is not None:
        matrices["next_obs"] = _matrix("next_observations", following)
    acted = _array("actions", actions)
    columns: dict[str, Array] = {}
    are_choices = _are_choices(acted) if discrete is None else discrete
    if are_choices:
        columns["action"] = _choices(_flat(acted))
    else:
        matrices["action"] = _matrix("actions", acted[:, None] if acted.ndim == 1 else acted)
    size = len(matrices["obs"])
    columns["reward"] = _array("rewards", rewards)
    columns["terminated"] = _flags("terminated", terminated)
    ended = np.zeros(size, bool) if truncated is None else truncated
    columns["truncated"] = _flags("truncated", ended)
    columns = {name: _flat(values) for name, values in columns.items()}
    for name, array in (matrices | columns).items():
        if array.ndim == 0 or len(array) != size or (name in columns and array.ndim != 1):
            raise DataError(f"{name} has shape {array.shape}, expected {size:,} steps")
    if following is not None and matrices["next_obs"].shape != matrices["obs"].shape:
        raise DataError("next_observations must have the shape of observations")
    for name, array in matrices.items():
        digits = len(str(array.shape[1]))
        columns |= {f"{name}_{k:0{digits}}": column for k, column in enumerate(array.T)}
    ended = columns["terminated"] | columns["truncated"]
    columns["episode"] = np.concatenate([[0], np.cumsum(ended[:-1])]) if size else np.zeros(0, int)
    return pa.table({name: np.ascontiguousarray(a) for name, a in columns.items()}), are_choices


def _array(name: str, values: Any) -> Array:
    """Return an array in the machine's byte order. Raises DataError for what is none."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of several lengths, torch's grad
        raise DataError(f"{name} is no array ({error})") from error
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{name} has masked values: leave these steps out, or fill the values")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}, expected numbers")
    kind = np.float64 if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    return array.astype(kind, copy=False)


def _flags(name: str, values: Any) -> Array:
    """Return booleans. Raises DataError for other values than False and True, or 0 and 1."""
    array = _array(name, values)
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"{name} must be booleans, or 0 and 1")
    return array.astype(bool)


def _are_choices(actions: Array) -> bool:
    """Return whether actions are discrete. Raises DataError where their type does not tell."""
    one = actions.ndim == 1 or actions.shape[1:] == (1,)
    if one and actions.dtype.kind in "biu":
        return True
    columns = actions.reshape(len(actions), -1).T if actions.size else np.empty((0, 0))
    few = [np.unique(column[:CHUNK]) for column in columns]
    if few and all(may_be_choices(values) for values in few):
        remedy = "integers [N]" if one else "integers [N] (actions.argmax(axis=1) of one-hot ones)"
        raise DataError(
            f"actions hold few whole numbers, as {few[0][:5].tolist()}, which may be choices or "
            f"amounts: pass {remedy} for choices, or discrete=False for amounts"
        )
    return False


def _flat(values: Array) -> Array:
    """Return [N, 1], as d3rlpy stores rewards and flags, as [N]."""
    return values[:, 0] if values.shape[1:] == (1,) else values


def _matrix(name: str, values: Any) -> Array:
    """Return numbers [N, D]. Raises DataError for images and for what is no number."""
    array = _array(name, values)
    if array.ndim != 2 or not array.shape[1]:
        remedy = "images are read from Minari's data sets" if array.ndim > 2 else "reshape them"
        raise DataError(f"{name} has shape {array.shape}, expected [N, D]; {remedy}")
    return array


def _choices(actions: Array) -> Array:
    """Return discrete actions. Raises DataError unless they are 0 … K − 1, each taken once."""
    if actions.ndim != 1:
        raise DataError(f"discrete actions have shape {actions.shape}, expected [N]")
    taken = np.unique(actions)
    if not np.array_equal(taken, np.arange(len(taken))):
        raise DataError(
            "discrete actions must be 0 … K - 1, each taken at least once, not "
            f"{taken[:8].tolist()}; number them with numpy.unique(actions, return_inverse=True)"
        )
    return actions.astype(np.int64)
