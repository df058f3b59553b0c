"""`python train.py`: create or resume a run, train it, print the table at its end."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from offline_cql.callbacks.loggers import import_packages
from offline_cql.commands import multirun, summary
from offline_cql.commands.audit import short_audit
from offline_cql.commands.distributed import launch
from offline_cql.commands.fit import (
    NO_EXTRAS,
    Extras,
    alpha_in_reward_units,
    choose_accelerator,
    choose_precision,
    fit,
    identity,
)
from offline_cql.commands.launchers import check_launcher
from offline_cql.commands.load_data import load_transitions
from offline_cql.commands.load_run import (
    TRAINING,
    check_state,
    load_config,
    merge,
    recorded_changes,
)
from offline_cql.commands.output import accept_any_encoding, optional_output
from offline_cql.commands.resume_settings import (
    PACKAGE,
    changed_settings,
    fixed_settings,
    to_dict,
)
from offline_cql.commands.threads import allowed_cores, choose_threads, cpu_threads, run_cores
from offline_cql.config import (
    HardwareConfig,
    NetworkConfig,
    TrainConfig,
    reject_unused_overrides,
    validate_config,
)
from offline_cql.config.keys import holds_secret
from offline_cql.data.split import split_episodes
from offline_cql.errors import ConfigError, DataError, PreemptedError, WorkerError
from offline_cql.io import expand_home, locked, write_atomically, write_json
from offline_cql.render.command import command
from offline_cql.render.message import print_message, printable
from offline_cql.render.numbers import format_size
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import (
    ACTION_NAMES,
    CONFIG,
    EVALUATION,
    FEATURES,
    METADATA,
    RESUMED_WITH,
    VALIDATION,
    create_run_dir,
    package_words,
    read_metadata,
    remove_temp_files,
    saved_updates,
    truncate_logs,
)
from offline_cql.runs.provenance import new_wandb_id, provenance
from offline_cql.runs.result import is_finished, read_result, recorded_failure
from offline_cql.simulation.environments import import_package
from offline_cql.transitions import Spaces, Transitions


def train(config: DictConfig) -> float | None:
    """Train and print the table; return the last mean return, which a sweeper maximizes.

    Raises ConfigError and DataError before anything is trained, and what stopped the run.
    """
    accept_any_encoding()
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    job = multirun.Job.of(hydra) if hydra.mode == RunMode.MULTIRUN else None
    folder: Path | None = None
    failure: str | None = None
    if job is not None:
        job.write(overrides, None, None)  # it has started, whatever follows
    try:
        if config.resume is None:
            settings, transitions = validate(config, overrides)
            grid_name = job.grid if job else None
            folder = create_run(
                config, settings, transitions, grid_name=grid_name, typed=sys.argv[1:]
            )
            # In a grid the first job prints the audit; every run has its audit.json.
            train_run(folder, transitions, verbose=job is None or job.number == 0)
        else:
            folder = expand_home(str(config.resume), "write an absolute path")
            resume(folder, config, overrides)
    except PreemptedError as stop:
        # SystemExit also ends Hydra's sweeper: a signal stops the whole grid.
        print_message(f"{stop}; {what_is_saved(folder)}")
        raise SystemExit(stop.exit_code) from stop
    except Exception as error:
        failure = str(error)
        raise
    finally:
        if job is not None:
            job.write(overrides, folder, failure)
    result = read_result(folder)
    with optional_output():
        summary.print_run(folder, load_config(folder), result)
    return_mean: float | None = result["return_mean"]
    return return_mean


def what_is_saved(folder: Path | None) -> str:
    """Return what a stopped run left, and how to continue it."""
    if folder is None:
        return "nothing was trained"
    if not saved_updates(folder):
        return f"{folder} has no checkpoint yet: start the run again"
    resume = command("train.py", ("resume", folder), *package_words(folder))
    return f"the run is saved; continue with: {resume}"


def audit_data(
    folder: Path, settings: TrainConfig, transitions: Transitions, *, verbose: bool
) -> None:
    """Write the short audit of the data into the run folder, and print it if verbose."""
    short_audit(
        transitions,
        folder,
        env=settings.env,
        dataset=settings.dataset,
        gamma=settings.gamma,
        irrelevant=() if alpha_in_reward_units(settings) else ("reward_scale",),
        verbose=verbose,
    )


def validate(config: DictConfig, overrides: list[str]) -> tuple[TrainConfig, Transitions]:
    """Return settings and data of a new run, after every check that needs no folder."""
    settings = validate_config(TrainConfig, config)
    check_launcher(settings.hardware)
    check_devices(settings.hardware)
    import_packages(settings.logger.names)
    import_package(settings.env.package)
    transitions = prepare_data(settings)
    reject_unused_overrides(settings, overrides, discrete=transitions.spaces.discrete)
    check_memory(settings.network, transitions.spaces)
    for line in settings.warnings_for(discrete=transitions.spaces.discrete):
        print_message(f"warning: {line}")
    return settings, transitions


def create_run(
    config: DictConfig,
    settings: TrainConfig,
    transitions: Transitions,
    *,
    grid_name: str | None,
    typed: Sequence[str] = (),
) -> Path:
    """Create the run folder with config.yaml and metadata.json, each written once.

    typed: the arguments of train.py. config.yaml has what is settled now: the folder's name, the
    precision of this machine and the number of threads.
    """
    folder = create_run_dir(Path(settings.run_dir))
    with locked(folder), recorded_failure(folder):
        write_settings(folder, config, settings, transitions, grid_name=grid_name, typed=typed)
    return folder


def write_settings(
    folder: Path,
    config: DictConfig,
    settings: TrainConfig,
    transitions: Transitions,
    *,
    grid_name: str | None,
    typed: Sequence[str],
) -> None:
    """Write config.yaml and metadata.json of a new run."""
    precision = choose_precision(settings.hardware)
    if settings.hardware.precision == "auto":
        print(f"precision {precision} (hardware.precision=auto)")
    values = resolve(config, settings) | {"run_dir": str(folder)}
    gpu = choose_accelerator(settings.hardware) == "gpu"
    threads = choose_threads(settings, transitions.spaces, gpu=gpu, cores=run_cores())
    variable = os.environ.get("OMP_NUM_THREADS")
    if variable not in (None, str(threads)) and grid_name is None:  # in a grid joblib sets it
        ignored = f"OMP_NUM_THREADS={variable} has no effect on a run"
        print_message(f"note: {ignored}: it has hardware.threads={threads}")
    values["hardware"] |= {"precision": precision, "threads": threads}
    text = OmegaConf.to_yaml(OmegaConf.create(values))
    write_atomically(folder / CONFIG, text.encode())
    metadata = provenance(
        command=command("train.py", *typed),
        grid=grid_name,
        dataset={"id": transitions.dataset_id, "sha256": transitions.sha256},
        devices=settings.hardware.devices,
        precision=precision,
        cores=allowed_cores(),
        threads=threads,
        wandb="wandb" in settings.logger.names,
    )
    if transitions.features is not None:
        metadata[FEATURES] = transitions.features.to_json()
    if transitions.action_names:
        metadata[ACTION_NAMES] = list(transitions.action_names)
    write_json(folder / METADATA, metadata)


def train_run(
    folder: Path, transitions: Transitions, *, verbose: bool, extras: Extras = NO_EXTRAS
) -> None:
    """Train a run that `create_run` made, after the audit of its data."""
    settings = load_config(folder)
    with locked(folder), recorded_failure(folder):
        audit_data(folder, settings, transitions, verbose=verbose)
    run_training(folder, settings, transitions, state=None, extras=extras)


def resume(
    folder: Path, config: DictConfig, overrides: list[str], *, extras: Extras = NO_EXTRAS
) -> None:
    """Continue a run bit for bit, until `updates=` if that was raised."""
    changes = changed_settings(config, overrides)
    before = load_config(folder, setting="resume")
    settings = load_config(folder, changes=changes)
    check_launcher(settings.hardware)
    check_devices(settings.hardware)
    import_packages(settings.logger.names)
    import_package(OmegaConf.select(config, PACKAGE))  # typed, not the run folder's
    transitions = prepare_data(settings)
    with locked(folder):
        state = newest_checkpoint(folder)
        check_state(state, TRAINING)
        check_identity(folder, state, identity(settings, transitions))
        # A run can be killed, or fail, between its last checkpoint and its end.
        if settings.updates <= state["updates"] and is_finished(folder):
            done = f"{folder} has {state['updates']} updates, updates={settings.updates}"
            print(printable(f"nothing to do: {done}"))
            return
        record_changes(folder, changes, settings)
        rows = {VALIDATION: 1, EVALUATION: before.evaluation.episodes}
        truncate_logs(folder, state["lengths"], update=state["updates"], rows=rows)
        remove_temp_files(folder)
    run_training(folder, settings, transitions, state=state, extras=extras)


def record_changes(folder: Path, changes: dict[str, Any], settings: TrainConfig) -> None:
    """Add the settings typed with resume= to metadata.json, and an id for W&B if it is new."""
    if not changes:
        return
    metadata = read_metadata(folder)
    recorded = OmegaConf.create(recorded_changes(folder))
    metadata[RESUMED_WITH] = to_dict(merge(recorded, changes, folder / METADATA))
    if "wandb" in settings.logger.names and metadata["wandb_id"] is None:
        metadata["wandb_id"] = new_wandb_id(metadata["grid"])
    write_json(folder / METADATA, metadata)


def run_training(
    folder: Path,
    settings: TrainConfig,
    transitions: Transitions,
    *,
    state: dict[str, Any] | None,
    extras: Extras = NO_EXTRAS,
) -> None:
    """Train over a run folder, in this process or in one process per device."""
    if settings.hardware.strategy != "ddp":
        with locked(folder), recorded_failure(folder), cpu_threads(settings.hardware.threads):
            fit(settings, folder, transitions, state=state, extras=extras)
        return
    try:
        with recorded_failure(folder):
            launch(
                folder, settings.hardware, resume=state is not None, package=settings.env.package
            )
    except WorkerError:
        # Someone may have sent the signal to the ranks, not to this process.
        with suppress(FileNotFoundError):
            result = read_result(folder)
            if result["status"] == "preempted":
                raise PreemptedError(int(result["signal"])) from None
        raise


def prepare_data(settings: TrainConfig) -> Transitions:
    """Load the transitions. Raises ConfigError when a batch is larger than the training part."""
    transitions = load_transitions(settings.env, settings.dataset)
    size = split_episodes(transitions, settings.dataset).size
    if settings.batch_size > size:
        raise ConfigError(
            f"batch_size={settings.batch_size} must be <= {size}, the training transitions of "
            f"{transitions.dataset_id}"
        )
    return transitions


def check_devices(hardware: HardwareConfig) -> None:
    """Raise ConfigError when a configured GPU is missing: there is no fallback."""
    if choose_accelerator(hardware) != "gpu":
        if hardware.capture:
            raise ConfigError(
                "hardware.capture=true needs a GPU, found 0; use hardware.capture=false"
            )
        return
    gpus = torch.cuda.device_count()
    if hardware.devices > gpus:
        raise ConfigError(
            f"hardware.devices={hardware.devices} needs as many GPUs, found {gpus}; "
            "use hardware=cpu, or hardware=ddp_cpu for several processes"
        )


def check_memory(network: NetworkConfig, spaces: Spaces) -> None:
    """Raise ConfigError when the machine's memory cannot hold a network and its optimizer.

    The system would let most of it be allocated, and kill the process later.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    inputs = spaces.observation_dim + spaces.action_dim
    for name, members in (("critic_hidden", network.n_critics), ("actor_hidden", 1)):
        weights = members * sum(a * b for a, b in pairwise([inputs, *getattr(network, name)]))
        needed = 16 * weights  # bytes: the weight, its gradient, two moments
        complaint = (
            f"with {network.setting('n_critics')} needs {format_size(needed)} for weights and "
            f"optimizer, the machine has {format_size(memory)}; choose narrower layers"
        )
        network.require(needed <= memory, name, complaint)


def check_identity(folder: Path, state: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise ConfigError or DataError when settings or data differ from the checkpoint's."""
    if state["dataset"] != current["dataset"]:
        raise DataError(
            f"{folder}: the data changed since the checkpoint "
            f"(sha256 {state['dataset']['sha256'][:12]}… then, "
            f"{current['dataset']['sha256'][:12]}… now)"
        )
    saved = fixed_settings(state["config"])
    for section, settings in current["config"].items():
        if saved.get(section) != settings:
            raise ConfigError(
                f"{folder}/{CONFIG}: {section} differs from the checkpoint's; "
                "undo the edit or start a new run"
            )


def resolve(config: DictConfig, settings: TrainConfig) -> dict[str, Any]:
    """Return the config with interpolations resolved, also those of environment variables.

    A run can be read in any shell; `seed=${oc.env:SEED}` is the number that the run was trained
    with. Values of keys that hold secrets stay as they were written.
    """

    def merge(raw: Any, value: Any, typed: Any, key: str) -> Any:
        if isinstance(raw, dict):
            known = typed if isinstance(typed, dict) else {}
            return {k: merge(raw[k], value[k], known.get(k, value[k]), str(k)) for k in raw}
        if isinstance(raw, list):
            alike = isinstance(typed, list) and len(typed) == len(raw)
            parts = zip(raw, value, typed if alike else value, strict=True)
            return [merge(*part, key) for part in parts]
        if "${" not in str(raw):
            return value
        if holds_secret(key):
            return raw
        # A variable is text; the validated setting has the type. A section keeps its own keys.
        return value if isinstance(value, dict) else typed

    raw = OmegaConf.to_container(config, resolve=False)
    values = OmegaConf.to_container(config, resolve=True)
    merged: dict[str, Any] = merge(raw, values, settings.model_dump(mode="json"), "")
    return merged
