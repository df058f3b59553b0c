"""Promise: W&B and TensorBoard get what metrics.csv gets, and never stop or delay a run.

W&B's runs are offline here and are read back with its own program.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.config import settings

from offline_cql.callbacks.loggers import WandbMirror, make_mirrors, wandb_mode
from offline_cql.commands.fit import rank_zero_mirrors
from offline_cql.config import LoggerConfig
from offline_cql.io import write_json

NETRC = "machine api.wandb.ai login user password {key}\n".format(key="0" * 40)


def logger(kind: str = "wandb", **changes: Any) -> LoggerConfig:
    given = {"project": "tests", "entity": None, "group": None, "tags": ["a", "b"]}
    return LoggerConfig(kind=kind, **(given | changes))


# --- Online or offline ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, None, "disabled"),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k"}, None, "offline"),
        ({"WANDB_API_KEY": "k"}, None, "online"),
        ({}, NETRC, "online"),
        ({}, NETRC.replace("api.wandb.ai", "other.host"), "offline"),
        ({"WANDB_BASE_URL": "https://other.host"}, NETRC, "offline"),
        ({}, "this is no netrc file", "offline"),
    ],
)
def test_online_only_with_a_key(
    environment: dict[str, str], netrc: str | None, mode: str, tmp_path: Path, monkeypatch: Any
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    assert wandb_mode() == mode


def test_the_home_folder_is_searched_for_a_key(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode() == "offline"
    (tmp_path / ".netrc").write_text(NETRC)
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode() == "online"


# --- W&B ------------------------------------------------------------------------------------------


def inspected(folder: Path) -> list[dict[str, Any]]:
    """The records of the one offline run in a run folder."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    program = Path(sys.executable).with_name("wandb")
    found = subprocess.run(
        [program, "leet", "inspect", "--json", run], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in inspected(folder) if record["type"] == kind]


def test_two_jobs_of_one_process_are_two_runs_at_wandb(tmp_path: Path):
    """The first ends well, the second badly; each holds its own numbers."""
    for number, status in ((1, "finished"), (2, "failed")):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        mirror = WandbMirror(
            logger(),
            folder,
            config={"seed": number},
            run_id=f"0000000{number}",
            group="grid",
            tags=["hopper"],
        )
        mirror.log({"critic/gap": 0.5 * number}, 100)
        mirror.log({"critic/gap": 2.0}, 200)
        mirror.finish({"status": status, "return_mean": 3.0}, exit_code=number - 1)
    first, second = (inspected(tmp_path / f"run{number}") for number in (1, 2))
    run = next(record["run"] for record in first if record["type"] == "run")
    assert (run["run_id"], run["run_group"], run["tags"]) == (
        "00000001",
        "grid",
        ["a", "b", "hopper"],
    )
    assert (run["display_name"], run["project"]) == ("run1", "tests")
    assert run["config"]["update"]["seed"] == 1
    points = [
        {key: row["history"]["item"][key] for key in ("update", "critic/gap")}
        for row in first
        if row["type"] == "history" and "critic/gap" in row["history"]["item"]
    ]
    assert points == [{"update": 100, "critic/gap": 0.5}, {"update": 200, "critic/gap": 2}]
    metrics = [record["metric"] for record in first if record["type"] == "metric"]
    assert {metric.get("step_metric") for metric in metrics} == {None, "update"}
    summaries = [record["summary"]["update"] for record in first if record["type"] == "summary"]
    assert {"result/return_mean": 3, "result/status": "finished"} in summaries
    exits = [
        record["exit"].get("exit_code", 0) for record in first + second if record["type"] == "exit"
    ]
    assert exits == [0, 1]
    assert next(r["run"] for r in second if r["type"] == "run")["run_id"] == "00000002"


def test_a_configured_group_goes_before_the_grid(tmp_path: Path, monkeypatch: Any):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "disabled")
    given: list[dict[str, Any]] = []
    init = wandb.init

    def noted(**options: Any) -> Any:
        given.append(options)
        return init(**options)

    monkeypatch.setattr(wandb, "init", noted)
    for group in ("mine", None):
        mirror = WandbMirror(
            logger(group=group), tmp_path, config={}, run_id="00000001", group="grid", tags=[]
        )
        mirror.finish({}, exit_code=0)
    assert [options["group"] for options in given] == ["mine", "grid"]


def test_a_server_that_cannot_be_reached_means_offline(
    tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """W&B waits as long as it was told to, then the run is logged offline under the same id."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("offline_cql.callbacks.loggers.INIT_TIMEOUT", 1.0)
    started = time.monotonic()
    mirror = WandbMirror(logger(), tmp_path, config={}, run_id="0000000a", group=None, tags=[])
    mirror.log({"critic/gap": 1.0}, 100)
    mirror.finish({"status": "finished"}, exit_code=0)
    assert time.monotonic() - started < 100
    error = capsys.readouterr().err
    assert "warning: W&B could not be reached" in error
    assert f"later: wandb sync {tmp_path}/wandb/offline-*" in error
    assert [run["run_id"] for run in records(tmp_path, "run")] == ["0000000a"]


def test_a_malformed_key_means_offline(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    mirror = WandbMirror(logger(), tmp_path, config={}, run_id="0000000b", group=None, tags=[])
    mirror.finish({"status": "finished"}, exit_code=0)
    assert "logging offline" in capsys.readouterr().err
    assert [run["run_id"] for run in records(tmp_path, "run")] == ["0000000b"]


def test_a_service_that_dies_stops_no_run(tmp_path: Path, monkeypatch: Any, capsys: Any):
    """Every call fails from the first on: one warning, and the run ends as it would have."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mirror = WandbMirror(logger(), tmp_path, config={}, run_id="0000000c", group=None, tags=[])

    def gone(*_args: Any, **_options: Any) -> None:
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(mirror.run, "log", gone)
    mirror.log({"critic/gap": 1.0}, 100)
    mirror.log({"critic/gap": 1.0}, 200)
    mirror.finish({"status": "finished"}, exit_code=0)
    warning = "warning: W&B stopped (Connection lost); metrics.csv goes on\n"
    assert capsys.readouterr().err == warning


# --- TensorBoard, csv, none -----------------------------------------------------------------------


def test_tensorboard_gets_an_event_file(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (mirror,) = make_mirrors(
        logger("tensorboard"), tmp_path, config={}, run_id=None, group=None, tags=[]
    )
    mirror.log({"critic/gap": 1.5}, 100)
    mirror.log({"critic/gap": 2.5}, 200)
    mirror.finish({"status": "finished"}, exit_code=0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("critic/gap")] == [(100, 1.5), (200, 2.5)]


@pytest.mark.parametrize("kind", ["csv", "none"])
def test_no_mirror_writes_nothing(kind: str, tmp_path: Path):
    config = settings("hardware=cpu", f"logger={kind}")
    write_json(tmp_path / "metadata.json", {"wandb_id": None, "grid": None})
    assert rank_zero_mirrors(config, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.json"]
