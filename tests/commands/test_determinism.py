"""Guarantee: the seed decides the weights; evaluation, logs, checkpoints, block size do not."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.builders import differences
from support.train import DISCRETE, TINY, load_learned, rows, train_run

pytestmark = pytest.mark.usefixtures("recorded")

UPDATES = "updates=40"
ROLLOUTS = ("evaluation=default", "evaluation.episodes=1", "evaluation.environments=1")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """Return what a run without extras learned; the runs are cached."""

    @functools.cache
    def state(settings: tuple[str, ...]) -> dict[str, Any]:
        return load_learned(train_run(tmp_path_factory.mktemp("plain") / "run", *settings, UPDATES))

    return state


@pytest.mark.parametrize("settings", [TINY, DISCRETE], ids=["continuous", "discrete"])
def test_equal_seeds_give_equal_weights(settings: tuple[str, ...], plain: Any, tmp_path: Path):
    again = load_learned(train_run(tmp_path / "run", *settings, UPDATES))
    assert differences(plain(settings), again) == []


@pytest.mark.parametrize("settings", [TINY, DISCRETE], ids=["continuous", "discrete"])
def test_another_seed_gives_other_weights(settings: tuple[str, ...], plain: Any, tmp_path: Path):
    other = load_learned(train_run(tmp_path / "run", *settings, UPDATES, "seed=1"))
    changed = differences(plain(settings)["agent"], other["agent"])
    assert any(name.startswith("/critic.") for name in changed)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param((*ROLLOUTS, "evaluation.every=40"), id="evaluate at the end"),
        pytest.param((*ROLLOUTS, "evaluation.every=9"), id="evaluate often"),
        pytest.param((*ROLLOUTS, "evaluation.every=40", "evaluation.seed=3"), id="other episodes"),
        pytest.param(("hardware.updates_per_step=1",), id="blocks of 1"),
        pytest.param(("hardware.updates_per_step=7",), id="blocks of 7"),
        pytest.param(("log_every=1",), id="log every update"),
        pytest.param(("log_every=100",), id="log never"),
        pytest.param(("checkpoint_every=3",), id="checkpoint often"),
    ],
)
def test_evaluation_logs_checkpoints_and_block_size_change_no_weight(
    change: tuple[str, ...], plain: Any, tmp_path: Path
):
    folder = train_run(tmp_path / "run", *TINY, UPDATES, *change)
    assert differences(plain(TINY), load_learned(folder)) == []


def test_evaluating_a_discrete_agent_changes_no_weight(plain: Any, tmp_path: Path):
    folder = train_run(tmp_path / "run", *DISCRETE, UPDATES, *ROLLOUTS, "evaluation.every=9")
    assert differences(plain(DISCRETE), load_learned(folder)) == []
    updates = [row["update"] for row in rows(folder / "evaluation.csv")]
    assert updates == ["9", "18", "27", "36", "40"]
