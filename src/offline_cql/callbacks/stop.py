"""The end of a training that a signal asked to stop."""

import signal

import pytorch_lightning as pl

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.checkpoints import CheckpointCallback
from offline_cql.errors import PreemptedError
from offline_cql.stop_signals import install_handlers, stop_requested


class StopCallback(AgentCallback):
    """After a block in which one of STOP_SIGNALS arrived on any rank: save, then stop all ranks."""

    def __init__(self, checkpoints: CheckpointCallback) -> None:
        self.checkpoints = checkpoints

    def before_fit(self, trainer: pl.Trainer, agent: Agent) -> None:
        if self.is_requested(trainer):
            raise PreemptedError(stop_requested() or signal.SIGTERM)

    def before_training(self, trainer: pl.Trainer, agent: Agent) -> None:
        install_handlers()  # Lightning has set its own for SIGTERM, which would exit with code 0

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if self.is_requested(trainer):
            if self.checkpoints.last_saved != agent.updates:
                self.checkpoints.save(trainer, agent)
            raise PreemptedError(stop_requested() or signal.SIGTERM)
        if trainer.should_stop:  # another callback ends the training: this is the last block
            self.checkpoints.save(trainer, agent, keep=True)

    def is_requested(self, trainer: pl.Trainer) -> bool:
        """Return True, on every rank, if a signal has arrived on one of them."""
        requested = stop_requested() is not None
        return trainer.strategy.reduce_boolean_decision(requested, all=False)
