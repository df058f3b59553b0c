"""Guarantee: no fault of a simulator ends a training, blocks it or changes a weight.

The checkpoint is written before the rollouts. A failed evaluation is recorded with its reason, the
next one is tried again, and what changes no weight may be changed when a run is resumed.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.builders import differences
from support.config import compose_config
from support.envs import with_fault
from support.train import TINY, load_learned, resume_run, rows, train_run

from offline_cql.callbacks import evaluation
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.load_run import load_config
from offline_cql.errors import ConfigError, SimulatorError
from offline_cql.io import read_json
from offline_cql.runs.folder import CsvFile, saved_updates, truncate_logs
from offline_cql.simulation.isolation import run_isolated

pytestmark = pytest.mark.usefixtures("recorded")

BASE = tuple(key for key in TINY if key != "evaluation=none")
RUN = (*BASE, "updates=20", "evaluation.every=10")
# Each fault, and a part of the reason that is recorded.
FAULTS = {
    "raise": "RuntimeError('the simulator broke')",
    "exit": "ended its process (exit code 3)",
    "crash": "ended its process (SIGKILL)",
    "hang": "was stopped after 1 s; raise evaluation.time_limit",
    "slow": "was stopped after 1 s; raise evaluation.time_limit",
    "observation": "returned an observation with NaN or infinity",
    "large": "returned an observation with NaN or infinity",
    "reward": "returned the reward nan",
    "shape": "returned an observation of shape (2,), expected (3,)",
    "garbage": "returned the reward None",
}


@pytest.fixture(scope="module")
def sound(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train 20 updates with a sound simulator; return the run folder."""
    return train_run(tmp_path_factory.mktemp("sound") / "run", *RUN, *with_fault(None))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_simulator_changes_nothing_but_the_score(
    fault: str, sound: Path, tmp_path: Path, capsys: Any
):
    """Step 2 of each episode fails: both evaluations are recorded, the training is finished."""
    run = train_run(tmp_path / "run", *RUN, *with_fault(fault), "evaluation.time_limit=1")
    result = read_json(run / "result.json")
    assert (result["status"], result["updates"], result["episodes"]) == ("finished", 20, 0)
    assert result["return_mean"] is None
    assert result["evaluation_error"].startswith("update 20: ")
    failures = rows(run / "evaluation_failures.csv")
    assert [row["update"] for row in failures] == ["10", "20"]
    assert all(FAULTS[fault] in row["error"] for row in failures)
    assert not (run / "evaluation.csv").exists()
    assert "warning: the evaluation after 20 updates failed" in capsys.readouterr().err
    assert differences(load_learned(sound), load_learned(run)) == []


def test_a_sound_simulator_has_no_failures(sound: Path):
    """Rewards of 1 in 3 steps: both episodes of both evaluations return 3."""
    assert [row["return"] for row in rows(sound / "evaluation.csv")] == ["3.0"] * 4
    assert not (sound / "evaluation_failures.csv").exists()
    assert read_json(sound / "result.json")["evaluation_error"] is None


def test_the_checkpoint_is_on_the_disk_before_the_rollouts(tmp_path: Path, monkeypatch: Any):
    """Also where checkpoint_every says nothing: at 10, with checkpoints every 100."""
    folder, saved = tmp_path / "run", []
    play = EvaluationCallback.assess

    def note(callback: EvaluationCallback, *arguments: Any) -> None:
        saved.append(saved_updates(folder))
        play(callback, *arguments)

    monkeypatch.setattr(EvaluationCallback, "assess", note)
    train_run(folder, *RUN, *with_fault(None))
    assert saved == [[10], [10, 20]]


def test_a_missing_evaluation_is_made_on_resume_and_a_complete_one_is_not(
    sound: Path, tmp_path: Path, monkeypatch: Any
):
    """Killed in the rollouts at 20: three of four rows of the file were written, or all."""
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    (run / "result.json").unlink()
    content = (run / "evaluation.csv").read_bytes()
    lines = content.splitlines(keepends=True)
    (run / "evaluation.csv").write_bytes(b"".join(lines[:4]) + b"20,1,7")
    resume_run(run)
    assert (run / "evaluation.csv").read_bytes() == content
    (run / "result.json").unlink()
    monkeypatch.delattr(evaluation, "evaluate")  # it would be called
    resume_run(run)
    assert (run / "evaluation.csv").read_bytes() == content
    assert read_json(run / "result.json")["return_mean"] == 3.0


def test_rows_of_a_later_update_are_removed(tmp_path: Path):
    """A checkpoint of update 10 with two episodes: their rows stay, those of update 20 go."""
    file = CsvFile(tmp_path / "evaluation.csv")
    file.append([{"update": update, "episode": k} for update in (10, 20) for k in (0, 1)])
    keep = b"update,episode\r\n10,0\r\n10,1\r\n"
    truncate_logs(tmp_path, {"evaluation.csv": 0}, update=10, rows={"evaluation.csv": 2})
    assert file.path.read_bytes() == keep
    truncate_logs(tmp_path, {"evaluation.csv": 0}, update=10, rows={"evaluation.csv": 3})
    assert file.path.read_bytes() == b""


# --- Resume -------------------------------------------------------------------------------------


def test_a_run_is_resumed_without_its_simulator(sound: Path, tmp_path: Path):
    """evaluation=none: 20 more updates, no episode more, the same weights."""
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    resume_run(run, "updates=40", "evaluation=none")
    assert read_json(run / "metadata.json")["resumed_with"] == {
        "updates": 40,
        "evaluation": {"episodes": 0},
    }
    assert load_config(run).evaluation.every == 10  # the run's, not that of the option
    assert len(rows(run / "evaluation.csv")) == 4
    whole = train_run(tmp_path / "whole", *TINY, "updates=40")
    assert differences(load_learned(whole), load_learned(run)) == []


def test_settings_that_change_no_weight_may_change(sound: Path, tmp_path: Path):
    """Rows at 25, 30, …; checkpoints, evaluations and blocks elsewhere; the weights are equal."""
    run = Path(shutil.copytree(sound, tmp_path / "run"))
    changes = ("log_every=5", "checkpoint_every=7", "evaluation.every=40", "logger=tensorboard")
    resume_run(run, "updates=40", *changes, "hardware.updates_per_step=3")
    updates = [row["update"] for row in rows(run / "metrics.csv")]
    assert updates == ["10", "20", "25", "30", "35", "40"]
    whole = train_run(tmp_path / "whole", *TINY, "updates=40")
    assert differences(load_learned(whole), load_learned(run)) == []
    resume_run(run, "updates=41")
    assert load_config(run).log_every == 5  # kept from then on


@pytest.mark.parametrize("override", ["gamma=0.9", "hardware.precision=bf16", "cql=plain"])
def test_settings_that_change_weights_are_refused(override: str, sound: Path):
    with pytest.raises(ConfigError, match=r"cannot be changed with resume=.*these may change"):
        resume_run(sound, "updates=40", override)


# --- Commands in the foreground -------------------------------------------------------------------


def test_evaluate_reports_a_faulty_simulator_in_one_line(tmp_path: Path):
    """It has exit code 1, as every SimulatorError."""
    run = train_run(tmp_path / "run", *RUN, *with_fault("crash"))
    overrides = (f"run={run}", "evaluation.episodes=1", "evaluation.environments=1")
    with pytest.raises(SimulatorError, match=r"ended its process \(SIGKILL\)"):
        evaluate(compose_config(*overrides, entry_point="evaluate"))


def double_of_served(call: Any) -> int:
    """Ask the parent for 1 + 2, and return the double."""
    return 2 * int(call(1, 2))


def test_work_is_done_elsewhere_and_its_calls_here():
    assert run_isolated(double_of_served, lambda a, b: a + b, time_limit=10) == 6
