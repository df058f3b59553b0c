"""Validation during training: validation.csv, one row per evaluation point.

The episodes are never trained on. No simulator is needed, and no random generator of the training
is used.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback, AssessmentCallback, log_metrics
from offline_cql.callbacks.timer import Timer
from offline_cql.data.validation import ValidationSteps
from offline_cql.ope.validation import validation_metrics
from offline_cql.runs.folder import VALIDATION, CsvFile
from offline_cql.stop_signals import deferred
from offline_cql.transitions import Batch


class ValidationCallback(AssessmentCallback):
    """Writes validation.csv."""

    def __init__(
        self, folder: Path, timer: Timer, steps: ValidationSteps, *, every: int, updates: int
    ) -> None:
        super().__init__(CsvFile(folder / VALIDATION), timer, every=every, updates=updates)
        self.steps = steps

    def assess(self, trainer: pl.Trainer, agent: Agent) -> None:
        metrics = validate(agent, self.steps, best=self.steps.best_return)
        with deferred():
            self.file.append([{"update": agent.updates, **metrics}])
            log_metrics(trainer, metrics, update=agent.updates)


class ValidationHooks(AgentCallback):
    """Calls the validation hooks of a Python program's callbacks after each assessment.

    Lightning's validation loop, which would call them, is not used: EarlyStopping checks there.
    """

    def __init__(
        self, callbacks: Sequence[pl.Callback], timer: Timer, *, every: int, updates: int
    ) -> None:
        self.callbacks, self.timer, self.every, self.updates = callbacks, timer, every, updates

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if agent.updates % self.every and agent.updates != self.updates:
            return
        with self.timer.pause():
            for callback in self.callbacks:
                callback.on_validation_start(trainer, agent)
                callback.on_validation_end(trainer, agent)


@torch.no_grad()
def validate(agent: Agent, batches: Iterable[Batch], *, best: float) -> dict[str, float]:
    """Return the agent's metrics over all validation steps; `best` is their `best_return`."""
    parts = []
    for batch in batches:
        on_device = Batch(*(tensor.to(agent.device) for tensor in batch))
        metrics = {**agent.validation_metrics(on_device), "return_to_go": on_device.return_to_go}
        parts.append({name: values.float().cpu() for name, values in metrics.items()})
    step_metrics = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return validation_metrics(step_metrics, step_metrics.pop("return_to_go"), best=best)
