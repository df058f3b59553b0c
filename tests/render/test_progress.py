"""Promise: a bar tells what takes long, on stderr, and nothing at all otherwise."""

import contextlib
from typing import Any

import pytest

from offline_cql.render import progress
from offline_cql.render.progress import ProgressBar


def test_what_is_quick_says_nothing(capsys: Any):
    with ProgressBar("reading", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "of_bytes", "expected"),
    [(8, False, "5/8"), (None, False, "5/?"), (10, True, "5/10 bytes")],
)
def test_what_takes_long_shows_how_much_is_done(
    monkeypatch: Any, capsys: Any, total: int | None, of_bytes: bool, expected: str
):
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    with ProgressBar("reading sim/x-v0", total, of_bytes=of_bytes) as bar:
        bar.advance(2)
        bar.advance(3)
    shown = capsys.readouterr()
    assert "reading sim/x-v0" in shown.err
    assert expected in shown.err
    assert shown.out == ""


def test_the_bar_ends_when_what_it_tells_of_fails(monkeypatch: Any):
    monkeypatch.setattr(progress, "SHOW_AFTER", -1.0)
    bar = ProgressBar("reading", 3)
    with contextlib.suppress(RuntimeError), bar:
        bar.advance(1)
        assert bar.progress.live.is_started
        raise RuntimeError
    assert not bar.progress.live.is_started
