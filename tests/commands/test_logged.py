"""Guarantee: a log file is enough to train on, without a simulator, for both kinds of actions."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.builders import differences
from support.config import CONF, compose_config, run_entry_point
from support.train import load_learned, resume_run, rows, train_run

from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.summary import print_run
from offline_cql.commands.train import validate
from offline_cql.config import TrainConfig, reject_unused_overrides, validate_config
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import read_json
from offline_cql.readers.table.inference import infer_columns

SHORT = (
    *("env=logged", "dataset=table", "logger=csv", "hardware=cpu", "hardware.updates_per_step=10"),
    *("batch_size=16", "log_every=10", "checkpoint_every=20", "updates=20"),
    "network.critic_hidden=[16,16]",
)
CONTINUOUS = ("cql.n_action_samples=2", "network.actor_hidden=[16,16]", "cql.bc_updates=10")
KINDS = {"logs": CONTINUOUS, "levels": ()}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six days of the documentation's example logs; return their folder."""
    folder = tmp_path_factory.mktemp("logs")
    command = [sys.executable, "scripts/make_example_logs.py", str(folder), "--days", "6"]
    process = subprocess.run(command, cwd=CONF.parent, check=True, capture_output=True, text=True)
    assert "576 steps" in process.stdout
    return folder


def overrides_for(logs: Path, name: str, *overrides: str) -> tuple[str, ...]:
    """Return the command line that trains on a file with its inferred columns."""
    path = logs / f"{name}.parquet"
    kind = KINDS[name] if "algorithm=bc" not in overrides else ()
    return (
        *SHORT,
        *kind,
        f"dataset.path={path}",
        *infer_columns(str(path)).overrides(),
        *overrides,
    )


@pytest.fixture(scope="module", params=list(KINDS))
def finished(request: Any, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return train_run(folder, *overrides_for(logs, request.param))


def test_cql_learns_from_a_file(finished: Path):
    result = read_json(finished / "result.json")
    assert result["status"] == "finished"
    assert result["updates"] == 20
    assert result["return_mean"] is None
    assert result["behavior_return"] < 0
    assert [row["update"] for row in rows(finished / "metrics.csv")] == ["10", "20"]
    assert not (finished / "evaluation.csv").exists()


@pytest.mark.parametrize("name", list(KINDS))
def test_behavior_cloning_learns_from_a_file(name: str, logs: Path, tmp_path: Path):
    folder = train_run(tmp_path / "run", *overrides_for(logs, name, "algorithm=bc"))
    assert read_json(folder / "result.json")["status"] == "finished"


def test_a_run_resumes_exactly(finished: Path, logs: Path, tmp_path: Path):
    """The decays of both end at update 20: by default they end with the planned updates."""
    name = "logs" if "logs" in finished.parent.name else "levels"
    short = overrides_for(logs, name, "updates=10", "cql.decay_until=20")
    folder = resume_run(train_run(tmp_path / "run", *short), "updates=20")
    assert differences(load_learned(folder), load_learned(finished)) == []


def test_the_result_table_has_no_return_without_a_simulator(
    finished: Path, capsys: pytest.CaptureFixture[str]
):
    settings = validate_config(TrainConfig, compose_config(*SHORT, "dataset.path=x"))
    print_run(finished, settings, read_json(finished / "result.json"))
    output = capsys.readouterr().out
    assert "behavior return (data)" in output
    assert "policy return" not in output
    assert f"next    python evaluate.py run={finished} ope=fqe evaluation.episodes=0" in output


def test_rollouts_need_a_simulator(finished: Path):
    with pytest.raises(ConfigError, match="env=logged, which has no simulator"):
        evaluate(compose_config(f"run={finished}", entry_point="evaluate"))


def settings_of(*overrides: str) -> TrainConfig:
    return validate(compose_config(*overrides), [])[0]


def test_a_continuous_setting_of_a_discrete_agent_is_refused_only_as_an_override(logs: Path):
    settings = settings_of(*overrides_for(logs, "levels"))
    assert settings.cql.bc_updates > 0  # conf/env/logged.yaml: nobody typed it
    reject_unused_overrides(settings, list(overrides_for(logs, "levels")), discrete=True)
    with pytest.raises(ConfigError, match=r"cql\.bc_updates=10 has no effect"):
        reject_unused_overrides(settings, ["cql.bc_updates=10"], discrete=True)


def test_data_that_do_not_fit_the_simulator_are_refused(logs: Path):
    """Pendulum has three observations and one action within ±2; the logs have four columns."""
    pendulum = ("env=pendulum", "evaluation=none", *overrides_for(logs, "logs")[1:])
    with pytest.raises(DataError, match=r"matches 4 columns .* the simulator has 3"):
        settings_of(*pendulum)
    three = "dataset.columns.observation=[temperature,hour_sin,hour_cos]"
    _, data = validate(compose_config(*pendulum, three), [])
    assert (data.spaces.action_low, data.spaces.action_high) == ((-2.0,), (2.0,))


@pytest.mark.slow
def test_the_command_trains_on_a_file_and_names_a_wrong_column(logs: Path, tmp_path: Path):
    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        return run_entry_point("train", *overrides_for(logs, "levels", *overrides))

    process = run(f"run_dir={tmp_path}/run")
    assert process.returncode == 0, process.stderr
    assert "policy return" not in process.stdout
    wrong = run("dataset.columns.reward=rewards")
    assert wrong.returncode == 2
    assert "error: " in wrong.stderr
    assert "did you mean reward?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
