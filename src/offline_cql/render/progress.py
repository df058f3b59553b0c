"""A progress bar on stderr for work of more than two seconds: simulating, downloading, reading."""

from __future__ import annotations

import time

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from offline_cql.render.terminal import Terminal

SHOW_AFTER = 2.0  # seconds before the bar appears


class ProgressBar:
    """A bar for `total` steps; None: the total is unknown. A context that removes the bar."""

    def __init__(self, title: str, total: int | None):
        self.started, self.done, self.shown = time.monotonic(), 0, False
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            self._amount(),
            TimeRemainingColumn(),
            console=Terminal(stderr=True),
        )
        self.task = self.progress.add_task(title, total=total)

    def __enter__(self) -> ProgressBar:
        return self

    def _amount(self) -> ProgressColumn:
        return MofNCompleteColumn()

    def advance(self, steps: int) -> None:
        """Add `steps` to those that are done."""
        self.done += steps
        if not self.shown and time.monotonic() - self.started > SHOW_AFTER:
            self.progress.start()
            self.shown = True
        if self.shown:
            self.progress.update(self.task, completed=self.done)

    def __exit__(self, *_exception: object) -> None:
        if self.shown:
            self.progress.stop()


class DownloadBar(ProgressBar):
    """A bar in bytes with the methods of tqdm's that pooch calls."""

    def __init__(self, title: str):
        super().__init__(title, None)
        self.closed = False

    def _amount(self) -> ProgressColumn:
        return DownloadColumn()

    @property
    def total(self) -> int | None:
        """The size of the file; None: the server does not announce it."""
        size = self.progress.tasks[0].total
        return None if size is None else int(size)

    @total.setter
    def total(self, size: int) -> None:
        self.progress.update(self.task, total=size or None)

    def update(self, size: int) -> None:
        self.advance(size)

    def reset(self) -> None:
        """Start counting again: at the end pooch replaces its estimate by the exact size."""
        self.done = 0

    def close(self) -> None:
        """Note that every byte has arrived; the context removes the bar."""
        self.closed = True
