"""The signals that stop a process: at once, or at the next point where a training can stop.

While they are handled here, a signal raises PreemptedError in the main thread, wherever it is.
Inside `deferred()` it is noted instead, and `stop_requested()` returns it; inside
`interruptible()`, within that, it raises again.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from offline_cql.errors import PreemptedError

# The last two are what clusters send ahead of a time limit (`sbatch --signal=USR1@120`).
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

REPEAT_AFTER = 2.0  # seconds


class _State:
    """The first signal that arrived, and whether signals raise: one of each per process."""

    received: int | None = None
    raises = True


def stop_requested() -> int | None:
    """Return the number of the first stop signal of this command; None before one arrived."""
    return _State.received


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Handle the stop signals in this block, in the main thread; nested blocks do nothing."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is _handle:
        yield
        return
    _State.received, _State.raises = None, True
    previous: dict[Any, Any] = install_handlers()
    previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, _repeat)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _State.received = None
        for number, handler in previous.items():
            signal.signal(number, handler)


def install_handlers() -> dict[signal.Signals, Any]:
    """Set the handlers of the stop signals again, after a library set its own; return those.

    Only the main thread can: others leave them as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, _handle) for number in STOP_SIGNALS}


@contextmanager
def deferred() -> Iterator[None]:
    """Note signals in this block, which must not end halfway; raise at its end if that may be."""
    yield from _with_raises(False)
    if _State.raises and _State.received is not None:
        raise PreemptedError(_State.received)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise PreemptedError in this block, also for a signal that was noted before it."""
    if _State.received is not None:
        raise PreemptedError(_State.received)
    yield from _with_raises(True)


def _with_raises(raises: bool) -> Iterator[None]:
    before = _State.raises
    try:
        _State.raises = raises
        yield
    finally:
        _State.raises = before


def _handle(number: int, _frame: FrameType | None) -> None:
    if _State.received is None:
        _State.received = number
    if _State.raises:
        signal.setitimer(signal.ITIMER_REAL, REPEAT_AFTER)
        raise PreemptedError(number)


def _repeat(_number: int, _frame: FrameType | None) -> None:
    """Raise again: Python drops what a handler raises inside a destructor or a fork."""
    if _State.raises and _State.received is not None:
        signal.setitimer(signal.ITIMER_REAL, REPEAT_AFTER)
        raise PreemptedError(_State.received)


def end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, also when the parent is killed.

    parent: the process id. Linux only: elsewhere a child lives on after its parent was killed.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before this call
            os.kill(os.getpid(), signal.SIGKILL)
