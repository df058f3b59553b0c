"""One process's training: data, agent, callbacks and Lightning's Trainer over one run folder.

Every rank of a distributed run executes the same function on the same folder.
"""

import ctypes
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy, Strategy

from offline_cql.agents import Agent
from offline_cql.callbacks.checkpoints import CheckpointCallback
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.callbacks.loggers import GuardedLogger, RunInfo, make_loggers
from offline_cql.callbacks.metrics import MetricsWriter
from offline_cql.callbacks.progress import ProgressBar
from offline_cql.callbacks.timer import Timer
from offline_cql.callbacks.validation import ValidationCallback
from offline_cql.commands.load_data import simulator_settings
from offline_cql.commands.make_agent import make_agent
from offline_cql.config import HardwareConfig, TrainConfig
from offline_cql.data.dataset import make_dataset
from offline_cql.data.module import TransitionDataModule
from offline_cql.data.split import Split, split_episodes
from offline_cql.data.statistics import observation_statistics, reward_scale
from offline_cql.data.validation import ValidationSteps, validation_steps
from offline_cql.errors import DivergedError, PreemptedError
from offline_cql.io import read_json, write_json
from offline_cql.runs.folder import METADATA, RESULT
from offline_cql.simulation.evaluation import behavior_return
from offline_cql.transitions import Transitions

# Settings that may differ between a run and its continuation.
FREE_ON_RESUME = ("updates", "run_dir", "resume")


def fit(
    config: TrainConfig,
    folder: Path,
    transitions: Transitions,
    *,
    state: dict[str, Any] | None,
    rank: int = 0,
) -> None:
    """Train until `config.updates`, from the start or from `state`; leave result.json behind.

    Raises what stopped the run: DivergedError, PreemptedError, PolicyError, SimulatorError.
    """
    quieten_lightning()
    keep_freed_memory()
    split = split_episodes(transitions, config.dataset)
    agent = initial_agent(config, transitions, split)
    if state is not None:
        agent.restore(state)
    timer = Timer()
    metrics = MetricsWriter(folder, timer)
    evaluation = make_evaluation(config, folder, timer)
    checkpoints = CheckpointCallback(
        folder,
        timer,
        every=config.checkpoint_every,
        keep_every=config.evaluation.every,
        updates=config.updates,
        identity=identity(config, transitions),
    )
    callbacks: list[Callback] = [metrics, checkpoints]
    if evaluation is not None:
        callbacks.append(evaluation)
    if steps := make_validation(config, transitions, split):
        every, updates = config.evaluation.every, config.updates
        callbacks.append(ValidationCallback(folder, timer, steps, every=every, updates=updates))
    callbacks.append(ProgressBar(config.updates, metrics, evaluation))
    loggers = start_loggers(config, folder) if rank == 0 else []
    trainer = make_trainer(config.hardware, callbacks, loggers)
    before, started = agent.updates, time.perf_counter()
    status, error, asked = "failed", "interrupted", None
    try:
        trainer.fit(agent, make_module(config, transitions, split, agent))
        status, error = "finished", ""
    except DivergedError as reason:
        status, error = "diverged", str(reason)
        raise
    except PreemptedError as reason:
        status, error, asked = "preempted", str(reason), reason.signal_number
        raise
    except Exception as reason:
        error = f"{type(reason).__name__}: {reason}"
        raise
    finally:
        if rank == 0:
            score = evaluation.latest if evaluation else None
            result = {
                "status": status,
                "updates": agent.updates,
                "updates_per_second": round((agent.updates - before) / max(timer.seconds, 1e-9), 2),
                "wall_seconds": round(time.perf_counter() - started, 2),
                "return_mean": score.return_mean if score else None,
                "return_std": score.return_std if score else None,
                "normalized_score": score.normalized_score if score else None,
                "episodes": score.episodes if score else 0,
                "behavior_return": behavior_return(transitions),
                "error": error or None,
                "signal": asked,
            }
            write_json(folder / RESULT, result)
            for logger in loggers:
                logger.finish(result, succeeded=status == "finished")


def initial_agent(config: TrainConfig, transitions: Transitions, split: Split) -> Agent:
    """The agent before its first update: weights by the seed, statistics by the training data."""
    torch.manual_seed(config.seed)
    size = transitions.spaces.observation_dim
    mean, std = torch.zeros(size), torch.ones(size)
    if config.network.normalize_observations:
        mean, std = observation_statistics(transitions, split)
    return make_agent(config, transitions.spaces, observation_mean=mean, observation_std=std)


def make_module(
    config: TrainConfig, transitions: Transitions, split: Split, agent: Agent
) -> TransitionDataModule:
    boundaries = [config.log_every, config.checkpoint_every, config.evaluation.every]
    return TransitionDataModule(
        make_dataset(transitions, split, config.dataset, gamma=config.gamma),
        seed=config.seed,
        start=agent.updates,
        updates=config.updates,
        batch_size=config.batch_size,
        updates_per_step=config.hardware.updates_per_step,
        boundaries=boundaries,
    )


def make_validation(
    config: TrainConfig, transitions: Transitions, split: Split
) -> ValidationSteps | None:
    return validation_steps(
        transitions,
        split,
        gamma=config.gamma,
        reward_scale=reward_scale(transitions, split, config.dataset),
        reward_shift=config.dataset.reward_shift,
        seed=config.dataset.split_seed,
    )


def make_evaluation(config: TrainConfig, folder: Path, timer: Timer) -> EvaluationCallback | None:
    if config.evaluation.episodes == 0:
        return None
    env = simulator_settings(config.env, config.dataset)
    return EvaluationCallback(folder, timer, env, config.evaluation, updates=config.updates)


def make_trainer(
    hardware: HardwareConfig, callbacks: list[Callback], loggers: Sequence[Logger] = ()
) -> pl.Trainer:
    """Lightning's Trainer: one epoch over the planned blocks; checkpoints are written by ours."""
    accelerator = chosen_accelerator(hardware)
    strategy: str | Strategy = "auto"
    if hardware.strategy == "ddp":
        strategy = DDPStrategy(
            process_group_backend="nccl" if accelerator == "gpu" else "gloo",
            broadcast_buffers=False,  # no buffer differs between ranks
            gradient_as_bucket_view=True,
        )
    return pl.Trainer(
        accelerator=accelerator,
        devices=hardware.devices,
        strategy=strategy,
        max_epochs=1,
        callbacks=callbacks,
        logger=loggers or False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def chosen_accelerator(hardware: HardwareConfig) -> str:
    """auto is the GPU where there is one, else the CPU; cpu and gpu are what they say."""
    if hardware.accelerator == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return hardware.accelerator


def chosen_precision(hardware: HardwareConfig) -> Literal["auto", "32", "bf16"]:
    """auto is bf16 where the device multiplies it in hardware, else 32; 32 and bf16 are that."""
    if hardware.precision != "auto":
        return hardware.precision
    if chosen_accelerator(hardware) == "gpu":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities()
        units = any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16" if units else "32"


def identity(config: TrainConfig, transitions: Transitions) -> dict[str, Any]:
    """What a continuation must share with the run: settings, data and spaces, as plain values."""
    settings = {k: value for k, value in config.model_dump().items() if k not in FREE_ON_RESUME}
    return {
        "config": settings,
        "dataset": {"id": transitions.dataset_id, "sha256": transitions.sha256},
        "spaces": asdict(transitions.spaces),
    }


def start_loggers(config: TrainConfig, folder: Path) -> list[GuardedLogger]:
    """Start a run at each configured logger, under the id and the grid of metadata.json."""
    metadata, logger = read_json(folder / METADATA), config.logger
    info = RunInfo(
        folder=folder,
        config=config.model_dump(),
        run_id=metadata["wandb_id"],
        project=logger.project,
        entity=logger.entity,
        group=logger.group or metadata["grid"],
        tags=[*logger.tags, config.env.name, config.dataset.name, config.algorithm],
    )
    return make_loggers(logger.names, info)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed buffers: returning them costs page faults at every update."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library (musl, macOS): nothing to tell it
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)


def quieten_lightning() -> None:
    """Our own bar and table say what Lightning's start-up lines would."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
