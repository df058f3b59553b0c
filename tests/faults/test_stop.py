"""Guarantee: a stop signal takes effect within 10 s, whatever the command is doing.

A training is saved first, an evaluation that was cut off is made when the run is resumed, the exit
code is 128 + number, and a stopped grid names the jobs that it did not start.
"""

import multiprocessing
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support.builders import differences
from support.config import compose_config
from support.envs import with_fault
from support.stops import seconds_since, signal_when
from support.train import TINY, entry_point, load_learned, resume_run, rows, train_run, wait_for

from offline_cql.commands.collect import collect
from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.train import what_is_saved
from offline_cql.errors import PreemptedError
from offline_cql.io import read_json
from offline_cql.simulation.environments import make_environments
from offline_cql.stop_signals import (
    STOP_SIGNALS,
    deferred,
    handle_stop_signals,
    interruptible,
    stop_requested,
)

pytestmark = pytest.mark.usefixtures("recorded")

BOUND = 10.0  # seconds
BASE = tuple(key for key in TINY if key != "evaluation=none")
TWO = ("evaluation.episodes=2", "evaluation.environments=2", "evaluation.every=10", "updates=20")
MILLION = (*TWO[1:], "evaluation.episodes=1000000")


@pytest.fixture
def handled() -> Iterator[None]:
    """Handle stop signals as a command does."""
    with handle_stop_signals():
        yield


def simulator_runs() -> bool:
    """Return whether an evaluation is under way."""
    return bool(multiprocessing.active_children())


# --- The signals --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_raises_at_once(number: signal.Signals, handled: None):
    """The exit code is that of a shell: 143 for SIGTERM, 130 for SIGINT."""
    with pytest.raises(PreemptedError, match=f"stopped by {number.name}") as caught:
        signal.raise_signal(number)
    assert caught.value.exit_code == 128 + number
    assert not isinstance(caught.value, Exception)  # no `except Exception` may hide it


def test_a_deferred_signal_raises_where_it_is_allowed(handled: None):
    """It is noted, raised by an interruptible part that begins later, and at the end."""
    with ExitStack() as end:
        end.enter_context(pytest.raises(PreemptedError, match="SIGTERM"))
        end.enter_context(deferred())
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop_requested() == signal.SIGTERM  # the first one
        with pytest.raises(PreemptedError), interruptible():
            raise AssertionError("was entered")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_dropped_is_raised_again(handled: None):
    """What a handler raises inside a destructor is printed and lost: two seconds later, again."""

    class Destructed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    start = time.monotonic()
    Destructed()
    assert stop_requested() == signal.SIGTERM
    with pytest.raises(PreemptedError):
        time.sleep(BOUND)
    assert time.monotonic() - start > 1


def test_the_handlers_are_the_previous_ones_afterwards():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with handle_stop_signals(), handle_stop_signals():
        assert stop_requested() is None
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_signal_waits_for_the_import_of_a_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: None
):
    """A package may start processes then, which would print errors when they lose their parent."""
    begun, done = tmp_path / "begun", tmp_path / "done"
    lines = [
        "import pathlib, time",
        f"pathlib.Path({str(begun)!r}).touch()",
        "time.sleep(0.3)",
        f"pathlib.Path({str(done)!r}).touch()",
        "make = None",
    ]
    (tmp_path / "slow_simulator.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    gym.register("Slow-v0", entry_point="slow_simulator:make")
    with signal_when(begun.exists, signal.SIGTERM), pytest.raises(PreemptedError):
        make_environments("Slow-v0", 1)
    assert done.exists()


# --- A training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_evaluation_is_made_when_the_run_is_resumed(
    number: signal.Signals, tmp_path: Path, handled: None
):
    """A million episodes at update 10 are cut off; resumed with two, every row is there."""
    whole = train_run(tmp_path / "whole", *BASE, *TWO)
    folder = tmp_path / "run"
    with signal_when(simulator_runs, number) as sent:
        with pytest.raises(PreemptedError):
            train_run(folder, *BASE, *MILLION)
        assert seconds_since(sent) < BOUND
    result = read_json(folder / "result.json")
    assert (result["status"], result["updates"], result["signal"]) == ("preempted", 10, number)
    assert not (folder / "evaluation.csv").exists()
    assert f"continue with: python train.py resume={folder}" in what_is_saved(folder)
    resume_in_a_new_command(folder, "evaluation.episodes=2")
    assert [row["update"] for row in rows(folder / "evaluation.csv")] == ["10", "10", "20", "20"]
    assert rows(folder / "evaluation.csv") == rows(whole / "evaluation.csv")
    assert rows(folder / "metrics.csv") == rows(whole / "metrics.csv")
    assert differences(load_learned(whole), load_learned(folder)) == []


def resume_in_a_new_command(folder: Path, *overrides: str) -> None:
    """Resume with no signal noted, as a new process does."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    with handle_stop_signals():
        resume_run(folder, *overrides)


def test_a_simulator_that_hangs_in_c_delays_no_stop(tmp_path: Path, handled: None):
    """It holds the interpreter's lock for ever, in a process of its own."""
    with signal_when(simulator_runs, signal.SIGTERM) as sent:
        with pytest.raises(PreemptedError):
            train_run(tmp_path / "run", *BASE, *with_fault("hang"), "updates=10")
        assert seconds_since(sent) < BOUND
    assert not simulator_runs()


def test_a_stop_before_the_first_checkpoint_says_that_nothing_is_saved(tmp_path: Path):
    assert what_is_saved(None) == "nothing was trained"
    assert what_is_saved(tmp_path) == f"{tmp_path} has no checkpoint yet: start the run again"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_exits_with_the_code_of_the_signal(
    number: signal.Signals, code: int, tmp_path: Path
):
    """One line after the audit's, no traceback; the run can be resumed."""
    folder = tmp_path / "run"
    with entry_point(*BASE, *MILLION, f"run_dir={folder}") as process:
        wait_for(lambda: (folder / "checkpoints/resume/10.ckpt").exists(), process)
        start = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - start < 2 * BOUND  # Python's own end takes seconds under load
    assert process.returncode == code
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"stopped by {number.name}; the run is saved; continue with: ")
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_stopped_grid_names_the_jobs_that_it_did_not_start(tmp_path: Path):
    """The first of three jobs is stopped: the other two are listed by their overrides."""
    folder = tmp_path / "run"
    grid = ("-m", *BASE, *MILLION, "seed=1,2,3", f"run_dir={folder}", f"hydra.sweep.dir={tmp_path}")
    with entry_point(*grid, stdout=subprocess.PIPE) as process:
        wait_for(lambda: (folder / "checkpoints/resume/10.ckpt").exists(), process)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in errors
    listed = output[output.index("not started") :]
    assert [f"seed={seed}" in listed for seed in (1, 2, 3)] == [False, True, True]


# --- Everything else ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train 10 updates with validation episodes; return the run folder."""
    folder = tmp_path_factory.mktemp("stop") / "run"
    return train_run(folder, *TINY, "updates=10", "dataset.validation_fraction=0.4")


def estimate(folder: Path) -> Any:
    """Fit critics for a million updates."""
    overrides = (f"run={folder}", "ope=fqe", "ope.updates=1_000_000", "evaluation.episodes=0")
    return evaluate(compose_config(*overrides, entry_point="evaluate"))


def play(folder: Path) -> Any:
    """Play a million episodes."""
    overrides = (f"run={folder}", "evaluation.episodes=1_000_000")
    return evaluate(compose_config(*overrides, entry_point="evaluate"))


def record(_folder: Path) -> Any:
    """Record a hundred million steps."""
    overrides = ("env=pendulum", "dataset.size=100_000_000")
    return collect(compose_config(*overrides, entry_point="collect"))


@pytest.mark.parametrize("work", [estimate, play, record])
def test_other_commands_stop_too(work: Callable[..., Any], run: Path, handled: None):
    """They have nothing to save; half a second after their start they are in their long part."""
    start = time.monotonic()
    with signal_when(lambda: time.monotonic() > start + 0.5, signal.SIGINT) as sent:
        with pytest.raises(PreemptedError):
            work(run)
        assert seconds_since(sent) < BOUND
