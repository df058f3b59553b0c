"""Guarantee: a bar shows the progress of long work on stderr; short work prints nothing."""

import contextlib
from typing import Any

import pytest

from offline_cql.render import progress
from offline_cql.render.progress import DownloadBar, ProgressBar


def test_short_work_prints_nothing(capsys: Any):
    with ProgressBar("reading", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("total", "expected"), [(8, "5/8"), (None, "5/?")])
def test_long_work_shows_the_steps_done(
    monkeypatch: Any, capsys: Any, total: int | None, expected: str
):
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    with ProgressBar("reading sim/x-v0", total) as bar:
        bar.advance(2)
        bar.advance(3)
    printed = capsys.readouterr()
    assert "reading sim/x-v0" in printed.err
    assert expected in printed.err
    assert printed.out == ""


def test_a_download_is_shown_in_bytes_as_pooch_reports_them(monkeypatch: Any, capsys: Any):
    """pooch sets the total, counts whole blocks, and replaces the count by the total at the end."""
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    with DownloadBar("downloading x") as bar:
        assert bar.total is None
        bar.total = 10
        bar.update(8)
        bar.update(8)
        bar.reset()
        bar.update(10)
        bar.close()
        assert (bar.total, bar.done, bar.closed) == (10, 10, True)
    assert "10/10 bytes" in capsys.readouterr().err


def test_the_bar_is_removed_when_the_work_fails(monkeypatch: Any):
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    bar = ProgressBar("reading", 3)
    with contextlib.suppress(RuntimeError), bar:
        bar.advance(1)
        assert bar.progress.live.is_started
        raise RuntimeError
    assert not bar.progress.live.is_started
