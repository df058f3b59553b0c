"""Checkpoints during training."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.timer import Timer
from offline_cql.errors import DivergedError
from offline_cql.runs.checkpoint import write_checkpoint, write_policy
from offline_cql.runs.folder import LOGS, CsvFile


class CheckpointCallback(AgentCallback):
    """Save every `every` updates, at every multiple of `keep_every` and at the end.

    At multiples of `keep_every` and at the end, where the policy is evaluated, it is also kept
    alone, for off-policy estimates, reports and export. identity: configuration, data set and
    spaces as plain values, which a resumed run must share.

    A checkpoint contains the lengths of the CSV files. Rows of its own evaluation follow it: a
    simulator must not cost the weights.
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
        self.last_saved: int | None = None  # updates

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        keep = agent.updates == self.updates or agent.updates % self.keep_every == 0
        if keep or agent.updates % self.every == 0:
            self.save(trainer, agent, keep=keep)

    def save(self, trainer: pl.Trainer, agent: Agent, *, keep: bool = False) -> None:
        """Save the training state, and with `keep` the policy, on rank 0."""
        with self.timer.pause():
            raise_unless_finite(agent)  # on every rank: their weights are equal
            if trainer.is_global_zero:
                if keep:
                    write_policy(self.folder, {**agent.policy_state(), **self.identity})
                lengths = {name: CsvFile(self.folder / name).size() for name in LOGS}
                state = {**agent.training_state(), **self.identity, "lengths": lengths}
                write_checkpoint(self.folder, state)
            trainer.strategy.barrier("checkpoint")
        self.last_saved = agent.updates


def raise_unless_finite(agent: Agent) -> None:
    """Raise DivergedError if a weight is NaN or infinite, so that every checkpoint is usable."""
    names = [name for name, value in agent.state_dict().items() if not value.isfinite().all()]
    if names:
        raise DivergedError(agent.updates, f"{', '.join(names)} is not finite")
