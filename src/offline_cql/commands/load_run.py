"""Load a finished run for evaluation, export and collection: config, checkpoint, agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from offline_cql.agents import Agent
from offline_cql.commands.make_agent import make_agent
from offline_cql.config import TrainConfig, validate_config
from offline_cql.errors import ConfigError
from offline_cql.io import read_json
from offline_cql.runs.checkpoint import load_state
from offline_cql.runs.folder import CONFIG, METADATA
from offline_cql.runs.result import record_killed
from offline_cql.transitions import Spaces


def load_config(folder: Path, *, setting: str = "run") -> TrainConfig:
    """Return the settings of a run, with the updates that it was last resumed to.

    Raises ConfigError `setting=FOLDER is not a run folder` when it has no config.yaml.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"{setting}={folder} is not a run folder: {CONFIG} is missing")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    if (folder / METADATA).exists():
        config.updates = read_json(folder / METADATA).get("updates", config.updates)
    return validate_config(TrainConfig, config)


def open_run(folder: Path) -> TrainConfig:
    """Return the settings of a run that another command reads; a killed run gets a result.json."""
    config = load_config(folder)
    record_killed(folder)
    return config


def restore_agent(config: TrainConfig, state: dict[str, Any]) -> Agent:
    """Return the agent of a checkpoint on the CPU, in evaluation mode."""
    agent = make_agent(config, Spaces(**state["spaces"]))
    agent.restore(state)
    return agent.eval()


def load_agent(folder: Path, checkpoint: str = "last") -> tuple[TrainConfig, Agent]:
    """Return the config of a run and the agent in one of its checkpoints."""
    config = open_run(folder)
    return config, restore_agent(config, load_state(folder, checkpoint))
