"""The exceptions that end a command, each with its exit code: 2 for a wrong input, 1 for a failure.

The message is one line: the fault, its place and the remedy. `losses.ShapeError` is not here,
because it reports a mistake in the code.
"""

import signal
from collections.abc import Mapping
from typing import Any


class ConfigError(Exception):
    """A setting is invalid; the message has key, value, allowed range and remedy."""

    exit_code = 2


class DataError(Exception):
    """A data set is invalid or cannot be read."""

    exit_code = 2


class CheckpointError(ConfigError):
    """A checkpoint is missing, corrupt or written by a newer version."""


class PolicyError(Exception):
    """A policy returned an invalid action: NaN, out of bounds, or of the wrong shape."""

    exit_code = 1


class SimulatorError(Exception):
    """A simulator cannot be created, raised an exception, or returned NaN or infinity."""

    exit_code = 1


class ExportError(Exception):
    """The exported file does not compute the policy's actions."""

    exit_code = 1


class WorkerError(Exception):
    """A process of a distributed run failed; the others were stopped."""

    exit_code = 1


class IncompleteRunError(Exception):
    """A training ended without its last update or the checkpoint of it."""

    exit_code = 1


class DivergedError(Exception):
    """A loss, a gradient or a weight is not finite, or values are far above any possible return.

    batch: the arrays of the update's batch by name, if it is known.
    """

    exit_code = 1

    def __init__(self, update: int, reason: str, *, batch: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            f"update {update}: {reason}; lower cql.critic_learning_rate (bc.learning_rate of "
            "behavior cloning) or dataset.reward_scale"
        )
        self.batch = batch


class PreemptedError(Exception):
    """A signal asked the process to stop; the run is saved and can be resumed."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; the run is saved")
        self.signal_number = signal_number


class UnreadableRunError(Exception):
    """A run folder cannot be reported; the message has the reason."""
