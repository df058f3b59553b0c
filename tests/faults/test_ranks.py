"""Guarantee: no rank of a distributed run outlives what started it, or waits for ever for another.

Each test has two ranks on CPUs. The exit code is 1 for a lost rank and 128 + number for a signal
to train.py; the folder is free afterwards, and the last checkpoint is there.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.train import DISCRETE, entry_point, processes, wait_for

from offline_cql.errors import ConfigError
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
        assert len(ranks(folder)) == 2
        yield process


def ranks(folder: Path, *, torchrun: bool = False) -> list[int]:
    """Return the process ids of the ranks that train in this folder, or of their torchrun."""
    return sorted(
        number
        for number, words in processes(folder).items()
        if "offline_cql.commands.distributed" in words and torchrun == ("torchrun" in words)
    )


def check_end(folder: Path, seconds: float = 10.0) -> None:
    """Compare what is left: no rank after some seconds, no lock, a checkpoint."""
    deadline = time.monotonic() + seconds
    while (ranks(folder) or in_use(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ranks(folder) == []
    assert not in_use(folder)
    assert newest_checkpoint(folder)["updates"] >= 10


def in_use(folder: Path) -> bool:
    """Return whether a process holds the lock; a dying one loses its command line before that."""
    try:
        with locked(folder):
            return False
    except ConfigError:
        return True


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
        os.kill(ranks(folder, torchrun=True)[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        check_end(folder)
    last = errors.strip().splitlines()[-1]
    assert (process.returncode, last) == (1, f"error: {folder}: torchrun was ended by SIGKILL")


def test_a_killed_rank_ends_the_run(tmp_path: Path):
    """It is named with its signal: the system kills a process like that without memory."""
    folder = tmp_path / "run"
    with training(folder) as process:
        os.kill(ranks(folder)[1], signal.SIGKILL)
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
        os.kill(ranks(folder)[1], signal.SIGSTOP)
        _, errors = process.communicate(timeout=120)
        assert time.monotonic() - start < 5 + TERMINATION + 25  # seconds: processes end slowly
    assert process.returncode == 1
    answer = "rank 0: another rank has ended, or gave no answer for hardware.rank_timeout=5 s"
    assert answer in errors.splitlines()
    assert "Traceback" not in errors
    check_end(folder)


LOST = """
import datetime, os, signal, sys, torch
from offline_cql.commands.fit import lost_ranks_named
from offline_cql.errors import WorkerError
from support.builders import settings

rank, limit = int(sys.argv[1]), datetime.timedelta(seconds=2)
store = f"file://{sys.argv[2]}"
torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2, timeout=limit)
torch.distributed.barrier()
if rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
reductions = [torch.distributed.all_reduce(torch.ones(9), async_op=True) for _ in range(3)]
for reduction in reversed(reductions):
    try:
        with lost_ranks_named(settings().hardware):
            reduction.wait()
    except WorkerError as error:
        print(error, "because of", error.__cause__)
os._exit(0)
"""


def test_every_reduction_that_waits_names_the_lost_rank(tmp_path: Path):
    """Gloo gives the first one another error than the others, and training waits for any."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def start(rank: str) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", LOST, rank, str(tmp_path / "store")]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)

    with start("1") as lost, start("0") as other:
        output, _ = other.communicate(timeout=60)
        lost.kill()
    assert output.count("another rank has ended") == 3, output
    assert "Timed out waiting" in output
    assert "pair closure" in output
