"""Guarantee: no rank of a distributed run outlives what started it, or waits for ever for another.

Each test has two ranks on CPUs. The exit code is 1 for a lost rank and 128 + number for a signal
to train.py; the folder is free afterwards, and the last checkpoint is there.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.train import DISCRETE, entry_point, wait_for

from offline_cql.io import locked, read_json
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import saved_updates

pytestmark = [pytest.mark.usefixtures("recorded"), pytest.mark.slow]

TWO_RANKS = (
    *(key for key in DISCRETE if key not in ("hardware=cpu", "checkpoint_every=100")),
    *("hardware=ddp_cpu", "updates=1_000_000", "checkpoint_every=10", "hardware.rank_timeout=5"),
)
TERMINATION = 30.0  # seconds that torchrun gives a rank to end before it kills it


@contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Train in two ranks; entered when both have trained to a checkpoint."""
    with entry_point(*TWO_RANKS, f"run_dir={folder}") as process:
        wait_for(lambda: bool(saved_updates(folder)), process)
        assert len(processes(folder)) == 2
        yield process


def processes(folder: Path, *, torchrun: bool = False) -> list[int]:
    """Return the process ids of the ranks that train in this folder, or of their torchrun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "offline_cql.commands.distributed" in words and str(folder) in words:
            found += [int(path.parent.name)] if torchrun == ("torchrun" in words) else []
    return sorted(found)


def check_end(folder: Path, seconds: float = 10.0) -> None:
    """Compare what is left: no rank after some seconds, no lock, a checkpoint."""
    deadline = time.monotonic() + seconds
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(folder) == []
    with locked(folder):
        assert newest_checkpoint(folder)["updates"] >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_command_stops_the_ranks(number: signal.Signals, tmp_path: Path):
    folder = tmp_path / "run"
    with training(folder) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors.strip().splitlines()[-1].startswith(f"stopped by {number.name}; the run is saved")
    assert "Traceback" not in errors
    check_end(folder)
    assert read_json(folder / "result.json")["status"] == "preempted"


def test_ranks_end_with_a_command_that_is_killed(tmp_path: Path):
    """Nothing can forward a signal then: the system ends torchrun, and the ranks with it."""
    folder = tmp_path / "run"
    with training(folder) as process:
        process.kill()
        process.wait()
        check_end(folder)


def test_ranks_end_with_a_torchrun_that_is_killed(tmp_path: Path):
    folder = tmp_path / "run"
    with training(folder) as process:
        os.kill(processes(folder, torchrun=True)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        check_end(folder)
    last = errors.strip().splitlines()[-1]
    assert (process.returncode, last) == (1, f"error: {folder}: torchrun was ended by SIGKILL")


def test_a_killed_rank_ends_the_run(tmp_path: Path):
    """It is named with its signal: the system kills a process like that without memory."""
    folder = tmp_path / "run"
    with training(folder) as process:
        os.kill(processes(folder)[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 1 was ended by SIGKILL" in errors
    assert "Traceback" not in errors
    check_end(folder)
    assert read_json(folder / "result.json")["status"] == "failed"


def test_a_rank_that_hangs_ends_the_run_after_the_time_limit(tmp_path: Path):
    """The other one waits 5 s (hardware.rank_timeout), then torchrun gives it 30 s to end."""
    folder = tmp_path / "run"
    with training(folder) as process:
        start = time.monotonic()
        os.kill(processes(folder)[1], signal.SIGSTOP)
        _, errors = process.communicate(timeout=120)
        assert time.monotonic() - start < 5 + TERMINATION + 25  # seconds: processes end slowly
    assert process.returncode == 1
    answer = "rank 0: another rank has ended, or gave no answer for hardware.rank_timeout=5 s"
    assert answer in errors.splitlines()
    assert "Traceback" not in errors
    check_end(folder)
