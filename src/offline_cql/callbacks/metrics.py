"""Training metrics: one row of metrics.csv per logging point, sent to the loggers too.

This is the only place that reads metrics off the device, averages them over the ranks and checks
that they are finite. The equation of each metric is in docs/metrics.md.
"""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback, log_metrics
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import DivergedError
from offline_cql.runs.folder import METRICS, CsvFile


class MetricsWriter(AgentCallback):
    """Write metrics.csv and feed the loggers; stop a run whose metrics are not finite."""

    def __init__(self, folder: Path, timer: Timer) -> None:
        self.file = CsvFile(folder / METRICS)
        self.timer = timer
        self.latest: dict[str, float] = {}
        self.last_update, self.last_seconds = 0, 0.0

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        self.timer.start()
        self.last_update, self.last_seconds = agent.updates, self.timer.seconds

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if not agent.last_metrics:
            return
        values = reduce_over_ranks(agent.last_metrics, trainer)
        agent.last_metrics = {}
        self.latest = values | {"time/updates_per_second": self.measure_speed(agent.updates)}
        if trainer.is_global_zero:
            self.file.append([{"update": agent.updates, **self.latest}])
        log_metrics(trainer, self.latest, update=agent.updates)
        not_finite = [name for name, value in values.items() if not math.isfinite(value)]
        if not_finite:
            raise DivergedError(agent.updates, not_finite)

    def measure_speed(self, updates: int) -> float:
        """Return the updates per second since the last call."""
        seconds = self.timer.seconds
        speed = (updates - self.last_update) / max(seconds - self.last_seconds, 1e-9)
        self.last_update, self.last_seconds = updates, seconds
        return speed


def reduce_over_ranks(metrics: dict[str, Tensor], trainer: pl.Trainer) -> dict[str, float]:
    """Return the mean over the ranks (the maximum for `…_max`) as floats, with one transfer."""
    device = trainer.strategy.root_device
    stacked = torch.stack([value.to(device, torch.float32) for value in metrics.values()])
    if trainer.world_size > 1:
        mean = trainer.strategy.reduce(stacked.clone(), reduce_op="mean")
        largest = trainer.strategy.reduce(stacked.clone(), reduce_op="max")
        is_max = torch.tensor([name.endswith("_max") for name in metrics], device=device)
        stacked = torch.where(is_max, largest, mean)
    return dict(zip(metrics, stacked.tolist(), strict=True))
