"""The content of metadata.json: versions, commit, command, hardware and data of a run."""

import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[3]  # of the repository
PACKAGES = (
    "offline-cql",
    "torch",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "minari",
    "gymnasium",
    "mujoco",
    "numpy",
    "wandb",
)


def provenance(
    *,
    command: str,
    grid: str | None,
    dataset: Mapping[str, Any],
    devices: int,
    precision: str,
    cores: int,
    threads: int,
    wandb: bool,
) -> dict[str, Any]:
    """Return versions, commit, command, hardware, data set and W&B id as plain values.

    command: as it is typed in a shell. dataset: id and sha256. wandb: True if W&B logs the run.
    cores: that the process may use; threads: of torch, in each process.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "grid": grid,
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cores": cores,
            "torch_threads": threads,
            "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
            "devices": devices,
            "precision": precision,
        },
        "dataset": dict(dataset),
        "wandb_id": new_wandb_id(grid) if wandb else None,
    }


def new_wandb_id(grid: str | None) -> str:
    """Return the id of a run at W&B: a new one, or that which the shell gives to a single run.

    The agent of a sweep sets WANDB_RUN_ID; W&B gives it to all runs of that agent's command.
    """
    shared = grid is None or os.environ.get("WANDB_SWEEP_ID")
    return (os.environ.get("WANDB_RUN_ID") if shared else None) or secrets.token_hex(4)


def commit() -> str | None:
    """Return the commit of this code, with + if it was edited since; None without git.

    Also where another user owns the code (a container, a shared installation): git refuses such a
    repository, because its settings can run programs. This one's code is running already; a
    repository further up stays refused.
    """
    if shutil.which("git") is None:
        return None
    describe = ("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    process = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", *describe],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return process.stdout.strip() or None


def processor() -> str:
    """Return the processor's name as the operating system reports it."""
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
