"""Train tiny networks on a small simulated data set; the result is a run folder."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.config import CONF, compose_config

from offline_cql.commands.load_run import load_config
from offline_cql.commands.train import create_run, resume, run_training, validate
from offline_cql.runs.checkpoint import newest_checkpoint

SIZE = 2_000  # transitions; tests/conftest.py records them once
TINY = (
    "logger=csv",
    f"dataset.size={SIZE}",
    "network.actor_hidden=[16,16]",
    "network.critic_hidden=[16,16]",
    "cql.n_action_samples=2",
    "batch_size=16",
    "log_every=10",
    "checkpoint_every=100",
    "evaluation=none",
    "hardware=cpu",
    "hardware.updates_per_step=10",
)
# Typed settings without effect are refused: a discrete agent has no action samples and no actor.
DISCRETE = ("env=cartpole", *(k for k in TINY if not k.startswith(("cql.n_act", "network.act"))))
# Behavior cloning, of either kind: it has no critics.
BC = (*(k for k in TINY if not k.startswith(("cql.", "network.critic"))), "algorithm=bc")
LAGRANGE = (*TINY, "cql=lagrange", "network.log_std_affine=true")
# Columns of metrics.csv that differ between equal runs.
CLOCK = {"time/updates_per_second"}


def train_run(folder: Path, *overrides: str) -> Path:
    """Train as train.py does, without its tables; return the run folder."""
    config = compose_config(*overrides, f"run_dir={folder}")
    settings, transitions = validate(config, [])
    run = create_run(config, settings, transitions, grid_name=None)
    run_training(run, load_config(run), transitions, state=None)
    return run


def resume_run(folder: Path, *overrides: str) -> Path:
    """Resume as `python train.py resume=FOLDER …` does."""
    resume(folder, compose_config(*overrides), list(overrides))
    return folder


@contextmanager
def entry_point(*arguments: str, stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start `python train.py <arguments>` as a process that does not outlive the test."""
    command = [sys.executable, "train.py", *arguments]
    with subprocess.Popen(
        command, cwd=CONF.parent, stdout=stdout, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a running process has made the condition true."""
    while not condition():
        assert process.poll() is None, "the process ended early"
        time.sleep(0.01)


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file without the columns of CLOCK."""
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in CLOCK}
            for row in csv.DictReader(file)
        ]


def load_learned(folder: Path) -> dict[str, Any]:
    """Return agent, optimizer, noise generator and number of updates of the last checkpoint."""
    state = newest_checkpoint(folder)
    return {key: state[key] for key in ("agent", "optimizer", "noise", "updates")}


def processes(folder: Path) -> dict[int, list[str]]:
    """Return the command lines that name the folder, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(str(folder) in word for word in words):
            found[int(path.parent.name)] = words
    return found
