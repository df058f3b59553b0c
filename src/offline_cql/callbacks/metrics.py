"""Training metrics: one row of metrics.csv per logging point, sent to the loggers too.

This is the only place that reads metrics off the device, averages them over the ranks and checks
that they are finite and possible. The equation of each metric is in docs/metrics.md.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback, log_metrics
from offline_cql.callbacks.timer import Timer
from offline_cql.data.returns import ValueRange
from offline_cql.errors import DivergedError
from offline_cql.render.message import print_message
from offline_cql.runs.folder import METRICS, CsvFile

# How far values may leave the possible range, in units of its width.
WARNING_MARGIN, DIVERGED_MARGIN = 0.1, 1.0


class MetricsWriter(AgentCallback):
    """Write metrics.csv and feed the loggers; stop a run that diverged.

    Values outside the range that the rewards allow are a warning, once; far above it they end the
    run. Below it they never do: the penalty lowers values without a bound.
    """

    def __init__(self, folder: Path, timer: Timer, possible: ValueRange) -> None:
        self.file = CsvFile(folder / METRICS)
        self.timer, self.possible = timer, possible
        self.warned = False
        self.latest: dict[str, float] = {}
        self.last_update, self.last_seconds = 0, 0.0

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        self.timer.start()
        self.last_update, self.last_seconds = agent.updates, self.timer.seconds

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        values = self.write(trainer, agent) if agent.last_metrics else {}
        self.check_largest(trainer, agent)
        self.check_mean(trainer, agent, values)

    def write(self, trainer: pl.Trainer, agent: Agent) -> dict[str, float]:
        """Write, send and return the metrics of a logging point. Raises DivergedError."""
        values = reduce_over_ranks(agent.last_metrics, trainer)
        agent.last_metrics = {}
        self.latest = values | {"time/updates_per_second": self.measure_speed(agent.updates)}
        if trainer.is_global_zero:
            self.file.append([{"update": agent.updates, **self.latest}])
        log_metrics(trainer, self.latest, update=agent.updates)
        not_finite = [name for name, value in values.items() if not math.isfinite(value)]
        if not_finite:
            raise DivergedError(agent.updates, f"{', '.join(not_finite)} is not finite")
        return values

    def check_largest(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Warn of, or stop at, a Q of a logged action or a target that no policy can have."""
        low, high, horizon = self.possible
        value, limit = agent.largest_value, high + agent.value_bonus * horizon
        if value > limit + DIVERGED_MARGIN * (high - low):
            reason = f"Q = {value:.3g}, where rewards and penalty allow {limit:.3g} at most"
            raise DivergedError(agent.updates, reason)
        if value > limit + WARNING_MARGIN * (high - low):
            self.warn(trainer, agent, f"Q = {value:.3g} is above the largest possible {limit:.3g}")

    def check_mean(self, trainer: pl.Trainer, agent: Agent, metrics: Mapping[str, float]) -> None:
        """Warn if the mean Q of the logged actions is below every possible return."""
        low, high, _ = self.possible
        value = metrics.get("critic/q_logged", 0.0)
        if value < low - WARNING_MARGIN * (high - low):
            self.warn(
                trainer, agent, f"mean Q = {value:.3g} is below the smallest return {low:.3g}"
            )

    def warn(self, trainer: pl.Trainer, agent: Agent, text: str) -> None:
        """Print the first warning of a run."""
        if trainer.is_global_zero and not self.warned:
            print_message(
                f"warning: update {agent.updates:,}: {text}; "
                "lower cql.alpha or cql.critic_learning_rate"
            )
        self.warned = True

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
