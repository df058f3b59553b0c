"""Wall time of updates only, without evaluation, validation, checkpoints and start-up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Seconds since `start()`, without those spent inside `pause()`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.start_time, self.paused_seconds = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start_time - self.paused_seconds

    @contextmanager
    def pause(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.paused_seconds += time.perf_counter() - start
