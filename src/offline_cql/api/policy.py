"""A learned policy over NumPy arrays, from a run, a checkpoint or an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.errors import ConfigError, DataError, PolicyError
from offline_cql.features import Features, column_inputs
from offline_cql.io import expand_home, read_bytes, read_json

Array = npt.NDArray[Any]
DESCRIPTION = {
    **{"sha256": str, "sampled": bool, "observation": {"size": int}},
    "action": {"discrete": bool, "size": int},
}
INPUT, OUTPUT = "observation", "action"  # of the ONNX file


class Policy:
    """A policy; observations and actions are in the environment's units.

    observation_dim: D; action_dim: A, or the number of discrete actions. features: of a policy that
    was learned from a table, how its columns become observations.
    """

    def __init__(
        self,
        act: Callable[[Array], Array],
        *,
        observation_dim: int,
        action_dim: int,
        discrete: bool,
        features: Features | None = None,
        act_on_columns: Callable[[Array], Array] | None = None,
        load: Callable[[], Policy],
    ) -> None:
        if features is not None and len(features.names) != observation_dim:
            raise DataError(
                f"the description of the observation has {len(features.names)} numbers, the policy "
                f"{observation_dim}: restore metadata.json, or export the policy again"
            )
        self._act, self._act_on_columns = act, act_on_columns
        self.observation_dim, self.action_dim, self.discrete = observation_dim, action_dim, discrete
        self.features = features
        self._load = load

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how the policy is loaded: another process loads it again."""
        return self._load, ()

    def predict(self, observation: npt.ArrayLike | Mapping[str, Any]) -> Array | np.int64:
        """Return the action for one observation [D], or the actions for a batch [B, D].

        [A] or [B, A]; of discrete actions an integer, or [B] of them. Of a policy that was learned
        from a table also by the names of its columns: {"age": 71, "mode": "auto"}, or lists, or a
        data frame. Raises DataError for an observation of another shape or that is not finite, and
        PolicyError when the policy has no action for it.
        """
        named = by_names(observation, () if self.features is None else self.features.columns)
        if named is not None:
            return self._predict_columns(named)
        if self._act_on_columns is not None:
            columns = ", ".join(self.features.columns) if self.features is not None else ""
            raise DataError(f"the observation must be given by the names of its columns: {columns}")
        batch = np.asarray(observation)
        single = batch.ndim == 1
        if batch.ndim not in (1, 2) or batch.shape[-1] != self.observation_dim:
            expected = f"[{self.observation_dim}] or [B, {self.observation_dim}]"
            raise DataError(f"the observation has shape {batch.shape}, expected {expected}")
        if batch.dtype.kind not in "biuf":
            raise DataError(f"the observation has dtype {batch.dtype}, expected numbers")
        if not len(batch):
            return self._no_actions()
        with np.errstate(over="ignore"):  # overflow becomes infinity
            rows = np.atleast_2d(batch).astype(np.float32)
        names = () if self.features is None else self.features.names
        return self._checked(self._act(finite(rows, names)), single)

    def _predict_columns(self, observation: Any) -> Array | np.int64:
        if self.features is None:
            raise DataError(
                "the observation is a dictionary, expected its numbers in a row: "
                "gymnasium.spaces.flatten(env.observation_space, observation)"
            )
        values, single = self.features.rows(observation)
        if not len(values):
            return self._no_actions()
        if self._act_on_columns is not None:
            return self._checked(self._act_on_columns(values), single)
        with np.errstate(over="ignore"):  # overflow becomes infinity
            rows = self.features.encode(values).astype(np.float32)
        return self._checked(self._act(finite(rows, self.features.names)), single)

    def _no_actions(self) -> Array:
        """Return the actions for an empty batch."""
        shape = (0,) if self.discrete else (0, self.action_dim)
        return np.empty(shape, np.int64 if self.discrete else np.float32)

    def _checked(self, actions: Array, single: bool) -> Array | np.int64:
        """Return the actions, or the first. Raises PolicyError where there is none."""
        valid = (actions >= 0) & (actions < self.action_dim) if self.discrete else actions
        if not (valid.all() if self.discrete else np.isfinite(actions).all()):
            raise PolicyError("the policy has no action: its numbers overflow at this observation")
        return actions[0] if single else actions


def by_names(observation: Any, columns: Collection[str]) -> Any:
    """Return observations as a dictionary of columns; None for plain numbers.

    Data frames of pandas, polars and pyarrow, of which the other columns do not count; one of their
    rows; a dictionary, or a list of them.
    """
    if isinstance(observation, list) and observation and isinstance(observation[0], Mapping):
        names = observation[0].keys()
        if any(not isinstance(row, Mapping) or row.keys() != names for row in observation):
            raise DataError("the observations of the list have different names")
        return {name: [row[name] for row in observation] for name in names}
    if isinstance(observation, Mapping):
        return observation
    if hasattr(observation, "to_pydict"):  # a pyarrow Table
        frame = observation.to_pydict()
    elif hasattr(observation, "to_dicts"):  # a data frame of polars
        frame = {name: observation[name].to_list() for name in observation.columns}
    elif hasattr(observation, "keys") and hasattr(observation, "to_dict"):  # pandas
        is_row = observation.ndim == 1
        if is_row and not isinstance(next(iter(observation.keys()), None), str):
            return None  # a Series of numbers
        frame = observation.to_dict() if is_row else observation.to_dict("list")
    else:
        return observation if hasattr(observation, "keys") else None
    return {name: values for name, values in frame.items() if not columns or name in columns}


def finite(rows: Array, names: Sequence[str] = ()) -> Array:
    """Return the rows. Raises DataError for a number that is not finite; names: of the numbers."""
    if not np.isfinite(rows).all():
        column = int(np.argwhere(~np.isfinite(rows))[0, 1])
        name = names[column] if names else f"number {column} of the observation"
        raise DataError(f"{name} is not finite in float32")
    return rows


def load_policy(
    path: str | Path, *, checkpoint: int | str = "last", seed: int | None = None
) -> Policy:
    """Return a policy to act with.

    path: a run folder, one of its checkpoints, or an ONNX file that `export` wrote, which needs no
    torch. checkpoint: of a run folder, `last` or a number of updates. seed: of the random numbers
    of an ONNX file with a sampled policy. Raises ConfigError and CheckpointError.
    """
    location = expand_home(str(path), "write an absolute path")
    if location.suffix == ".onnx":
        return _onnx_policy(location, seed)
    from offline_cql.runs.checkpoint import load_state, read_checkpoint

    if location.is_file():
        state, folder = read_checkpoint(location), _run_of(location)
    else:
        folder, state = location, None
    import torch

    from offline_cql.commands.load_run import open_run, restore_agent, run_features

    agent = restore_agent(open_run(folder), state or load_state(folder, str(checkpoint)))

    @torch.no_grad()
    def act(rows: Array) -> Array:
        actions: Array = agent.act(torch.from_numpy(rows)).numpy()
        return actions

    return Policy(
        act,
        observation_dim=agent.spaces.observation_dim,
        action_dim=agent.spaces.action_dim,
        discrete=agent.spaces.discrete,
        features=run_features(folder),
        load=partial(load_policy, location.absolute(), checkpoint=checkpoint),
    )


def _run_of(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint, whose settings build its networks."""
    from offline_cql.runs.folder import CHECKPOINTS, CONFIG

    for folder in checkpoint.absolute().parents:
        if folder.name == CHECKPOINTS and (folder.parent / CONFIG).exists():
            return folder.parent
    raise ConfigError(f"{checkpoint} is in no run folder, which has its settings; keep it there")


def _onnx_policy(path: Path, seed: int | None) -> Policy:
    """Return the policy of an ONNX file. Raises ConfigError when it is not policy.json's."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; write it with Run.export or export.py")
    description = read_json(path.with_suffix(".json"), DESCRIPTION, remedy="export it again")
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != description["sha256"]:
        raise ConfigError(f"{path} is not the file that policy.json describes; export it again")
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(f"{path} needs an extra: pip install 'offline-cql[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # faster for a small network
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common class
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path} cannot be loaded ({reason}); export it again") from error
    action, generator = description["action"], np.random.default_rng(seed)

    described = description.get("features")
    features = None if described is None else Features.from_json(described)
    takes_columns = features is not None and not features.are_columns

    def act(rows: Array) -> Array:
        return run({INPUT: rows}, len(rows))

    def act_on_columns(values: Array) -> Array:
        assert features is not None
        return run(column_inputs(features, values), len(values))

    def run(inputs: dict[str, Array], size: int) -> Array:
        if description["sampled"] and action["discrete"]:
            inputs["uniform"] = generator.random(size, np.float32)
        elif description["sampled"]:
            inputs["noise"] = generator.standard_normal((size, action["size"]), np.float32)
        actions: Array = session.run([OUTPUT], inputs)[0]
        return actions

    return Policy(
        act,
        observation_dim=description["observation"]["size"],
        action_dim=action["size"],
        discrete=action["discrete"],
        features=features,
        act_on_columns=act_on_columns if takes_columns else None,
        load=partial(load_policy, path.absolute(), seed=seed),
    )
