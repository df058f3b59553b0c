"""Checkpoints while training, and a clean stop when the process is asked to end."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from offline_cql.agents import Agent
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import DivergedError, PreemptedError
from offline_cql.runs.checkpoint import write_checkpoint, write_kept
from offline_cql.runs.folder import EVALUATION, METRICS, VALIDATION, CsvFile

LOGS = (METRICS, EVALUATION, VALIDATION)


class CheckpointCallback(Callback):
    """Saves every `every` updates and at the end; on SIGTERM or SIGINT saves, then stops.

    At every multiple of `keep_every` the policy is also kept for good, to be chosen from later.

    `identity` is what a resume compares: configuration, data set and spaces, plain values.
    """

    def __init__(
        self,
        folder: Path,
        clock: Timer,
        *,
        every: int,
        keep_every: int,
        updates: int,
        identity: dict[str, Any],
    ) -> None:
        self.folder, self.clock, self.updates = folder, clock, updates
        self.every, self.keep_every = every, keep_every
        self.identity = identity
        self.asked: int | None = None
        self.former: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, agent: pl.LightningModule) -> None:
        handler: Callable[[int, FrameType | None], None] = self.ask
        for number in (signal.SIGTERM, signal.SIGINT):
            self.former[number] = signal.signal(number, handler)
        if trainer.received_sigterm:  # Lightning listens a moment earlier, and would exit with 0
            self.asked = signal.SIGTERM

    def ask(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, agent: pl.LightningModule, *_args: Any
    ) -> None:
        assert isinstance(agent, Agent)
        asked = trainer.strategy.reduce_boolean_decision(self.asked is not None, all=False)
        due = asked or agent.updates % self.every == 0 or agent.updates == self.updates
        kept = agent.updates % self.keep_every == 0 or agent.updates == self.updates
        if due or kept:
            with self.clock.paused():
                refuse_unusable(agent)  # on every rank: their weights are equal
                if trainer.is_global_zero and kept:
                    write_kept(self.folder, {**agent.policy_state(), **self.identity})
                if trainer.is_global_zero and due:
                    self.save(agent)
                trainer.strategy.barrier("saving")
        if asked and agent.updates < self.updates:
            raise PreemptedError(self.asked or signal.SIGTERM)

    def save(self, agent: Agent) -> None:
        lengths = {name: CsvFile(self.folder / name).size() for name in LOGS}
        write_checkpoint(
            self.folder, {**agent.training_state(), **self.identity, "lengths": lengths}
        )

    def teardown(self, trainer: pl.Trainer, agent: pl.LightningModule, stage: str) -> None:
        # After an exception Lightning calls no teardown, but gives all signals back itself.
        for number, handler in self.former.items():
            signal.signal(number, handler)
        self.former = {}


def refuse_unusable(agent: Agent) -> None:
    """Raises DivergedError for weights that are not finite: a kept checkpoint stays usable."""
    bad = [name for name, value in agent.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise DivergedError(agent.updates, bad)
