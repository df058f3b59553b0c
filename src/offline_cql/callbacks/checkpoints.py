"""Checkpoints during training, and an orderly stop on a signal."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import DivergedError, PreemptedError
from offline_cql.runs.checkpoint import write_checkpoint, write_policy
from offline_cql.runs.folder import EVALUATION, METRICS, VALIDATION, CsvFile

LOGS = (METRICS, EVALUATION, VALIDATION)
# The last two are what clusters send ahead of a time limit (`sbatch --signal=USR1@120`).
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class CheckpointCallback(AgentCallback, Checkpoint):
    """Save every `every` updates and at the end; on one of STOP_SIGNALS, save and then stop.

    The policy alone is also kept, at every multiple of `keep_every` and at the end, for off-policy
    estimates, reports and export. identity: configuration, data set and spaces as plain values,
    which a resumed run must share.

    A checkpoint contains the lengths of the CSV files, so this callback runs after those that
    write them: the trainer moves every `Checkpoint` to the end.
    """

    def __init__(
        self,
        folder: Path,
        timer: Timer,
        *,
        every: int,
        keep_every: int,
        updates: int,
        identity: dict[str, Any],
    ) -> None:
        self.folder, self.timer, self.updates = folder, timer, updates
        self.every, self.keep_every = every, keep_every
        self.identity = identity
        self.received_signal: int | None = None
        self.previous_handlers: dict[int, Any] = {}

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        handler: Callable[[int, FrameType | None], None] = self.note_signal
        for number in STOP_SIGNALS:
            self.previous_handlers[number] = signal.signal(number, handler)
        # Lightning's own handler is installed a moment earlier, and would exit with code 0.
        if trainer.received_sigterm:
            self.received_signal = signal.SIGTERM

    def note_signal(self, number: int, _frame: FrameType | None) -> None:
        self.received_signal = number

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        stop = trainer.strategy.reduce_boolean_decision(self.received_signal is not None, all=False)
        last = agent.updates == self.updates
        due = stop or last or agent.updates % self.every == 0
        keep = last or agent.updates % self.keep_every == 0
        if due or keep:
            with self.timer.pause():
                raise_unless_finite(agent)  # on every rank: their weights are equal
                if trainer.is_global_zero and keep:
                    write_policy(self.folder, {**agent.policy_state(), **self.identity})
                if trainer.is_global_zero and due:
                    self.save(agent)
                trainer.strategy.barrier("checkpoint")
        if stop and not last:
            raise PreemptedError(self.received_signal or signal.SIGTERM)

    def save(self, agent: Agent) -> None:
        """Save the training state with the current lengths of the CSV files."""
        lengths = {name: CsvFile(self.folder / name).size() for name in LOGS}
        write_checkpoint(
            self.folder, {**agent.training_state(), **self.identity, "lengths": lengths}
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # After an exception Lightning calls no teardown, but restores all signal handlers itself.
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)
        self.previous_handlers = {}


def raise_unless_finite(agent: Agent) -> None:
    """Raise DivergedError if a weight is NaN or infinite, so that every checkpoint is usable."""
    names = [name for name, value in agent.state_dict().items() if not value.isfinite().all()]
    if names:
        raise DivergedError(agent.updates, f"{', '.join(names)} is not finite")
