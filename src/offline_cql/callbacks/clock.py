"""The training clock: wall time of updates only, without evaluation, saving or start-up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingClock:
    """Seconds spent training; `paused()` leaves out what is not an update."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.left_out = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started - self.left_out

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.left_out += time.perf_counter() - start
