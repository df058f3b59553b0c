"""metadata.json: what a run was made with, so that it can be repeated."""

import os
import platform
import secrets
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from offline_cql.config import TrainConfig
from offline_cql.transitions import Transitions

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
    config: TrainConfig, transitions: Transitions, *, command: list[str], grid: str | None
) -> dict[str, Any]:
    """Versions, commit, command, hardware, data set and the W&B id, as plain values."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *command]),
        "grid": grid,
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "torch_threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
            "devices": config.hardware.devices,
            "precision": config.hardware.precision,
        },
        "dataset": {"id": transitions.dataset_id, "sha256": transitions.sha256},
        "wandb_id": secrets.token_hex(4) if "wandb" in config.logger.names else None,
    }


def commit() -> str | None:
    """The commit of the code that runs, with + when it was edited since; None outside git."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
