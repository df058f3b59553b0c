"""The exceptions that end a command, each with its exit code: 2 for a wrong input, 1 for a failure.

The message is one line: the fault, its place and the remedy. `losses.ShapeError` is not here,
because it reports a mistake in the code. `explain` has the line of every error that is none.
"""

import errno
import os
import signal
from collections.abc import Mapping
from typing import Any

# Errors of the operating system that a full or broken machine causes, with the remedy.
FAILURES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network file system",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files",
    errno.EAGAIN: "raise the limit on processes (ulimit -u)",
    errno.EPIPE: "the program that reads it has ended",
}
# Those of a file or folder that cannot be used.
ELSEWHERE = "choose another place"
PLACES = {
    errno.EACCES: f"change its permissions, or {ELSEWHERE}",
    errno.EPERM: f"change its permissions, or {ELSEWHERE}",
    errno.ENOENT: f"restore it, or {ELSEWHERE}",
    errno.EISDIR: "remove the folder of this name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOLCK: "choose a file system with locks",
    **dict.fromkeys((errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY), ELSEWHERE),
    **dict.fromkeys((errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.EXDEV), ELSEWHERE),
}
INTERRUPTED = 128 + signal.SIGINT


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


class PreemptedError(BaseException):
    """A signal asked the process to stop; no `except Exception` of a library may hide that.

    The exit code is the shell's for a process that the signal ended: 128 + number.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class UnreadableRunError(Exception):
    """A run folder cannot be reported; the message has the reason."""


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit code of an error that is not a mistake in the code; else None.

    These are the exceptions of this module, an interrupt, a lack of memory, and the errors of the
    operating system; notes that were added to those (`add_note`) are their remedies.
    """
    exit_code = getattr(error, "exit_code", None)
    if isinstance(exit_code, int):
        return str(error), exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if _is_lack_of_memory(error):
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        remedy = "choose smaller networks or a smaller batch_size"
        return f"the memory is not enough ({reason}); {remedy}", 1
    if isinstance(error, OSError) and error.errno in FAILURES | PLACES:
        return _explain_os_error(error), 1 if error.errno in FAILURES else 2
    return None


def _is_lack_of_memory(error: BaseException) -> bool:
    """Return True for Python's and NumPy's exception, and for torch's, on CPUs a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("can't allocate memory", "size calculation overflowed")
    )


def _explain_os_error(error: OSError) -> str:
    """Return `place: reason; remedy`."""
    assert error.errno is not None
    place = error.filename2 or error.filename  # the second is the target of a rename
    name = os.fsdecode(place) if isinstance(place, str | bytes) else "a file"
    remedies = getattr(error, "__notes__", [(FAILURES | PLACES)[error.errno]])
    reason = os.strerror(error.errno)
    return f"{name}: {reason}; {'; '.join(remedies)}"
