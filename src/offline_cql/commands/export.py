"""`python export.py run=…`: write a run's policy as ONNX, and describe it as JSON beside it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from offline_cql.commands.load_data import is_local, simulator_settings
from offline_cql.commands.load_run import open_run, restore_agent, run_features
from offline_cql.commands.off_policy import load_run_data, read_estimates
from offline_cql.commands.run_loggers import send_results
from offline_cql.commands.tables import key_value_table
from offline_cql.config import ALGORITHMS, ExportConfig, TrainConfig, validate_config
from offline_cql.config.keys import without_secrets
from offline_cql.errors import DataError, SimulatorError
from offline_cql.export.columns import columns_onnx_bytes
from offline_cql.export.onnx_file import (
    ACTION,
    OBSERVATION,
    TOLERANCE,
    check_onnx,
    onnx_bytes,
    require_packages,
)
from offline_cql.export.policy import ExportablePolicy, exportable_policy
from offline_cql.features import CATEGORY, Features, column_inputs, input_name
from offline_cql.io import write_atomically, write_json
from offline_cql.ope.behavior import Support, fit_support
from offline_cql.readers.row_files import Array
from offline_cql.readers.table.reader import Sample, TableReader
from offline_cql.render.command import ROOT, command, path_word, script_path
from offline_cql.render.message import print_message
from offline_cql.render.numbers import format_interval, format_number, format_size
from offline_cql.render.progress import ProgressBar
from offline_cql.render.terminal import Terminal
from offline_cql.runs.checkpoint import load_state
from offline_cql.runs.folder import ONNX, ONNX_JSON, read_metadata
from offline_cql.runs.provenance import commit
from offline_cql.simulation.environments import import_package
from offline_cql.transitions import Spaces, Transitions

SERVER = "examples/serve_policy.py"  # of a checkout
FORMAT = 2
N_CHECKED = 1_000  # observations
MISSING = 0.01  # share of the values of random observations
UPDATES = 3_000  # of the behavior policy
CONVERSION = 1_500  # updates that take about as long as the conversion to ONNX
SUPPORT_OF = {
    True: "the behavior policy's probability of the action",
    False: "the share of logged actions with a lower density where they were taken",
}
VERSIONS = ("offline-cql", "torch", "onnxscript", "onnxruntime")


def export(config: DictConfig) -> None:
    """Write policy.onnx and policy.json into the run folder and print a table.

    Raises ConfigError for a missing run, checkpoint or package, and ExportError when the file
    does not compute the policy; then neither file is written.
    """
    settings = validate_config(ExportConfig, config)
    description = export_policy(settings)
    print_export(Path(settings.run), description)


def export_policy(settings: ExportConfig) -> dict[str, Any]:
    """Write policy.onnx and policy.json; return the content of the second."""
    import_package(settings.env.package)
    require_packages()
    folder = Path(settings.run)
    run = open_run(folder)
    state = load_state(folder, settings.checkpoint)
    agent = restore_agent(run, state)
    policy = exportable_policy(agent, sampled=settings.sampled)
    transitions = load_local_data(run, state)
    features = run_features(folder)
    with ProgressBar(f"exporting {folder.name}", UPDATES + 2 * CONVERSION) as bar:
        support = support_of(transitions, bar) if settings.support else None
        bar.advance(UPDATES + CONVERSION - bar.done)
        sample = table_sample(run, features) if transitions is not None else None
        content, check = checked_file(policy, transitions, features, support, sample)
    description = {
        **describe_interface(
            policy, run, agent.spaces, transitions, features, sample, support=support is not None
        ),
        **describe_origin(folder, run, state, settings.checkpoint),
        **describe_estimates(folder, state["updates"], sampled=settings.sampled),
        "check": check,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_atomically(folder / ONNX, content)
    write_json(folder / ONNX_JSON, description)
    send_results(folder, run.logger, files={"onnx": [folder / ONNX, folder / ONNX_JSON]})
    return description


def checked_file(
    policy: ExportablePolicy,
    transitions: Transitions | None,
    features: Features | None,
    support: Support | None,
    sample: Sample | None,
) -> tuple[bytes, dict[str, Any]]:
    """Return the content of policy.onnx, and of `check` in policy.json. Raises ExportError."""
    if features is None or features.are_columns:
        content = onnx_bytes(policy, len(policy.statistics.mean), support)
        observations, columns = check_observations(policy, transitions), None
    else:
        content = columns_onnx_bytes(policy, features, support)
        mean, std = policy.statistics.mean, policy.statistics.std
        values = random_values(features, mean, std) if sample is None else sample.values
        observations = torch.from_numpy(features.encode(values)).float()
        columns = column_inputs(features, values)
    check = {
        "observations": len(observations),
        "from": "random normal" if transitions is None else "data set",
        "largest_difference": check_onnx(content, policy, observations, columns, support),
        "tolerance": TOLERANCE,
    }
    return content, check


# --- The observations of the check -----------------------------------------------------------


def load_local_data(run: TrainConfig, state: dict[str, Any]) -> Transitions | None:
    """Return the run's data if they are on this machine; nothing is downloaded or simulated."""
    if not is_local(run.dataset):
        return None
    try:
        return load_run_data(run, state)
    except (DataError, SimulatorError) as error:
        print_message(f"warning: {error}; random observations are used for the check")
        return None


def support_of(transitions: Transitions | None, bar: ProgressBar) -> Support | None:
    """Return the model of the support of actions; None without the data, and for images."""
    if transitions is None or transitions.images is not None:
        return None
    return fit_support(transitions, seed=0, updates=UPDATES, on_update=lambda: bar.advance(1))


def check_observations(policy: ExportablePolicy, transitions: Transitions | None) -> Tensor:
    """Draw observations [N, D] from the data, or normal ones with the policy's statistics."""
    if transitions is None:
        mean, std = policy.statistics.mean, policy.statistics.std
        noise = torch.randn(N_CHECKED, len(mean), generator=torch.Generator().manual_seed(0))
        return mean + std * noise
    size = min(N_CHECKED, len(transitions))
    rows = np.sort(np.random.default_rng(0).choice(len(transitions), size, replace=False))
    return torch.from_numpy(transitions.observations[rows]).float()


def table_sample(run: TrainConfig, features: Features | None) -> Sample | None:
    """Return values of the columns of a table, None if they are not inputs of the file."""
    if features is None or features.are_columns:
        return None
    return TableReader.of(run.dataset, None).sample(features, N_CHECKED)


def random_values(features: Features, mean: Tensor, std: Tensor) -> Array:
    """Return random values [N, C] of columns; mean, std [D]: of observations.

    Columns that are only in expressions are half-normal; a hundredth of what may be missing is.
    """
    generator = np.random.default_rng(0)
    values = np.abs(generator.standard_normal((N_CHECKED, len(features.columns))))
    statistics = dict(
        zip(features.names, zip(mean.tolist(), std.tolist(), strict=True), strict=True)
    )
    for index, (name, kind) in enumerate(features.columns.items()):
        if kind == CATEGORY:
            values[:, index] = generator.integers(0, len(features.categories(name)), N_CHECKED)
        elif name in statistics:
            center, spread = statistics[name]
            values[:, index] = center + spread * generator.standard_normal(N_CHECKED)
    values[(generator.random(values.shape) < MISSING) & features.optional] = np.nan
    return values


# --- policy.json -----------------------------------------------------------------------------


def describe_interface(
    policy: ExportablePolicy,
    run: TrainConfig,
    spaces: Spaces,
    transitions: Transitions | None,
    features: Features | None,
    sample: Sample | None,
    *,
    support: bool,
) -> dict[str, Any]:
    """Return the inputs, the outputs, and the contents of observations and actions."""
    inputs: list[dict[str, Any]] = [
        {"name": OBSERVATION, "shape": ["batch", spaces.observation_dim]}
    ]
    if features is not None and not features.are_columns:
        inputs = [{"name": input_name(name), "shape": ["batch"]} for name in features.columns]
    if policy.random_input is not None:
        name, distribution = policy.random_input
        shape = ["batch"] if spaces.discrete else ["batch", spaces.action_dim]
        inputs.append({"name": name, "shape": shape, "distribution": distribution})
    env = simulator_settings(run.env, run.dataset)
    low, high = observation_range(transitions) if transitions else ([], [])
    columns = None if features is None else features.describe()
    for column in columns or ():
        column |= {} if sample is None else sample.ranges.get(column["name"], {})
    normalization = "(observation - mean) / std of the training data, inside the file"
    return {
        "format": FORMAT,
        "inputs": inputs,
        "output": ACTION,
        "support": (SUPPORT_OF[spaces.discrete] if support else None),
        "sampled": policy.random_input is not None,
        "columns": columns,
        "features": None if features is None else features.to_json(),
        "observation": {
            "size": spaces.observation_dim,
            "names": list(observation_names(transitions, features)),
            "keys": env.observation_keys,
            "shift": env.observation_shift,
            "columns": env.observation_columns,
            "constants": env.observation_constants,
            "low": low,
            "high": high,
            "normalization": normalization if run.network.normalize_observations else "none",
        },
        "action": {
            "discrete": spaces.discrete,
            "size": spaces.action_dim,
            "low": list(spaces.action_low),
            "high": list(spaces.action_high),
            "names": list(transitions.action_names) if transitions else [],
        },
    }


def observation_names(
    transitions: Transitions | None, features: Features | None
) -> tuple[str, ...]:
    """Return the names of the numbers of an observation, () without any."""
    if features is not None:
        return features.names
    return () if transitions is None else transitions.observation_names


def observation_range(transitions: Transitions) -> tuple[list[float], list[float]]:
    """Return the smallest and the largest value of each observation column in the data."""
    observations = transitions.observations  # a view: nothing is copied
    low, high = observations.min(axis=0), observations.max(axis=0)
    return low.astype(float).tolist(), high.astype(float).tolist()


def describe_origin(
    folder: Path, run: TrainConfig, state: dict[str, Any], checkpoint: str
) -> dict[str, Any]:
    """Return the environment, data, settings and code that the policy comes from."""
    env = simulator_settings(run.env, run.dataset)
    return {
        "env": {"name": env.name, "id": env.id, "arguments": without_secrets(env.arguments)},
        "dataset": state["dataset"],
        "algorithm": run.algorithm,
        "alpha": run.cql.alpha if ALGORITHMS[run.algorithm].has_alpha else None,
        "seed": run.seed,
        "updates": state["updates"],
        "checkpoint": checkpoint,
        "precision": run.hardware.precision,
        "commit": read_metadata(folder).get("commit"),
        "exported_with": {"commit": commit()} | {name: version(name) for name in VERSIONS},
    }


def describe_estimates(folder: Path, updates: int, *, sampled: bool) -> dict[str, Any]:
    """Return the estimates of these weights and of the behavior policy from the run's ope.json.

    null where there are none. ope.json holds estimates of deterministic policies only, so that a
    sampled policy has none.
    """
    content = read_estimates(folder)
    if not content:
        return {"estimate": None, "behavior_estimate": None}
    gamma = {"gamma": content["gamma"]}
    estimates = [] if sampled else content["checkpoints"].get(str(updates), [])
    return {
        "estimate": estimates[0] | gamma | _text(estimates[0]) if estimates else None,
        "behavior_estimate": content["behavior"] | gamma | _text(content["behavior"]),
    }


# --- The table -------------------------------------------------------------------------------


def _text(estimate: dict[str, Any]) -> dict[str, str]:
    """Return value and interval as they are printed, also by a server without this package."""
    return {"text": format_interval(estimate["value"], estimate["low"], estimate["high"])}


def print_export(folder: Path, description: dict[str, Any]) -> None:
    """Print a table of what was written, and the next command."""
    action, check = description["action"], description["check"]
    table = key_value_table(
        f"{description['env']['name']} · {description['algorithm']} · {folder.name}"
    )
    table.add_row("policy", "sampled" if description["sampled"] else "deterministic")
    table.add_row("inputs", ", ".join(map(format_input, description["inputs"])))
    kind = "discrete" if action["discrete"] else "continuous"
    table.add_row("action", f"{action['size']} {kind}")
    table.add_row("support of actions", "in the file" if description["support"] else "–")
    table.add_row("updates", f"{description['updates']:,}")
    table.add_row("checked on", f"{check['observations']:,} observations, {check['from']}")
    table.add_row("largest difference from torch", format_number(check["largest_difference"]))
    for label, key in (("policy", "estimate"), ("behavior policy", "behavior_estimate")):
        estimate = description[key]
        if estimate is not None:
            table.add_row(f"discounted return, {label}", estimate["text"])
    table.add_row("size", format_size((folder / ONNX).stat().st_size))
    terminal = Terminal()
    terminal.print_table(table)
    terminal.print_field("file", str(folder / ONNX))
    terminal.print_field("file", str(folder / ONNX_JSON))
    if (ROOT / SERVER).is_file():
        terminal.print_field(
            "next", command("python", script_path(SERVER), path_word(folder / ONNX))
        )


def format_input(description: dict[str, Any]) -> str:
    """Return an input as `observation [batch, 3]`."""
    return f"{description['name']} [{', '.join(map(str, description['shape']))}]"
