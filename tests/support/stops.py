"""Send a signal to this process from a thread, when something has happened or after a while."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signal_when(condition: Callable[[], bool], number: int) -> Iterator[list[float]]:
    """Send the signal once the condition is true; the list gets the time of it, monotonic."""
    sent: list[float] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            if condition():
                sent.append(time.monotonic())
                os.kill(os.getpid(), number)
                return
            ended.wait(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def seconds_since(sent: list[float]) -> float:
    """Return the seconds since the signal was sent."""
    return time.monotonic() - sent[0]
