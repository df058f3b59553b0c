"""One process's training: data, agent, callbacks and Lightning's Trainer over one run folder.

Each rank of a distributed run calls the same function on the same folder.
"""

import ctypes
import inspect
import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.callbacks import ProgressBar as LightningProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy

from offline_cql.agents import Agent
from offline_cql.callbacks.checkpoints import CheckpointCallback
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.callbacks.loggers import STOP_TIMEOUT, GuardedLogger, make_loggers
from offline_cql.callbacks.metrics import MetricsWriter
from offline_cql.callbacks.progress import ProgressBar
from offline_cql.callbacks.stop import StopCallback
from offline_cql.callbacks.timer import Timer
from offline_cql.callbacks.validation import ValidationCallback, ValidationHooks
from offline_cql.commands.launchers import choose_environment, set_lightning_rank
from offline_cql.commands.load_data import simulator_settings
from offline_cql.commands.load_run import restore_training
from offline_cql.commands.make_agent import make_agent
from offline_cql.commands.resume_settings import fixed_settings
from offline_cql.commands.run_loggers import run_info
from offline_cql.config import ALGORITHMS, HardwareConfig, TrainConfig
from offline_cql.config.keys import without_secrets
from offline_cql.data.dataset import TransitionDataset, make_dataset
from offline_cql.data.module import TransitionDataModule
from offline_cql.data.returns import ValueRange
from offline_cql.data.split import Split, split_episodes
from offline_cql.data.statistics import observation_statistics, return_scale
from offline_cql.data.validation import ValidationSteps, validation_steps
from offline_cql.errors import ConfigError, DivergedError, PreemptedError, WorkerError
from offline_cql.io import read_json, write_json
from offline_cql.runs.checkpoint import check_complete
from offline_cql.runs.folder import AUDIT, METADATA, RESULT, diverged_batch, read_metadata
from offline_cql.runs.result import describe_stop
from offline_cql.simulation.evaluation import behavior_return
from offline_cql.stop_signals import deferred
from offline_cql.transitions import Transitions

LIGHTNING = ("pytorch_lightning", "lightning_fabric")
# What gloo's errors about another rank contain; some come without the place in its code.
LOST_RANK = ("gloo/transport", "Application timeout caused pair closure")


# Lightning's callbacks that cannot work here, with the reason.
REFUSED_CALLBACKS: dict[type[Callback], str] = {
    Checkpoint: "a run has checkpoints of its own; set checkpoint_every and evaluation.every",
    LightningProgressBar: "a run has a progress bar of its own",
    **dict.fromkeys(
        (BaseFinetuning, BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder),
        "it needs Lightning's automatic optimization",
    ),
    **dict.fromkeys(
        (ModelPruning, StochasticWeightAveraging, WeightAveraging),
        "it changes weights that a checkpoint has to contain",
    ),
}


def _objects(name: str, given: Any, kind: type[Any]) -> list[Any]:
    """Return objects of a class of Lightning's, given as one, several or None."""
    objects = [] if given is None else [given] if isinstance(given, kind) else given
    if not isinstance(objects, Iterable) or any(not isinstance(o, kind) for o in objects):
        expected = f"objects of Lightning's {kind.__name__}"
        raise ConfigError(f"{name} must be {expected}, not {given!r:.60}")
    return list(objects)


@dataclass(frozen=True)
class Extras:
    """Lightning's callbacks and loggers that a Python program adds to those of a run.

    Raises ConfigError for a callback that cannot work here.
    """

    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()

    @classmethod
    def of(cls, callbacks: Any, loggers: Any) -> "Extras":
        """Return the extras of one object or several. Raises ConfigError for other objects."""
        return cls(_objects("callbacks", callbacks, Callback), _objects("loggers", loggers, Logger))

    def __post_init__(self) -> None:
        for callback in self.callbacks:
            for kind, reason in REFUSED_CALLBACKS.items():
                if isinstance(callback, kind):
                    raise ConfigError(f"leave out {type(callback).__name__}: {reason}")


NO_EXTRAS = Extras()


def fit(
    config: TrainConfig,
    folder: Path,
    transitions: Transitions,
    *,
    state: dict[str, Any] | None,
    rank: int = 0,
    extras: Extras = NO_EXTRAS,
) -> None:
    """Train until `config.updates`, from the start or from a checkpoint's state.

    One of `extras.callbacks` may stop it earlier (`trainer.should_stop`). Rank 0 writes
    result.json, also when training stops early. Raises what stopped it: DivergedError,
    PreemptedError, IncompleteRunError.
    """
    silence_lightning()
    set_lightning_rank(rank)
    keep_freed_memory()
    split = split_episodes(transitions, config.dataset)
    scale = unit_scale(config, transitions, split)
    dataset = make_dataset(
        transitions,
        split,
        config.dataset,
        gamma=config.gamma,
        scale=scale,
        cloning_share=config.cql.bc_share if config.algorithm == "cql" else None,
    )
    if rank == 0:
        recorded = read_metadata(folder) | {"reward_scale": dataset.reward_scale}
        write_json(folder / METADATA, recorded)
    validation = validation_steps(transitions, split, dataset, seed=config.dataset.split_seed)

    agent = create_agent(config, transitions, split)
    if state is not None:
        restore_training(agent, state)
    data = make_data_module(config, dataset, start=agent.updates)

    timer = Timer()
    evaluation = make_evaluation(config, folder, timer)
    callbacks = make_callbacks(
        config, folder, timer, evaluation, validation, transitions, dataset.value_range, extras
    )
    start_update, start = agent.updates, time.perf_counter()
    stop: BaseException | None = None
    with deferred():  # the StopCallback ends the training
        loggers = start_loggers(config, folder) if rank == 0 else []
        for logger in extras.loggers:
            logger.log_hyperparams(without_secrets(config.model_dump()))
        trainer = make_trainer(config.hardware, callbacks, [*loggers, *extras.loggers])
        try:
            with lost_ranks_named(config.hardware):
                trainer.fit(agent, data)
            if rank == 0:
                stopped = bool(extras.callbacks) and trainer.should_stop
                planned = agent.updates if stopped else config.updates
                check_complete(folder, done=agent.updates, updates=planned)
        except BaseException as reason:
            stop = reason
            if isinstance(reason, DivergedError) and reason.batch is not None:
                np.savez(folder / diverged_batch(rank), **reason.batch)
            raise
        finally:
            if rank == 0:
                speed = (agent.updates - start_update) / max(timer.seconds, 1e-9)
                status, error, signal_number = describe_stop(stop)
                result = {
                    "status": status,
                    "updates": agent.updates,
                    "updates_per_second": round(speed, 2),
                    "wall_seconds": round(time.perf_counter() - start, 2),
                    **describe_evaluation(evaluation),
                    "behavior_return": behavior_return(transitions),
                    "error": error,
                    "signal": signal_number,
                }
                write_json(folder / RESULT, result)
                preempted = isinstance(stop, PreemptedError)
                timeout = STOP_TIMEOUT / max(len(loggers), 1) if preempted else None
                for guarded in loggers:
                    guarded.finish(result, succeeded=stop is None, timeout=timeout)


def make_callbacks(
    config: TrainConfig,
    folder: Path,
    timer: Timer,
    evaluation: EvaluationCallback | None,
    validation: ValidationSteps | None,
    transitions: Transitions,
    value_range: ValueRange,
    extras: Extras,
) -> list[Callback]:
    """Return the callbacks of a training in the order that `AgentCallback` states."""
    updates, every = config.updates, config.evaluation.every
    metrics = MetricsWriter(folder, timer, value_range)
    checkpoints = CheckpointCallback(
        folder,
        timer,
        every=config.checkpoint_every,
        keep_every=every,
        updates=updates,
        identity=identity(config, transitions),
    )
    callbacks: list[Callback] = [metrics, checkpoints]
    if validation is not None:
        callbacks.append(
            ValidationCallback(folder, timer, validation, every=every, updates=updates)
        )
    if evaluation is not None:
        callbacks.append(evaluation)
    labels = ALGORITHMS[config.algorithm].progress
    hooks: list[Callback] = []
    if extras.callbacks:
        hooks = [ValidationHooks(extras.callbacks, timer, every=every, updates=updates)]
    return [
        *callbacks,
        ProgressBar(updates, labels, metrics, evaluation),
        *hooks,
        *extras.callbacks,
        StopCallback(checkpoints),
    ]


def describe_evaluation(evaluation: EvaluationCallback | None) -> dict[str, Any]:
    """Return the last evaluation's part of result.json; None without an evaluation."""
    score = evaluation.latest if evaluation else None
    names = ("return_mean", "return_std", "normalized_score")
    values = {name: getattr(score, name, None) for name in names}
    error = evaluation.error if evaluation else None
    return values | {"episodes": score.episodes if score else 0, "evaluation_error": error}


def unit_scale(config: TrainConfig, transitions: Transitions, split: Split) -> float:
    """Return the factor on rewards that cql.alpha_unit asks for; 1 without conservative critics."""
    if not ALGORITHMS[config.algorithm].has_alpha or alpha_in_reward_units(config):
        return 1.0
    return return_scale(transitions, split, gamma=config.gamma)


def alpha_in_reward_units(config: TrainConfig) -> bool:
    """Return True if the run weighs the gap by cql.alpha in units of the rewards."""
    return ALGORITHMS[config.algorithm].has_alpha and config.cql.alpha_unit == "reward"


def create_agent(config: TrainConfig, transitions: Transitions, split: Split) -> Agent:
    """Build the agent: weights from the seed, observation statistics from the training data."""
    torch.manual_seed(config.seed)
    normalize = config.network.normalize_observations
    statistics = observation_statistics(transitions, split) if normalize else None
    return make_agent(config, transitions.spaces, statistics)


def make_data_module(
    config: TrainConfig, dataset: TransitionDataset, *, start: int
) -> TransitionDataModule:
    """Build the DataModule of the updates from `start` on."""
    return TransitionDataModule(
        dataset,
        seed=config.seed,
        start=start,
        updates=config.updates,
        batch_size=config.batch_size,
        updates_per_step=config.hardware.updates_per_step,
        boundaries=[config.log_every, config.checkpoint_every, config.evaluation.every],
    )


def make_evaluation(config: TrainConfig, folder: Path, timer: Timer) -> EvaluationCallback | None:
    """Build the callback that rolls the policy out; None with evaluation.episodes=0."""
    if config.evaluation.episodes == 0:
        return None
    env = simulator_settings(config.env, config.dataset)
    return EvaluationCallback(folder, timer, env, config.evaluation, updates=config.updates)


def make_trainer(
    hardware: HardwareConfig, callbacks: list[Callback], loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Build Lightning's Trainer: one epoch over the blocks, our callbacks and loggers.

    Every argument is given: Lightning takes the others from variables PL_TRAINER_….
    """
    accelerator = choose_accelerator(hardware)
    strategy: str | Strategy = "auto"
    if hardware.strategy == "ddp":
        strategy = DDPStrategy(
            process_group_backend="nccl" if accelerator == "gpu" else "gloo",
            broadcast_buffers=False,  # no buffer differs between ranks
            gradient_as_bucket_view=True,
            timeout=timedelta(seconds=hardware.rank_timeout),
        )
    parameters = inspect.signature(pl.Trainer).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    arguments = {
        "accelerator": accelerator,
        "devices": hardware.devices,
        "strategy": strategy,
        "plugins": [choose_environment(hardware)],
        "max_epochs": 1,
        # No loop of Lightning's validates: with these, EarlyStopping does not wait for an epoch.
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "callbacks": callbacks,
        "logger": loggers or False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_autolog_hparams": False,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**defaults | arguments)


@contextmanager
def lost_ranks_named(hardware: HardwareConfig) -> Iterator[None]:
    """Turn an error of gloo or NCCL about another rank into a WorkerError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or any(
            text in str(error) for text in LOST_RANK
        ):
            limit = f"hardware.rank_timeout={hardware.rank_timeout:g} s"
            raise WorkerError(f"another rank has ended, or gave no answer for {limit}") from error
        raise


def choose_accelerator(hardware: HardwareConfig) -> str:
    """Return "gpu" or "cpu"; auto takes a GPU if torch finds one."""
    if hardware.accelerator == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return hardware.accelerator


def choose_precision(hardware: HardwareConfig) -> Literal["32", "bf16"]:
    """Return the precision; auto takes bf16 if the device multiplies it in hardware."""
    if hardware.precision != "auto":
        return hardware.precision
    if choose_accelerator(hardware) == "gpu":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        supported = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if supported else "32"


def identity(config: TrainConfig, transitions: Transitions) -> dict[str, Any]:
    """Return what a resumed run must share with its checkpoint: settings, data and spaces."""
    return {
        "config": fixed_settings(without_secrets(config.model_dump())),
        "dataset": {"id": transitions.dataset_id, "sha256": transitions.sha256},
        "spaces": asdict(transitions.spaces),
    }


def start_loggers(config: TrainConfig, folder: Path) -> list[GuardedLogger]:
    """Start a run at each configured logger."""
    facts = {"data": read_metadata(folder)["dataset"], "audit": audit_findings(folder)}
    tags = (config.env.name, config.dataset.name, config.algorithm)
    settings = without_secrets(config.model_dump())
    info = run_info(folder, config.logger, settings | facts, tags)
    return make_loggers(config.logger.names, info)


def audit_findings(folder: Path) -> list[str]:
    """Return the findings of a run's audit as `level: name`; [] without an audit."""
    if not (folder / AUDIT).exists():
        return []
    findings = read_json(folder / AUDIT, {"findings": list})["findings"]
    return [f"{finding['level']}: {finding['name']}" for finding in findings]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed buffers: returning them costs page faults at every update."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library (musl, macOS) has no mallopt
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)


def silence_lightning() -> None:
    """Hide Lightning's start-up lines: our progress bar and table replace them."""
    for name in LIGHTNING:
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)


@contextmanager
def lightning_as_before() -> Iterator[None]:
    """Undo `silence_lightning` at the end of the block: a Python program may train more."""
    loggers = {name: logging.getLogger(name) for name in LIGHTNING}
    levels = {name: logger.level for name, logger in loggers.items()}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for name, level in levels.items():
                loggers[name].setLevel(level)
