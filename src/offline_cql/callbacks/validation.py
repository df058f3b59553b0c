"""Validation figures while training: validation.csv, one row at each evaluation point.

Runs Lightning's validation loop over episodes that training never sees. No simulator is needed and
no generator of the training is touched.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.callbacks.loggers import Mirror
from offline_cql.callbacks.timer import Timer
from offline_cql.config import TrainConfig
from offline_cql.data.validation import ValidationSteps
from offline_cql.ope.validation import validation_metrics
from offline_cql.runs.folder import VALIDATION, CsvFile


class ValidationCallback(Callback):
    """Validates at every multiple of evaluation.every and after the last update; rank 0 writes."""

    def __init__(
        self,
        folder: Path,
        clock: Timer,
        mirrors: list[Mirror],
        steps: ValidationSteps,
        config: TrainConfig,
    ) -> None:
        self.file = CsvFile(folder / VALIDATION)
        self.clock, self.mirrors = clock, mirrors
        self.every, self.updates = config.evaluation.every, config.updates
        self.best = steps.best_return
        self.parts: list[dict[str, Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, agent: pl.LightningModule, *_args: Any
    ) -> None:
        assert isinstance(agent, Agent)
        if agent.updates % self.every and agent.updates != self.updates:
            return
        # Here, as Lightning does it after this hook: its row belongs before the checkpoint, which
        # notes the length of the file.
        connector = trainer._logger_connector
        first_of_loop = connector._first_loop_iter
        with self.clock.paused():
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        connector._first_loop_iter = first_of_loop

    def on_validation_start(self, trainer: pl.Trainer, agent: pl.LightningModule) -> None:
        self.parts = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, agent: pl.LightningModule, outputs: Any, *_args: Any
    ) -> None:
        self.parts.append({name: values.float().cpu() for name, values in outputs.items()})

    def on_validation_end(self, trainer: pl.Trainer, agent: pl.LightningModule) -> None:
        assert isinstance(agent, Agent)
        if not trainer.is_global_zero:
            return
        figures = {name: torch.cat([p[name] for p in self.parts]) for name in self.parts[0]}
        metrics = validation_metrics(figures, figures.pop("return_to_go"), best=self.best)
        self.file.append([{"update": agent.updates, **metrics}])
        for mirror in self.mirrors:
            mirror.log(metrics, agent.updates)
