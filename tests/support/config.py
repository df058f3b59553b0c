"""Compose the project's config in a test, as Hydra does for an entry point, or run one."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from offline_cql.config import validate_config
from offline_cql.config.entry_points import ENTRY_POINTS

CONF = Path(__file__).resolve().parents[2] / "conf"
ROOT = CONF.parent


def compose_config(*overrides: str, entry_point: str = "train") -> DictConfig:
    """Return the config of `python <entry point>.py <overrides>`."""
    return _compose(overrides, entry_point).copy()


@functools.cache
def _compose(overrides: tuple[str, ...], entry_point: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entry_point, list(overrides))


def settings(*overrides: str, entry_point: str = "train") -> Any:
    """Return the validated settings of `python <entry point>.py <overrides>`."""
    config = compose_config(*overrides, entry_point=entry_point)
    return validate_config(ENTRY_POINTS[entry_point], config)


def run_entry_point(
    name: str, *arguments: str, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run `python <name>.py <arguments>`."""
    return run_python(str(ROOT / f"{name}.py"), *arguments, cwd=cwd)


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python <arguments>` in a terminal of 80 columns."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
