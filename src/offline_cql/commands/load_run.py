"""Load a finished run for evaluation, export and collection: config, checkpoint, agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offline_cql.agents import Agent
from offline_cql.commands.make_agent import make_agent
from offline_cql.config import TrainConfig, validate_config
from offline_cql.config.keys import without_secrets
from offline_cql.errors import CheckpointError, ConfigError, DataError, explain
from offline_cql.features import Features
from offline_cql.io import NUMBER, Shape, differing_key, read_config
from offline_cql.runs.checkpoint import load_state
from offline_cql.runs.folder import CONFIG, FEATURES, LOGS, METADATA, RESUMED_WITH, read_metadata
from offline_cql.runs.result import record_killed
from offline_cql.transitions import Spaces

FOREIGN = "the checkpoint is not of a run with these settings; train again, or restore the run"
SPACES = {
    **{"observation_dim": int, "action_dim": int, "discrete": bool},
    **dict.fromkeys(("action_low", "action_high"), (tuple, list)),
}
POLICY = {"agent": dict, "dataset": {"id": str, "sha256": str}, "spaces": SPACES}
GPU_NOISE = 16  # bytes of the state of a generator on a GPU, which needs one to be tried
LENGTHS = {name: int for name in LOGS}
TRAINING = POLICY | {"config": dict, "optimizer": dict, "noise": torch.Tensor, "lengths": LENGTHS}


def load_config(
    folder: Path, *, setting: str = "run", changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Return the settings of a run, with those that changed when it was resumed.

    changes: further settings, nested. Raises ConfigError `setting=FOLDER is not a run folder` when
    it has no config.yaml.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{setting}={folder} is not a run folder: {CONFIG} is missing")
    config = read_config(folder / CONFIG)
    if "${" in str(without_secrets(OmegaConf.to_container(config, resolve=False))):
        raise DataError(  # a variable of this shell could be written where others read it
            f"{folder / CONFIG} has interpolations: replace them by the values trained with"
        )
    if (folder / METADATA).exists():
        config = merge(config, recorded_changes(folder), folder / METADATA)
    if changes:
        return validate_config(TrainConfig, merge(config, changes, folder / CONFIG))
    try:
        return validate_config(TrainConfig, config)
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error


def recorded_changes(folder: Path) -> dict[str, Any]:
    """Return the settings, nested, that changed when a run was resumed."""
    changes: dict[str, Any] = read_metadata(folder).get(RESUMED_WITH) or {}
    if "${" in str(changes):  # they were resolved when they were written
        raise DataError(f"{folder / METADATA} has interpolations in {RESUMED_WITH}: restore it")
    return changes


def run_features(folder: Path) -> Features | None:
    """Return how a run's observations are computed from the columns of its table, if they are."""
    if not (folder / METADATA).exists():
        return None
    content = read_metadata(folder).get(FEATURES)
    return None if content is None else Features.from_json(content)


def merge(config: DictConfig, changes: Mapping[str, Any], path: Path) -> DictConfig:
    """Return a config with the values of changes. Raises DataError, with the path, if none fit."""
    try:
        merged = OmegaConf.merge(config, changes)
    except (OmegaConfBaseException, ValueError) as error:
        raise DataError(f"{path} does not fit its run ({error}): restore it") from error
    assert isinstance(merged, DictConfig)
    return merged


def open_run(folder: Path) -> TrainConfig:
    """Return the settings of a run that another command reads; a killed run gets a result.json."""
    config = load_config(folder)
    record_killed(folder)
    return config


def restore_agent(config: TrainConfig, state: dict[str, Any]) -> Agent:
    """Return the agent of a checkpoint on the CPU, in evaluation mode.

    Raises CheckpointError for a state that is not one of these settings.
    """
    check_state(state, POLICY)
    values: dict[str, Any] = dict(state["spaces"])
    values |= {name: tuple(values[name]) for name in ("action_low", "action_high")}
    spaces = Spaces(**values)
    size = 0 if spaces.discrete else spaces.action_dim
    bounds = (*spaces.action_low, *spaces.action_high)
    valid = len(spaces.action_low) == len(spaces.action_high) == size
    valid = valid and all(isinstance(bound, NUMBER) for bound in bounds)
    if not valid or min(spaces.observation_dim, spaces.action_dim) < 1:
        raise CheckpointError(f"{FOREIGN}: its spaces are {spaces}")
    agent = make_agent(config, spaces)
    with refused_state():
        agent.restore(state)
    return agent.eval()


def check_state(state: dict[str, Any], shape: Shape) -> None:
    """Raise CheckpointError unless a checkpoint has the content of a policy or of a training."""
    key = differing_key(state, shape)
    if key is None and not set(state["spaces"]) <= set(SPACES):
        key = "spaces"
    if key is None and "lengths" in shape:
        lengths = state["lengths"]
        key = None if set(lengths) <= set(LOGS) and min(lengths.values()) >= 0 else "lengths"
    if key is not None:
        raise CheckpointError(f"{FOREIGN}: {key} is missing or has the wrong type")
    for name, value in state["agent"].items():
        with refused_state():  # sparse, quantized or of a type that torch cannot compare
            finite = not isinstance(value, torch.Tensor) or bool(value.isfinite().all())
        if not finite:
            raise CheckpointError(f"{FOREIGN}: {name} is not finite")


def restore_training(agent: Agent, state: dict[str, Any]) -> None:
    """Load a training state into an agent that goes on. Raises CheckpointError as `restore_agent`.

    Lightning loads optimizer and noise later, inside `fit`; here they are tried.
    """
    generator, optimizer = torch.Generator(), torch.optim.Adam(agent.parameter_groups())
    groups = [dict(group) for group in optimizer.param_groups]
    with refused_state():
        agent.restore(state)
        optimizer.load_state_dict(state["optimizer"])
        for group, saved in zip(groups, optimizer.param_groups, strict=True):
            if group["name"] != saved["name"] or not set(group) <= set(saved):
                raise ValueError("its optimizer has other parameters")
        for parameter, moments in optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name].view(parameter.shape)
        if state["noise"].numel() != GPU_NOISE:
            generator.set_state(state["noise"])


@contextmanager
def refused_state() -> Iterator[None]:
    """Turn an error of torch about the content of a checkpoint into a CheckpointError."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        if explain(error) is not None:  # the memory is not enough
            raise
        raise CheckpointError(f"{FOREIGN}: {' '.join(str(error).split())[:200]}") from error


def load_agent(folder: Path, checkpoint: str = "last") -> tuple[TrainConfig, Agent]:
    """Return the config of a run and the agent in one of its checkpoints."""
    config = open_run(folder)
    return config, restore_agent(config, load_state(folder, checkpoint))
