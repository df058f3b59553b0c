"""The record of training: a row of metrics.csv at each logging point, mirrored elsewhere.

It alone reads measurements off the device, averages them over the ranks and looks whether they are
finite. The equation of each metric is in docs/metrics.md.
"""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.callbacks.loggers import Mirror
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import DivergedError
from offline_cql.runs.folder import METRICS, CsvFile


class Record(Callback):
    """Writes metrics.csv and tells the mirrors; stops a run whose numbers are not finite."""

    def __init__(self, folder: Path, clock: Timer, mirrors: list[Mirror]) -> None:
        self.file = CsvFile(folder / METRICS)
        self.clock, self.mirrors = clock, mirrors
        self.latest: dict[str, float] = {}
        self.since: tuple[int, float] | None = None

    def on_train_start(self, trainer: pl.Trainer, agent: pl.LightningModule) -> None:
        assert isinstance(agent, Agent)
        self.clock.start()
        self.since = (agent.updates, self.clock.seconds)

    def on_train_batch_end(
        self, trainer: pl.Trainer, agent: pl.LightningModule, *_args: Any
    ) -> None:
        assert isinstance(agent, Agent)
        if not agent.last_metrics:
            return
        values = reduced(agent.last_metrics, trainer)
        agent.last_metrics = {}
        self.latest = values | {"time/updates_per_second": self.speed(agent.updates)}
        if trainer.is_global_zero:
            self.file.append([{"update": agent.updates, **self.latest}])
        for mirror in self.mirrors:
            mirror.log(self.latest, agent.updates)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise DivergedError(agent.updates, bad)

    def speed(self, updates: int) -> float:
        """Updates per second since the last logging point."""
        assert self.since is not None
        before, then = self.since
        now = self.clock.seconds
        self.since = (updates, now)
        return (updates - before) / max(now - then, 1e-9)


def reduced(measured: dict[str, Tensor], trainer: pl.Trainer) -> dict[str, float]:
    """Means over the ranks (of `…_max` the largest) as floats, with one transfer."""
    device = trainer.strategy.root_device
    stacked = torch.stack([value.to(device, torch.float32) for value in measured.values()])
    if trainer.world_size > 1:
        mean = trainer.strategy.reduce(stacked.clone(), reduce_op="mean")
        largest = trainer.strategy.reduce(stacked.clone(), reduce_op="max")
        is_max = torch.tensor([name.endswith("_max") for name in measured], device=device)
        stacked = torch.where(is_max, largest, mean)
    return dict(zip(measured, stacked.tolist(), strict=True))
