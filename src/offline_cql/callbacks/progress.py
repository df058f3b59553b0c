"""The progress bar: updates, updates per second, the agent's metrics and the last return."""

from collections.abc import Mapping
from importlib.util import find_spec

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.callbacks.metrics import MetricsWriter
from offline_cql.render.numbers import format_number

SPEED = "time/updates_per_second"


class ProgressBar(AgentCallback):
    """One line on stderr, or in a notebook; elsewhere a line at a logging point per tenth.

    labels: the metrics that it shows with their latest values, and the label of each.
    """

    def __init__(
        self,
        updates: int,
        labels: Mapping[str, str],
        metrics: MetricsWriter,
        evaluation: EvaluationCallback | None,
    ) -> None:
        self.updates, self.labels = updates, labels
        self.metrics, self.evaluation = metrics, evaluation
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.last_tenth = 0

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        self.last_tenth = agent.updates * 10 // self.updates
        # A notebook draws the bar as a widget; without ipywidgets rich would print a warning.
        widgets = self.console.is_jupyter and find_spec("ipywidgets") is not None
        if not trainer.is_global_zero or not (self.console.is_terminal or widgets):
            return
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
        )
        self.task = self.bar.add_task(
            "train", total=self.updates, completed=agent.updates, metrics=""
        )
        self.bar.start()

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if not trainer.is_global_zero:
            return
        if self.bar is not None and self.task is not None:
            text = self.format_metrics()
            self.bar.update(self.task, completed=agent.updates, metrics=text)
            return
        tenth = agent.updates * 10 // self.updates
        if tenth > self.last_tenth and self.metrics.last_update == agent.updates:
            self.last_tenth = tenth
            text = self.format_metrics()
            self.console.print(f"update {agent.updates}/{self.updates}  {text}")

    def format_metrics(self) -> str:
        """Return the speed, the labelled metrics that have a value, and the last return."""
        latest = self.metrics.latest
        parts = [f"{latest[SPEED]:.0f} updates/s"] if SPEED in latest else []
        parts += [
            f"{label} {format_number(latest[name])}"
            for name, label in self.labels.items()
            if name in latest
        ]
        if self.evaluation is not None and self.evaluation.latest is not None:
            parts.append(f"return {format_number(self.evaluation.latest.return_mean)}")
        return "  ".join(parts)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.stop()  # Lightning calls no teardown after an exception

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
