"""A bar on stderr for what takes longer than a moment: recording, downloading, reading."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

SHOW_AFTER = 2.0  # seconds before the bar appears


class ProgressBar:
    """How much of `total` is done; of bytes if so said. total None: not known."""

    def __init__(self, title: str, total: int | None, *, of_bytes: bool = False):
        self.started, self.done, self.shown = time.monotonic(), 0, False
        amount: ProgressColumn = DownloadColumn() if of_bytes else MofNCompleteColumn()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            amount,
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.task = self.progress.add_task(title, total=total)

    def __enter__(self) -> ProgressBar:
        return self

    def advance(self, steps: int) -> None:
        self.done += steps
        if not self.shown and time.monotonic() - self.started > SHOW_AFTER:
            self.progress.start()
            self.shown = True
        if self.shown:
            self.progress.update(self.task, completed=self.done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shown:
            self.progress.stop()
