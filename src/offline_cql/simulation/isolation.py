"""Simulators in a process of their own, which can neither block nor end the process that trains.

Only the simulator is there: each observation comes to this process, which computes the action, so
that weights, device and rounding are those of the training (docs/decisions/016).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from offline_cql.errors import ConfigError, DataError, PolicyError, SimulatorError
from offline_cql.stop_signals import STOP_SIGNALS, deferred, end_with

T = TypeVar("T")
CALL, RESULT, ERROR = "call", "result", "error"


def run_isolated(
    work: Callable[[Callable[..., Any]], T], serve: Callable[..., Any], *, time_limit: float | None
) -> T:
    """Return `work(call)` of another process, where `call(*values)` is `serve(*values)` of this.

    time_limit: seconds. Raises what `work` raised, and SimulatorError when the process ends in any
    other way or takes longer; it is killed then, and whenever an exception leaves this function.
    """
    # A fork has what this process imported and registered. Outside Linux forks are unreliable.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(work, ours, theirs, os.getpid()), daemon=True)
    deadline = time.monotonic() + (time_limit if time_limit is not None else float("inf"))
    try:
        with deferred():  # Python drops what a signal handler raises in a fork
            process.start()
        theirs.close()
        while True:
            kind, value = _receive(ours, process, deadline, time_limit)
            if kind == CALL:
                ours.send(serve(*value))
            elif kind == ERROR:
                raise value
            else:
                result: T = value
                return result
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        ours.close()


def _receive(
    connection: Connection, process: Any, deadline: float, time_limit: float | None
) -> tuple[str, Any]:
    """Return the next message of the process. Raises SimulatorError when there is none."""
    seconds = None if time_limit is None else max(0.0, deadline - time.monotonic())
    if not connection.poll(seconds):
        raise SimulatorError(
            f"the simulator was stopped after {time_limit:g} s; raise evaluation.time_limit"
        )
    try:
        message: tuple[str, Any] = connection.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise SimulatorError(f"the simulator ended its process ({reason})") from None
    return message


def _work(
    work: Callable[[Callable[..., Any]], Any], theirs_end: Connection, own: Connection, parent: int
) -> None:
    """Run `work` in the new process, and send what it returns or raises."""
    end_with(parent)
    # The parent handles them, and kills this process.
    for number in (*STOP_SIGNALS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    theirs_end.close()

    def call(*values: Any) -> Any:
        own.send((CALL, values))
        return own.recv()

    try:
        message = (RESULT, work(call))
    except (SimulatorError, PolicyError, DataError, ConfigError) as error:
        message = (ERROR, error)
    own.send(message)
