"""Fixtures of all tests: one thread per process, temporary data, cache and home, no W&B account.

No test reads or changes the files and accounts of the person who runs it, and the processes of
pytest-xdist share nothing: pytest's temporary folders are per process.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# The same generated cases in every run. Other cases: pytest --hypothesis-profile=default
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

# Read when torch is imported, and by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
# `python` is this interpreter, as in an activated environment: printed commands start with it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Set data, cache, home and W&B's folders to temporary ones; unset W&B's key and mode."""
    base = tmp_path_factory.mktemp("isolated")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.delenv("NETRC", raising=False)
        patch.setenv("HOME", str(base / "home"))
        patch.setenv("MINARI_DATASETS_PATH", str(base / "datasets"))
        patch.setenv("OFFLINE_CQL_CACHE", str(base / "cache"))
        patch.delenv("D4RL_DATASET_DIR", raising=False)
        for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(base / "wandb"))
        for folder in ("home", "datasets", "wandb"):
            (base / folder).mkdir()
        yield base


@pytest.fixture(scope="session")
def recorded(isolated: Path) -> Path:
    """Return the Minari store with a small pendulum and a small cartpole data set; read-only."""
    from support.config import settings
    from support.train import SIZE

    from offline_cql.simulation.collect import ensure_recorded

    for env in ("pendulum", "cartpole"):
        config = settings(f"env={env}", f"dataset.size={SIZE}")
        ensure_recorded(config.env, config.dataset)
    return isolated / "datasets"
