"""The progress bar: updates, updates/s, TD loss, gap, alpha and the last return."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
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
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.callbacks.metrics import Record

SHOWN = {
    "critic/td_loss": "td",
    "critic/gap": "gap",
    "cql/alpha": "alpha",
    "cql/multiplier": "multiplier",
    "actor/agreement": "agreement",
    "actor/action_distance": "distance",
}


class ProgressBar(Callback):
    """One line on stderr; without a terminal, a line of text at each tenth of the run."""

    def __init__(self, updates: int, record: Record, rollouts: EvaluationCallback | None) -> None:
        self.updates, self.record, self.rollouts = updates, record, rollouts
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.told = 0

    def on_train_start(self, trainer: pl.Trainer, agent: pl.LightningModule) -> None:
        assert isinstance(agent, Agent)
        self.told = agent.updates * 10 // self.updates
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
        )
        self.task = self.bar.add_task(
            "train", total=self.updates, completed=agent.updates, numbers=""
        )
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, agent: pl.LightningModule, *_args: Any
    ) -> None:
        assert isinstance(agent, Agent)
        if not trainer.is_global_zero:
            return
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=agent.updates, numbers=self.numbers())
            return
        tenth = agent.updates * 10 // self.updates
        if tenth > self.told:
            self.told = tenth
            self.console.print(f"update {agent.updates}/{self.updates}  {self.numbers()}")

    def numbers(self) -> str:
        latest = self.record.latest
        parts = [f"{short} {latest[name]:.3g}" for name, short in SHOWN.items() if name in latest]
        if "time/updates_per_second" in latest:
            parts.insert(0, f"{latest['time/updates_per_second']:.0f} updates/s")
        if self.rollouts is not None and self.rollouts.latest is not None:
            parts.append(f"return {self.rollouts.latest.return_mean:.1f}")
        return "  ".join(parts)

    def teardown(self, trainer: pl.Trainer, agent: pl.LightningModule, stage: str) -> None:
        self.stop()

    def on_exception(
        self, trainer: pl.Trainer, agent: pl.LightningModule, exception: BaseException
    ) -> None:
        self.stop()  # Lightning calls no teardown then

    def stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
