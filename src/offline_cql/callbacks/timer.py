"""The training clock: wall time of updates only, without evaluation, saving or start-up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Seconds since `start()`; `paused()` leaves out what is not an update."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.started, self.left_out = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started - self.left_out

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.left_out += time.perf_counter() - start
