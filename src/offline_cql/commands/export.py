"""`python export.py run=…`: a run's policy as an ONNX file, and what it is as JSON beside it."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.commands.evaluate import load_settings, load_state, restored_agent
from offline_cql.commands.off_policy import run_data
from offline_cql.config import DatasetConfig, ExportConfig, TrainConfig, typed_as
from offline_cql.errors import ConfigError, DataError, ExportError, SimulatorError
from offline_cql.export.onnx_file import (
    ACTION,
    OBSERVATION,
    TOLERANCE,
    agreement,
    onnx_bytes,
    refuse_missing_packages,
)
from offline_cql.export.policy import ExportablePolicy, policy_alone
from offline_cql.io import read_json, write_atomically, write_json
from offline_cql.readers.d4rl import task_path
from offline_cql.readers.minari.store import is_stored
from offline_cql.render.numbers import format_interval
from offline_cql.runs.checkpoint import kept_updates
from offline_cql.runs.folder import METADATA, OPE
from offline_cql.runs.provenance import commit
from offline_cql.simulation.collect import dataset_id
from offline_cql.transitions import Transitions

ONNX, JSON = "policy.onnx", "policy.json"
FORMAT = 1
CHECKED = 1_000  # observations
VERSIONS = ("offline-cql", "torch", "onnxscript", "onnxruntime")


def export(config: DictConfig) -> None:
    """Write policy.onnx and policy.json, checked before they are there; print a table.

    Raises ConfigError, CheckpointError, and ExportError when the file is not the policy.
    """
    settings = typed_as(ExportConfig, config)
    refuse_missing_packages()
    folder = Path(settings.run)
    run = load_settings(folder)
    state = chosen_state(folder, settings.checkpoint)
    agent = restored_agent(run, state)
    policy = policy_alone(agent, sampled=settings.sampled)
    transitions = data_at_hand(run, state)
    observation = observations(policy, agent, transitions)
    changes = float32_changes(agent, observation)
    content = onnx_bytes(policy, agent.spaces.observation_dim)
    check = {
        "against": "torch",
        "observations": len(observation),
        "from": "drawn around the policy's statistics" if transitions is None else "the data set",
        **asdict(agreement(content, policy, observation)),
        "float32_changes": changes,
    }
    about = {
        **described(policy, agent, transitions),
        **origin(folder, run, state, settings.checkpoint),
        **known_estimates(folder, state["updates"], sampled=settings.sampled),
        "check": check,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(folder / ONNX, content)
    write_json(folder / JSON, about)
    print_export(folder, run, about, size=len(content))


def chosen_state(folder: Path, checkpoint: str) -> dict[str, Any]:
    """The state of the last checkpoint or of a kept one."""
    known = ["last", *map(str, kept_updates(folder))]
    if checkpoint not in known:
        raise ConfigError(f"checkpoint={checkpoint} must be one of {', '.join(known)}")
    return load_state(folder, checkpoint)


# --- The observations that it is checked on --------------------------------------------------


def data_at_hand(run: TrainConfig, state: dict[str, Any]) -> Transitions | None:
    """The run's data, where neither a download nor a simulation is needed to have them."""
    if not at_hand(run.dataset):
        return None
    try:
        return run_data(run, state)
    except (DataError, SimulatorError) as error:
        print(f"warning: {error}; the policy is checked on drawn observations", file=sys.stderr)
        return None


def at_hand(dataset: DatasetConfig) -> bool:
    if dataset.path is not None:
        return True  # reading it says what is wrong with the file
    if dataset.source == "simulated":
        return is_stored(dataset_id(dataset))
    assert dataset.id is not None  # the schema wants one where there is no path
    return task_path(dataset.id).exists() if dataset.source == "d4rl" else is_stored(dataset.id)


def observations(policy: ExportablePolicy, agent: Agent, transitions: Transitions | None) -> Tensor:
    """CHECKED of the data's observations [N, D], or as many around the policy's statistics."""
    if transitions is None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(CHECKED, agent.spaces.observation_dim, generator=generator)
        return policy.statistics.mean + policy.statistics.std * drawn
    size = min(CHECKED, len(transitions))
    rows = np.sort(np.random.default_rng(0).choice(len(transitions), size, replace=False))
    return torch.from_numpy(transitions.observations[rows]).float()


def float32_changes(agent: Agent, observation: Tensor) -> float:
    """How far the run's own policy is from the exported float32 one, at most.

    Above TOLERANCE only where the run computed in bf16. Raises ExportError.
    """
    exported = policy_alone(agent, sampled=False)
    with torch.no_grad():
        changes = float(exported.distance((observation,), agent.act(observation)).amax())
    if agent.config.hardware.precision == "32" and not changes <= TOLERANCE:
        raise ExportError(
            f"the policy alone differs from the agent by up to {changes:.3g}, more than "
            f"{TOLERANCE:g}: nothing was written"
        )
    return changes


# --- policy.json -----------------------------------------------------------------------------


def described(
    policy: ExportablePolicy, agent: Agent, transitions: Transitions | None
) -> dict[str, Any]:
    """What goes in and what comes out, for whoever serves the file."""
    spaces = agent.spaces
    second: list[dict[str, Any]] = []
    if policy.random_input is not None:
        name, distribution = policy.random_input
        shape = ["batch"] if spaces.discrete else ["batch", spaces.action_dim]
        second = [{"name": name, "shape": shape, "distribution": distribution}]
    env = agent.config.env
    mapped = "(observation - mean) / std of the training data, inside the file"
    return {
        "format": FORMAT,
        "inputs": [{"name": OBSERVATION, "shape": ["batch", spaces.observation_dim]}, *second],
        "output": ACTION,
        "sampled": policy.random_input is not None,
        "observation": {
            "size": spaces.observation_dim,
            "names": list(transitions.observation_names) if transitions else [],
            "keys": env.observation_keys,
            "shift": env.observation_shift,  # added to the first numbers of the simulator's
            "columns": env.observation_columns,  # taken of them; null: all
            "constants": env.observation_constants,  # put after those
            "normalization": mapped if agent.config.network.normalize_observations else "none",
        },
        "action": {
            "discrete": spaces.discrete,
            "size": spaces.action_dim,
            "low": list(spaces.action_low),
            "high": list(spaces.action_high),
            "names": list(transitions.action_names) if transitions else [],
        },
    }


def origin(
    folder: Path, run: TrainConfig, state: dict[str, Any], checkpoint: str
) -> dict[str, Any]:
    """Where the policy comes from."""
    record = read_json(folder / METADATA)
    return {
        "env": {"name": run.env.name, "id": run.env.id, "arguments": run.env.arguments},
        "dataset": state["dataset"],
        "algorithm": run.algorithm.name,
        "alpha": run.cql.alpha if run.algorithm.name == "cql" else None,
        "seed": run.seed,
        "updates": state["updates"],
        "checkpoint": checkpoint,
        "precision": run.hardware.precision,
        "commit": record["commit"],
        "exported_with": {"commit": commit()} | {name: version(name) for name in VERSIONS},
    }


def known_estimates(folder: Path, updates: int, *, sampled: bool) -> dict[str, Any]:
    """What evaluate.py ope=… found for these weights and for the behavior; null where nothing.

    It estimates deterministic policies: of a sampled one nothing is known.
    """
    path = folder / OPE
    if not path.exists():
        return {"estimate": None, "behavior_estimate": None}
    content = read_json(path)
    gamma = {"gamma": content["gamma"]}
    found = None if sampled else content["checkpoints"].get(str(updates))
    return {
        "estimate": found[0] | gamma if found else None,
        "behavior_estimate": content["behavior"] | gamma,
    }


# --- The table -------------------------------------------------------------------------------


def print_export(folder: Path, run: TrainConfig, about: dict[str, Any], *, size: int) -> None:
    """What was written, how well it agrees, and what to type next."""
    table = Table(title=f"{run.env.name} · {about['algorithm']} · {folder.name}", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    action, check = about["action"], about["check"]
    kind = "discrete" if action["discrete"] else "continuous"
    table.add_row("policy", "sampled" if about["sampled"] else "deterministic")
    table.add_row("inputs", escape(", ".join(shape_of(each) for each in about["inputs"])))
    table.add_row("action", f"{action['size']} {kind}")
    table.add_row("updates", f"{about['updates']:,}")
    table.add_row("checked on", f"{check['observations']:,} observations, {check['from']}")
    table.add_row("largest difference to torch", f"{check['largest_difference']:.2g}")
    if about["precision"] == "bf16":
        table.add_row("float32 instead of bf16 changes", f"{check['float32_changes']:.2g}")
    for name, key in (("estimate", "estimate"), ("behavior (data)", "behavior_estimate")):
        if about[key] is not None:
            interval = format_interval(*(about[key][part] for part in ("value", "low", "high")))
            table.add_row(f"{name}, discounted", interval)
    table.add_row("size", f"{size / 1000:,.0f} kB")
    console = Console()
    console.print(table)
    for path in (folder / ONNX, folder / JSON):
        console.print(f"file    {path}", soft_wrap=True, highlight=False)
    following = f"python examples/serve_policy.py {folder / ONNX}"
    console.print(f"next    {following}", soft_wrap=True, highlight=False)


def shape_of(wanted: dict[str, Any]) -> str:
    return f"{wanted['name']} [{', '.join(map(str, wanted['shape']))}]"
