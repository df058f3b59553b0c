"""Guarantee: progress is a line on a terminal, up to ten in a log file, nothing on stdout."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from offline_cql.callbacks.progress import ProgressBar

LABELS = {"critic/td_loss": "td", "cql/alpha": "alpha", "x/y": "y"}


@pytest.fixture
def trainer() -> Any:
    return SimpleNamespace(is_global_zero=True)


def bar(updates: int, *, terminal: bool = False, latest: dict[str, float] | None = None) -> Any:
    metrics = SimpleNamespace(latest=latest or {}, last_update=0)
    progress = ProgressBar(updates, LABELS, metrics, None)
    progress.console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    return progress


def run(
    bar: ProgressBar, trainer: Any, *counts: int, start: int = 0, log_every: int = 1
) -> list[str]:
    """Return the lines printed while an agent reaches these counts of updates."""
    agent = SimpleNamespace(updates=start)
    bar.before_training(trainer, agent)
    for count in counts:
        agent.updates = count
        if count % log_every == 0:
            bar.metrics.last_update = count
        bar.after_block(trainer, agent)
    return bar.console.file.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_at_each_tenth(trainer: Any):
    lines = run(bar(1000), trainer, *range(10, 1001, 10))
    assert [line.split()[1] for line in lines] == [f"{k}00/1000" for k in range(1, 10)] + [
        "1000/1000"
    ]


def test_lines_are_printed_at_logging_points_only(trainer: Any):
    """In between there are no new numbers, and none at all before the first one."""
    lines = run(bar(300), trainer, *range(50, 301, 50), log_every=100)
    assert [line.split()[1] for line in lines] == ["100/300", "200/300", "300/300"]


def test_a_line_holds_the_latest_value_of_each_labelled_metric(trainer: Any):
    latest = {
        "time/updates_per_second": 123.4,
        "critic/td_loss": 0.012345,
        "critic/gap": 4.5591,
        "cql/alpha": 5.0,
        "critic/target": 1.0,
    }
    (line,) = run(bar(10, latest=latest), trainer, 1)
    assert line.split("  ") == ["update 1/10", "123 updates/s", "td 0.0123", "alpha 5"]


def test_a_small_return_is_not_printed_as_0(trainer: Any):
    progress = bar(10)
    progress.evaluation = SimpleNamespace(latest=SimpleNamespace(return_mean=0.0046))
    (line,) = run(progress, trainer, 1)
    assert line.split("  ") == ["update 1/10", "return 0.0046"]


def test_a_resumed_run_prints_its_next_tenth(trainer: Any):
    lines = run(bar(100), trainer, 35, 39, 40, start=34)
    assert [line.split()[1] for line in lines] == ["40/100"]


def test_other_ranks_are_silent(trainer: Any):
    trainer.is_global_zero = False
    assert run(bar(10), trainer, 5, 10) == []
    assert run(bar(10, terminal=True), trainer, 5, 10) == []


@pytest.mark.parametrize("how", ["teardown", "on_exception"])
def test_the_bar_on_a_terminal_is_removed_after_success_and_failure(how: str, trainer: Any):
    progress = bar(10, terminal=True)
    run(progress, trainer, 5)
    assert progress.bar.live.is_started
    rich_bar = progress.bar
    getattr(progress, how)(trainer, None, "fit")
    assert progress.bar is None
    assert not rich_bar.live.is_started


def test_nothing_goes_to_stdout():
    assert ProgressBar(10, LABELS, SimpleNamespace(latest={}), None).console.stderr
