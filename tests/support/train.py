"""Trains in a test: tiny networks, a small recorded data set, the run folder as the only result."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from support.config import CONF, composed
from torch import Tensor

from offline_cql.commands.distributed import load_config
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
# A setting that has no effect is refused, so a discrete agent is not told of proposals and actors.
DISCRETE = ("env=cartpole", *(k for k in TINY if not k.startswith(("cql.n_act", "network.act"))))
LAGRANGE = (*TINY, "cql=lagrange", "network.log_std_affine=true")
# Columns of metrics.csv that tell the time.
CLOCK = {"time/updates_per_second"}


def trained(folder: Path, *overrides: str) -> Path:
    """Train as train.py does, without its tables; returns the run folder that was claimed."""
    config = composed(*overrides, f"run_dir={folder}")
    settings, transitions = validate(config, [])
    claimed = create_run(config, settings, transitions, grid_name=None)
    run_training(claimed, load_config(claimed), transitions, state=None)
    return claimed


def resumed(folder: Path, *overrides: str) -> Path:
    """Go on as `python train.py resume=FOLDER …` does."""
    resume(folder, composed(*overrides), list(overrides))
    return folder


@contextmanager
def entry_point(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`python train.py <arguments>` as a process of its own, which does not outlive the test."""
    command = [sys.executable, "train.py", *arguments]
    with subprocess.Popen(command, cwd=CONF.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until something is there that a running process will make."""
    while not there():
        assert process.poll() is None, "the process ended before its time"
        time.sleep(0.01)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, without the columns that tell the time."""
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name not in CLOCK}
            for row in csv.DictReader(file)
        ]


def learned(folder: Path) -> dict[str, Any]:
    """What the run's checkpoint says about learning: agent, optimizer, noise, counter."""
    state = newest_checkpoint(folder)
    return {key: state[key] for key in ("agent", "optimizer", "noise", "updates")}


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts, lists and tuples, with its place."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}/{key}")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{name}/{index}")
    else:
        yield name, tree


def differences(one: Any, other: Any) -> list[str]:
    """Where two nested states differ; tensors must be equal bit for bit."""
    left, right = dict(leaves(one)), dict(leaves(other))
    return sorted(
        {name for name in left.keys() & right.keys() if not equal(left[name], right[name])}
        | (left.keys() ^ right.keys())
    )


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other
