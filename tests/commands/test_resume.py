"""Guarantee: a run that was stopped and resumed ends bit for bit like one that never stopped.

Every item of a checkpoint is needed for that: without any one of them the end differs.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import differences, tensors_of
from support.train import BC, DISCRETE, LAGRANGE, TINY, load_learned, resume_run, rows, train_run
from torch import Tensor

from offline_cql.commands import train as entry_point
from offline_cql.commands.train import resume
from offline_cql.runs.checkpoint import newest_checkpoint, write_checkpoint
from offline_cql.runs.folder import state_path

pytestmark = pytest.mark.usefixtures("recorded")

SCHEDULED = (*TINY, "alpha_schedule=linear", "alpha_schedule.until=40", "alpha_schedule.warmup=5")
TRANSFORMS = (
    "dataset.validation_fraction=0.3",
    "dataset.n_step=3",
    "dataset.td_lambda=0.5",
    "dataset.top_fraction=0.8",
    "dataset.split_seed=4",
)
VARIANTS = {
    "entropy": (*TINY, "cql.backup=entropy"),
    "bc": BC,
    "lagrange": LAGRANGE,
    "scheduled": SCHEDULED,
    "transforms": (*TINY, *TRANSFORMS, "dataset.return_range=10"),
    "discrete transforms": (*DISCRETE, *TRANSFORMS),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train without interruption and return the run folder; each is trained once."""

    @functools.cache
    def run(*overrides: str) -> Path:
        return train_run(tmp_path_factory.mktemp("uninterrupted") / "run", *overrides)

    return run


@pytest.mark.parametrize("settings", [TINY, DISCRETE], ids=["continuous", "discrete"])
def test_137_and_263_updates_are_400(settings: tuple[str, ...], uninterrupted: Any, tmp_path: Path):
    whole = uninterrupted(*settings, "updates=400")
    part = train_run(tmp_path / "run", *settings, "updates=137")
    at_137 = load_learned(part)
    resume_run(part, "updates=400")
    assert differences(load_learned(whole), load_learned(part)) == []
    assert differences(at_137["agent"], load_learned(part)["agent"]) != []  # it did train on


@pytest.mark.parametrize("variant", VARIANTS)
def test_13_and_27_updates_are_40(variant: str, uninterrupted: Any, tmp_path: Path):
    settings = VARIANTS[variant]
    part = resume_run(train_run(tmp_path / "run", *settings, "updates=13"), "updates=40")
    whole = uninterrupted(*settings, "updates=40")
    assert differences(load_learned(whole), load_learned(part)) == []


@pytest.mark.parametrize("stop", [1, 10, 20, 39])
def test_a_run_may_stop_at_any_update(stop: int, uninterrupted: Any, tmp_path: Path):
    """Stop at the first update, at a logging point, at the end of a block, one before the end."""
    part = resume_run(train_run(tmp_path / "run", *TINY, f"updates={stop}"), "updates=40")
    assert differences(load_learned(uninterrupted(*TINY, "updates=40")), load_learned(part)) == []


def test_a_run_can_be_resumed_repeatedly(uninterrupted: Any, tmp_path: Path):
    part = train_run(tmp_path / "run", *TINY, "updates=7")
    for updates in (8, 25, 40):
        resume_run(part, f"updates={updates}")
    assert differences(load_learned(uninterrupted(*TINY, "updates=40")), load_learned(part)) == []


def test_metrics_are_those_of_one_run(uninterrupted: Any, tmp_path: Path):
    """Each logged update has one row with the same numbers; only times differ."""
    part = resume_run(train_run(tmp_path / "run", *TINY, "updates=25"), "updates=40")
    expected = rows(uninterrupted(*TINY, "updates=40") / "metrics.csv")
    assert [row["update"] for row in expected] == ["10", "20", "30", "40"]
    assert rows(part / "metrics.csv") == expected


def test_rows_after_the_checkpoint_are_written_once(uninterrupted: Any, tmp_path: Path):
    """A run was killed at update 30, which it had logged, after a checkpoint of update 20."""
    part = train_run(tmp_path / "run", *TINY, "updates=20")
    with (part / "metrics.csv").open("a", newline="") as file:
        file.write("30,1.0,2.0\r\n40,half of a li")
    resume_run(part, "updates=40")
    assert rows(part / "metrics.csv") == rows(uninterrupted(*TINY, "updates=40") / "metrics.csv")


def test_the_schedule_is_that_of_the_run(tmp_path: Path):
    """alpha's decay ends at 40 updates, as configured, though the run is resumed to 60."""
    settings = (*TINY, "alpha_schedule=linear", "alpha_schedule.final_factor=0")
    part = resume_run(train_run(tmp_path / "run", *settings, "updates=40"), "updates=60")
    alphas = {row["update"]: float(row["cql/alpha"]) for row in rows(part / "metrics.csv")}
    # Update 10 comes after 9 completed ones.
    assert alphas["10"] == pytest.approx(5.0 * (1 - 9 / 40))
    assert alphas["50"] == alphas["60"] == 0.0


# --- Every item of a checkpoint is needed ---------------------------------------------------------


def without_targets(state: dict[str, Any]) -> None:
    for name, value in state["agent"].items():
        if name.startswith("target_critic"):
            value.copy_(state["agent"][name.removeprefix("target_")])


REMOVALS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "targets": without_targets,
    "optimizer": lambda state: state["optimizer"].update(state={}),
    "noise": lambda state: state.update(noise=torch.Generator().manual_seed(1).get_state()),
    "counter": lambda state: state.update(updates=0),
    "temperature": lambda state: state["agent"]["log_temperature"].zero_(),
    "multiplier": lambda state: state["agent"]["penalty.log_multiplier"].zero_(),
}


@pytest.mark.parametrize(
    ("item", "settings"),
    [
        *((item, TINY) for item in REMOVALS if item != "multiplier"),
        *(("targets", DISCRETE), ("optimizer", DISCRETE), ("multiplier", LAGRANGE)),
    ],
)
def test_each_item_of_the_state_decides_the_end(
    item: str, settings: tuple[str, ...], uninterrupted: Any, tmp_path: Path
):
    part = train_run(tmp_path / "run", *settings, "updates=13")
    state = newest_checkpoint(part)
    REMOVALS[item](state)
    write_checkpoint(part, state)
    resume_run(part, "updates=40")
    different = differences(
        load_learned(uninterrupted(*settings, "updates=40"))["agent"], load_learned(part)["agent"]
    )
    assert any(name.startswith("/critic") for name in different)


# --- Checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [LAGRANGE, DISCRETE], ids=["continuous", "discrete"])
def test_a_checkpoint_contains_tensors_and_plain_values_only(settings: Any, uninterrupted: Any):
    path = state_path(uninterrupted(*settings, "updates=40"), 40)
    state = torch.load(path, weights_only=True)
    plain = (Tensor, int, float, str, bool, type(None))
    assert {type(value) for value in tensors_of(state).values()} <= set(plain)
    assert {"agent", "optimizer", "noise", "updates", "config", "dataset", "lengths"} <= set(state)


def test_a_resumed_run_is_the_same_run_at_wandb(monkeypatch: Any, tmp_path: Path):
    """The id is created with the run folder; both parts are logged under it."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    used: list[str] = []

    def note_id(_names: Any, info: Any) -> list[Any]:
        used.append(info.run_id)
        return []

    monkeypatch.setattr("offline_cql.commands.fit.make_loggers", note_id)
    part = train_run(tmp_path / "run", *TINY, "logger=wandb", "updates=1")
    resume_run(part, "updates=2")
    assert len(used) == 2
    assert used[0] == used[1] == entry_point.read_metadata(part)["wandb_id"]


def test_a_run_killed_at_its_very_end_gets_its_result(uninterrupted: Any, tmp_path: Path):
    """All updates are saved but result.json is missing: resuming writes it."""
    settings = (*TINY, "evaluation=default", "evaluation.episodes=2", "evaluation.environments=2")
    part = train_run(tmp_path / "run", *settings, "updates=10")
    expected = entry_point.read_result(part)
    (part / "result.json").unlink()
    state_path(part, 10).with_name(".20.ckpt.123.tmp").write_text("half")
    resume_run(part)
    result = entry_point.read_result(part)
    clock = dict.fromkeys(("wall_seconds", "updates_per_second"))
    assert result | clock == expected | clock
    assert result["episodes"] == 2
    assert not list(part.rglob("*.tmp"))


def test_updates_already_reached_are_nothing_to_do(uninterrupted: Any, capsys: Any):
    run = uninterrupted(*TINY, "updates=40")
    before = state_path(run, 40).read_bytes()
    resume(run, entry_point.OmegaConf.create({}), [])
    assert "nothing to do" in capsys.readouterr().out
    assert state_path(run, 40).read_bytes() == before
