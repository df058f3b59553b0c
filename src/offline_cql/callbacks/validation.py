"""Validation during training: validation.csv, one row per evaluation point.

The episodes are never trained on. No simulator is needed, and no random generator of the training
is used.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
import torch

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback, log_metrics
from offline_cql.callbacks.timer import Timer
from offline_cql.data.validation import ValidationSteps
from offline_cql.errors import PreemptedError
from offline_cql.ope.validation import validation_metrics
from offline_cql.runs.folder import VALIDATION, CsvFile
from offline_cql.stop_signals import deferred, interruptible
from offline_cql.transitions import Batch


class ValidationCallback(AgentCallback):
    """Validate at every multiple of `every` and after the last update, on rank 0.

    A validation that a stop request ended is made when the run is resumed.
    """

    def __init__(
        self, folder: Path, timer: Timer, steps: ValidationSteps, *, every: int, updates: int
    ) -> None:
        self.file = CsvFile(folder / VALIDATION)
        self.timer, self.steps = timer, steps
        self.every, self.updates = every, updates

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
                    self.validate(trainer, agent)
            trainer.strategy.barrier("validation")

    def validate(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Compute the metrics, append their row and log them."""
        metrics = validate(agent, self.steps, best=self.steps.best_return)
        with deferred():
            self.file.append([{"update": agent.updates, **metrics}])
            log_metrics(trainer, metrics, update=agent.updates)


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
