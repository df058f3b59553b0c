"""Guarantee: splits and transforms of the data change what is learned, for both kinds of actions.

The metadata name the whole data set, whatever part of it a run trained on.
"""

from pathlib import Path

import pytest
from support.builders import differences
from support.config import compose_config
from support.train import DISCRETE, TINY, load_learned, train_run

from offline_cql.commands.train import validate
from offline_cql.data.split import split_episodes
from offline_cql.errors import ConfigError
from offline_cql.io import read_json

pytestmark = pytest.mark.usefixtures("recorded")

KINDS = {"continuous": TINY, "discrete": DISCRETE}
TRANSFORMS = {
    "n_step": ("dataset.n_step=3",),
    "td_lambda": ("dataset.n_step=3", "dataset.td_lambda=0.5"),
    "validation_fraction": ("dataset.validation_fraction=0.3",),
    "fraction": ("dataset.fraction=0.5",),
    "top_fraction": ("dataset.top_fraction=0.3",),
    "return_range": ("dataset.return_range=10",),
    "reward_shift": ("dataset.reward_shift=1",),
    "all": (
        *("dataset.n_step=5", "dataset.fraction=0.9", "dataset.validation_fraction=0.3"),
        *("dataset.top_fraction=0.8", "dataset.split_seed=1"),
        *("dataset.return_range=10", "dataset.reward_scale=2"),
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> dict[str, Path]:
    """Train a run of each kind on all of the data, without transforms."""
    base = tmp_path_factory.mktemp("plain")
    return {
        kind: train_run(base / kind, *settings, "updates=20") for kind, settings in KINDS.items()
    }


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_finishes_and_learns_from_other_data(
    kind: str, transform: str, plain: dict[str, Path], tmp_path: Path
):
    run = train_run(tmp_path / "run", *KINDS[kind], *TRANSFORMS[transform], "updates=20")
    result = read_json(run / "result.json")
    assert (result["status"], result["updates"]) == ("finished", 20)
    assert differences(load_learned(plain[kind])["agent"], load_learned(run)["agent"]) != []
    data, whole = (read_json(folder / "metadata.json")["dataset"] for folder in (run, plain[kind]))
    assert data["sha256"] == whole["sha256"]


def test_a_batch_larger_than_the_training_part_is_refused():
    """The validation episodes' transitions do not count."""
    overrides = (*TINY, "dataset.validation_fraction=0.2")
    settings, data = validate(compose_config(*overrides), [])
    size = split_episodes(data, settings.dataset).size
    assert 1_000 < size < len(data) == 2_000
    validate(compose_config(*overrides, f"batch_size={size}"), [])
    message = f"batch_size={size + 1} must be <= {size}, the training transitions of sim/pendulum/"
    with pytest.raises(ConfigError, match=message):
        validate(compose_config(*overrides, f"batch_size={size + 1}"), [])
