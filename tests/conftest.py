"""What every test gets: a data store, a cache and a home of its own, one thread, no W&B account.

So no test reads or changes what belongs to the person who runs it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# The same made-up cases each time: whether a change is good is no matter of luck. New ones:
# pytest --hypothesis-profile=default
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

os.environ["OMP_NUM_THREADS"] = (
    "1"  # read when torch is imported; also by entry points that tests start
)


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data, cache, home and W&B's folders below the session's temporary folder; no key, no mode."""
    base = tmp_path_factory.mktemp("own")
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
def recorded(own_places: Path) -> Path:
    """The store with a small pendulum and a small cartpole data set; leave it as it is."""
    from support.config import settings
    from support.train import SIZE

    from offline_cql.simulation.collect import ensure_recorded

    for env in ("pendulum", "cartpole"):
        config = settings(f"env={env}", f"dataset.size={SIZE}")
        ensure_recorded(config.env, config.dataset)
    return own_places / "datasets"
