"""Guarantee: "finished" means that all updates are done and saved; all else has its reason.

A failure after the folder was created leaves result.json with the reason, a killed run gets it from
the next command, and no output turns a finished run into a failed command.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.builders import differences
from support.config import CONF, compose_config, run_entry_point
from support.train import TINY, load_learned, resume_run, rows, train_run, wait_for

from offline_cql.commands.evaluate import evaluate
from offline_cql.errors import IncompleteRunError
from offline_cql.io import locked, read_json
from offline_cql.runs.checkpoint import check_complete
from offline_cql.runs.folder import CsvFile, state_path
from offline_cql.runs.result import KILLED, record_killed, recorded_failure

pytestmark = pytest.mark.usefixtures("recorded")

RUN = (*TINY, "updates=10")
ONE_EPISODE = ("evaluation.episodes=1", "evaluation.environments=1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Train 10 updates; return the run folder."""
    return train_run(tmp_path / "run", *RUN)


# --- Finished -----------------------------------------------------------------------------------


def test_a_run_is_complete_with_all_updates_and_their_checkpoint(run: Path):
    """10 of 10 updates and an intact checkpoint of the 10th: anything less is not finished."""
    check_complete(run, done=10, updates=10)
    with pytest.raises(IncompleteRunError, match="after 10 of 20 updates"):
        check_complete(run, done=10, updates=20)
    with pytest.raises(IncompleteRunError, match="after 20 of 20 updates"):
        check_complete(run, done=20, updates=20)
    checkpoint = state_path(run, 10)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(IncompleteRunError, match=r"continue with: python train\.py resume="):
        check_complete(run, done=10, updates=10)


# --- Failures -----------------------------------------------------------------------------------


def test_a_failure_before_the_first_update_is_recorded(tmp_path: Path):
    """A billion sampled actions are 64 GB: the error is in result.json, with every key."""
    others = [key for key in RUN if not key.startswith("cql.n_action_samples")]
    huge = "cql.n_action_samples=1000000000"
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever torch raises
        train_run(tmp_path / "run", *others, huge)
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["status"], result["updates"]) == ("failed", 0)
    assert str(caught.value) in result["error"]
    assert list(result) == list(read_json(train_run(tmp_path / "other", *RUN) / "result.json"))


def test_an_interrupt_is_recorded_and_a_recorded_result_is_kept(run: Path):
    with pytest.raises(KeyboardInterrupt), recorded_failure(run):
        raise KeyboardInterrupt
    assert read_json(run / "result.json")["status"] == "finished"
    (run / "result.json").unlink()
    with pytest.raises(KeyboardInterrupt), recorded_failure(run):
        raise KeyboardInterrupt
    result = read_json(run / "result.json")
    assert (result["status"], result["error"], result["updates"]) == ("failed", "interrupted", 10)


def test_the_next_command_records_that_a_run_was_killed(run: Path, tmp_path: Path):
    """Killed after its last checkpoint: evaluate says so, and resume makes it finished."""
    before = load_learned(run)
    (run / "result.json").unlink()
    evaluate(compose_config(f"run={run}", *ONE_EPISODE, entry_point="evaluate"))
    result = read_json(run / "result.json")
    assert (result["status"], result["error"], result["updates"]) == ("failed", KILLED, 10)
    resume_run(run)
    assert read_json(run / "result.json")["status"] == "finished"
    assert differences(before, load_learned(run)) == []
    assert [row["update"] for row in rows(run / "metrics.csv")] == ["10"]


def test_a_run_in_progress_is_not_recorded_as_killed(run: Path):
    """The process that trains holds the folder."""
    (run / "result.json").unlink()
    with locked(run):
        record_killed(run)
        assert not (run / "result.json").exists()
    record_killed(run)
    assert read_json(run / "result.json")["status"] == "failed"


# --- Output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["closed pipe", "full disk"])
def test_output_that_cannot_be_written_fails_no_finished_run(target: str, tmp_path: Path):
    """`train.py | head -1`, `train.py > /dev/full`: exit 0, finished."""
    folder = tmp_path / "run"
    command = [sys.executable, "train.py", *TINY, "updates=400", f"run_dir={folder}"]
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(
            command,
            cwd=CONF.parent,
            stdout=subprocess.PIPE if target == "closed pipe" else full,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        wait_for(lambda: CsvFile(folder / "metrics.csv").size() > 0, process)
        if process.stdout is not None:
            process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
        code = process.wait(timeout=300)
    assert read_json(folder / "result.json")["status"] == "finished"
    assert (code, "Traceback" in error) == (0, False), error


def test_a_narrow_encoding_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """ASCII has neither the table's lines nor ±."""
    monkeypatch.setitem(os.environ, "PYTHONIOENCODING", "ascii")
    process = run_entry_point("train", *RUN, f"run_dir={tmp_path}/run")
    assert process.returncode == 0, process.stderr
    assert read_json(tmp_path / "run" / "result.json")["status"] == "finished"
