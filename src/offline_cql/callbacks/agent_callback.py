"""The base class of callbacks that work on an agent, and the logging of their metrics."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast, final

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from offline_cql.agents import Agent
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import PreemptedError
from offline_cql.runs.folder import CsvFile
from offline_cql.stop_signals import interruptible


class AgentCallback(Callback):
    """Lightning's training hooks with the module typed as an `Agent`.

    One Lightning step is a block of updates; a block ends at every update at which a callback has
    something to do. The callbacks run in this order, which `commands.fit` gives them:

    1. `MetricsWriter`: the row of metrics.csv, whose length a checkpoint contains;
    2. `CheckpointCallback`: the weights are on the disk before anything else can fail;
    3. `ValidationCallback`, then `EvaluationCallback`, which runs a simulator;
    4. `ProgressBar`;
    5. `ValidationHooks`, then the callbacks of a Python program, which see the numbers of 1 to 3;
    6. `StopCallback`: ends the training when a signal arrived, also during 1 to 5, or when one of
       5 has set `trainer.should_stop`.
    """

    def before_fit(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Run once, also when no update is left; the agent is on its device."""

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Run once, before the first update; not when no update is left."""

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Run after each block of updates, on every rank."""

    @final
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before_fit(trainer, cast(Agent, pl_module))

    @final
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before_training(trainer, cast(Agent, pl_module))

    @final
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_args: Any
    ) -> None:
        self.after_block(trainer, cast(Agent, pl_module))


class AssessmentCallback(AgentCallback):
    """Assess the agent at every multiple of `every` and after the last update, on rank 0.

    file: gets the rows. An assessment that a stop request ended is made when the run is resumed.
    """

    def __init__(self, file: CsvFile, timer: Timer, *, every: int, updates: int) -> None:
        self.file, self.timer, self.every, self.updates = file, timer, every, updates

    @abstractmethod
    def assess(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Compute the numbers, append their rows and log them."""

    def before_fit(self, trainer: pl.Trainer, agent: Agent) -> None:
        if agent.updates and self.file.last_update() != agent.updates:
            self.after_block(trainer, agent)

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if agent.updates % self.every and agent.updates != self.updates:
            return
        with self.timer.pause():
            # The StopCallback ends the training, on every rank.
            if trainer.is_global_zero:
                with suppress(PreemptedError), interruptible():
                    self.assess(trainer, agent)
            trainer.strategy.barrier(type(self).__name__)


def log_metrics(trainer: pl.Trainer, metrics: Mapping[str, float], *, update: int) -> None:
    """Send metrics to all loggers of the trainer, which only rank 0 has, and to its callbacks."""
    trainer.callback_metrics.update({k: torch.tensor(value) for k, value in metrics.items()})
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=update)
