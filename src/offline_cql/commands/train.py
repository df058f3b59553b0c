"""`python train.py`: from the composed config to a run folder and the table at its end."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from offline_cql.callbacks.loggers import import_packages
from offline_cql.commands import multirun, summary
from offline_cql.commands.audit import short_audit
from offline_cql.commands.distributed import launch, load_config
from offline_cql.commands.fit import (
    chosen_accelerator,
    chosen_precision,
    fit,
    identity,
)
from offline_cql.commands.load_data import load_transitions
from offline_cql.config import TrainConfig, reject_unused_overrides, validate_config
from offline_cql.data.split import split_episodes
from offline_cql.errors import ConfigError, DataError, PreemptedError, WorkerError
from offline_cql.io import locked, read_json, write_atomically, write_json
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import (
    CONFIG,
    METADATA,
    RESULT,
    create_run_dir,
    remove_temp_files,
    truncate_logs,
)
from offline_cql.runs.provenance import provenance
from offline_cql.transitions import Transitions

# What `resume=RUN` may be combined with.
WITH_RESUME = ("resume", "updates")


def train(config: DictConfig) -> float | None:
    """Train, evaluate, print the table; the metric to optimize is the mean return at the end.

    Raises ConfigError and DataError before anything is trained, and what stopped a run.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    job = multirun.Job.of(hydra) if hydra.mode == RunMode.MULTIRUN else None
    folder: Path | None = None
    failure: str | None = None
    try:
        if config.resume is None:
            settings, transitions = validate(config, overrides)
            folder = create_run(config, settings, transitions, grid_name=job.grid if job else None)
            # A grid says it once: its other jobs have the same data, or their audit.json.
            short_audit(settings, transitions, folder, shown=job is None or job.number == 0)
            run_training(folder, load_config(folder), transitions, state=None)
        else:
            folder = Path(str(config.resume))
            resume(folder, config, overrides)
    except PreemptedError as stop:
        # Hydra's sweeper ends at SystemExit: a grid that is asked to stop stops.
        print(f"{stop}; go on with: python train.py resume={folder}", file=sys.stderr)
        raise SystemExit(128 + stop.signal_number) from stop
    except Exception as error:
        failure = str(error)
        raise
    finally:
        if job is not None:
            job.write(overrides, folder, failure)
    result = read_json(folder / RESULT)
    summary.print_run(folder, load_config(folder), result)
    value: float | None = result["return_mean"]
    return value


def validate(config: DictConfig, overrides: list[str]) -> tuple[TrainConfig, Transitions]:
    """The settings and the data of a new run, after every check that needs no folder."""
    settings = validate_config(TrainConfig, config)
    check_devices(settings)
    import_packages(settings.logger.names)
    if settings.hardware.precision == "auto":
        settings.hardware.precision = chosen_precision(settings.hardware)
        print(f"precision {settings.hardware.precision} (hardware.precision=auto)")
    transitions = prepared_data(settings)
    reject_unused_overrides(settings, overrides, discrete=transitions.spaces.discrete)
    return settings, transitions


def create_run(
    config: DictConfig, settings: TrainConfig, transitions: Transitions, *, grid_name: str | None
) -> Path:
    """Claim the run folder and write what the run is: config.yaml and metadata.json."""
    folder = create_run_dir(Path(settings.run_dir))
    plain = resolve(config) | {"run_dir": str(folder)}
    plain["hardware"]["precision"] = settings.hardware.precision  # auto was settled for this run
    write_config(folder, plain)
    metadata = provenance(
        command=sys.argv,
        grid=grid_name,
        dataset={"id": transitions.dataset_id, "sha256": transitions.sha256},
        devices=settings.hardware.devices,
        precision=settings.hardware.precision,
        wandb="wandb" in settings.logger.names,
    )
    write_json(folder / METADATA, metadata)
    return folder


def write_config(folder: Path, plain: dict[str, Any]) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(plain))
    write_atomically(folder / CONFIG, text.encode())


def resume(folder: Path, config: DictConfig, overrides: list[str]) -> None:
    """Continue a run exactly, to `updates=` if that was raised."""
    given = {override.partition("=")[0] for override in overrides}
    if other := sorted(given.difference(WITH_RESUME)):
        raise ConfigError(
            f"{other[0]} cannot be changed with resume=; a run goes on as it was configured "
            "(only updates may be raised)"
        )
    if not (folder / CONFIG).exists():
        raise ConfigError(f"resume={folder} is no run folder: it has no {CONFIG}")
    settings = load_config(folder)
    check_devices(settings)
    transitions = prepared_data(settings)
    with locked(folder):
        state = newest_checkpoint(folder)
        refuse_changes(folder, state, identity(settings, transitions))
        updates = (
            validate_config(TrainConfig, config).updates if "updates" in given else settings.updates
        )
        # Without a result the run was killed between its last checkpoint and its end.
        if updates <= state["updates"] and (folder / RESULT).exists():
            print(f"nothing to do: {folder} has {state['updates']} updates, updates={updates}")
            return
        if updates != settings.updates:
            plain = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
            assert isinstance(plain, dict)
            write_config(folder, {str(k): v for k, v in plain.items()} | {"updates": updates})
        truncate_logs(folder, state["lengths"])
        remove_temp_files(folder)
    run_training(folder, load_config(folder), transitions, state=state)


def run_training(
    folder: Path, settings: TrainConfig, transitions: Transitions, *, state: dict[str, Any] | None
) -> None:
    """Train over a claimed folder, in this process or in one process a device."""
    if settings.hardware.strategy != "ddp":
        with locked(folder):
            fit(settings, folder, transitions, state=state)
        return
    try:
        launch(folder, settings.hardware, resume=state is not None)
    except WorkerError:
        with suppress(FileNotFoundError):
            result = read_json(folder / RESULT)
            if result["status"] == "preempted":
                raise PreemptedError(int(result["signal"])) from None
        raise


def prepared_data(settings: TrainConfig) -> Transitions:
    """The transitions, recorded or downloaded first if need be; enough of them for a batch."""
    transitions = load_transitions(settings.env, settings.dataset)
    size = split_episodes(transitions, settings.dataset).size
    if settings.batch_size > size:
        raise ConfigError(
            f"batch_size={settings.batch_size} must be <= {size}, the training transitions of "
            f"{transitions.dataset_id}"
        )
    return transitions


def check_devices(settings: TrainConfig) -> None:
    """A GPU that was asked for must be there: there is no silent fallback."""
    if chosen_accelerator(settings.hardware) != "gpu":
        if settings.hardware.capture:
            raise ConfigError(
                "hardware.capture=true needs a GPU, found 0; use hardware.capture=false"
            )
        return
    found = torch.cuda.device_count()
    if settings.hardware.devices > found:
        raise ConfigError(
            f"hardware.devices={settings.hardware.devices} needs as many GPUs, found {found}; "
            "use hardware=cpu, or hardware=ddp_cpu for several processes"
        )


def refuse_changes(folder: Path, state: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ConfigError or DataError when settings or data are not those of the checkpoint."""
    if state["dataset"] != now["dataset"]:
        raise DataError(
            f"{folder}: the data changed since the checkpoint "
            f"({state['dataset']['sha256'][:12]}… then, {now['dataset']['sha256'][:12]}… now)"
        )
    for section, settings in now["config"].items():
        if state["config"].get(section) != settings:
            raise ConfigError(
                f"{folder}/{CONFIG}: {section} differs from the checkpoint's; "
                "undo the edit or start a new run"
            )


def resolve(config: DictConfig) -> dict[str, Any]:
    """The composed config with interpolations resolved, but for environment variables."""

    def plain(value: Any, raw: Any) -> Any:
        if isinstance(raw, dict):
            return {key: plain(value[key], raw[key]) for key in raw}
        return raw if isinstance(raw, str) and "oc.env:" in raw else value

    raw = OmegaConf.to_container(config, resolve=False)
    result: dict[str, Any] = plain(OmegaConf.to_container(config, resolve=True), raw)
    return result
