"""Guarantee: loggers get what metrics.csv gets, and neither stop nor delay a run.

W&B's runs are offline here and are read back with its own program.
"""

import csv
import importlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from pytorch_lightning.loggers import Logger
from support.config import settings
from support.offline_wandb import of_kind, offline_runs
from support.train import TINY, train_run

from offline_cql.callbacks import loggers
from offline_cql.callbacks.loggers import GuardedLogger, Service, make_loggers
from offline_cql.commands.fit import start_loggers
from offline_cql.config.unused import LOGGERS
from offline_cql.errors import ConfigError
from offline_cql.io import write_json
from offline_cql.runs.wandb_run import RunInfo

DATASET = {"dataset": {"id": "sim/a-v0", "sha256": "0"}}


def info(folder: Path, **changes: Any) -> RunInfo:
    values = dict.fromkeys(("grid", "entity", "group", "name", "job_type", "notes"))
    values |= {"folder": folder, "config": {}, "run_id": "00000001", "project": "tests"}
    return RunInfo(**(values | {"tags": ["a", "b"]} | changes))


@pytest.fixture(autouse=True)
def fresh_settings() -> None:
    """Let W&B read variables and settings files again, which it does once per process."""
    import wandb

    wandb.teardown()


# --- W&B ------------------------------------------------------------------------------------------


def log_gaps(name: str, run: RunInfo, *gaps: float, status: str = "finished") -> None:
    """Log a gap at updates 100, 200, … and finish."""
    (logger,) = make_loggers([name], run)
    for number, gap in enumerate(gaps, start=1):
        logger.log_metrics({"critic/gap": gap}, step=100 * number)
    logger.finish({"status": status, "return_mean": 3.0}, succeeded=status == "finished")


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the records of the one offline W&B run in a run folder."""
    (run,) = offline_runs(folder)
    return of_kind(run, kind)


def metric_values(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Return the (update, value) pairs of a metric in an offline W&B run."""
    items = [row["item"] for row in records(folder, "history")]
    return [(item["update"], item[metric]) for item in items if metric in item]


def test_two_jobs_of_one_process_are_two_runs_at_wandb(tmp_path: Path):
    """The first succeeds, the second fails; each holds its own numbers."""
    for number, status in ((1, "finished"), (2, "failed")):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        names = {"run_id": f"0000000{number}", "group": "grid"}
        run = info(folder, config={"seed": number}, **names)
        log_gaps("wandb", run, 0.5 * number, 2.0, status=status)
    first, second = tmp_path / "run1", tmp_path / "run2"
    (run,) = records(first, "run")
    assert (run["run_id"], run["run_group"], run["tags"]) == ("00000001", "grid", ["a", "b"])
    assert (run["display_name"], run["project"]) == ("run1", "tests")
    assert run["config"]["update"]["seed"] == 1
    assert metric_values(first, "critic/gap") == [(100, 0.5), (200, 2.0)]
    assert metric_values(second, "critic/gap") == [(100, 1.0), (200, 2.0)]
    steps = {metric.get("step_metric") for metric in records(first, "metric")}
    assert steps == {None, "update"}
    summaries = [summary["update"] for summary in records(first, "summary")]
    assert {"result/return_mean": 3, "result/status": "finished"} in summaries
    exits = [*records(first, "exit"), *records(second, "exit")]
    assert [record.get("exit_code", 0) for record in exits] == [0, 1]
    assert [record["run_id"] for record in records(second, "run")] == ["00000002"]


def test_an_open_wandb_run_of_the_process_is_not_used(tmp_path: Path, monkeypatch: Any):
    """Lightning's logger would write into `wandb.run`, which belongs to somebody else."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    other, folder = tmp_path / "other", tmp_path / "run"
    other.mkdir()
    folder.mkdir()
    with wandb.init(project="other", dir=other, mode="offline"):
        log_gaps("wandb", info(folder), 1.0)
    assert metric_values(folder, "critic/gap") == [(100, 1.0)]
    assert not [row for row in records(other, "history") if "critic/gap" in row["item"]]


@pytest.mark.usefixtures("recorded")
def test_wandb_gets_the_rows_of_metrics_csv_in_a_run(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = [key for key in TINY if key != "logger=csv"]
    folder = train_run(tmp_path / "run", *settings, "logger=wandb", "updates=20")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(int(row["update"]), float(row["critic/gap"])) for row in rows]
    assert metric_values(folder, "critic/gap") == expected
    items = [row["item"] for row in records(folder, "history")]
    metrics = {name for item in items for name in item if not name.startswith(("_", "result"))}
    assert metrics == set(rows[0])  # and nothing that Lightning added


def test_wandb_has_what_is_configured_then_what_its_variables_say(tmp_path: Path, monkeypatch: Any):
    """Without either: the project offline-cql, the grid as group, the folder's name."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    variables = ("PROJECT", "ENTITY", "RUN_GROUP", "NAME", "NOTES", "JOB_TYPE", "TAGS")
    typed = dict(project="P", entity="E", group="G", name="N", notes="n", job_type="J")
    keys = ("project", "entity", "run_group", "display_name", "notes", "job_type")

    def logged(folder: Path, **values: Any) -> tuple[Any, ...]:
        folder.mkdir()
        wandb.teardown()  # it reads variables once per process
        log_gaps("wandb", info(folder, grid="grid", tags=["a"], **values), 1.0)
        (run,) = records(folder, "run")
        return *(run.get(key) for key in keys), sorted(run["tags"])

    first = logged(tmp_path / "first", project=None)
    assert first == ("offline-cql", None, "grid", "first", None, None, ["a"])
    for name in variables:
        monkeypatch.setenv(f"WANDB_{name}", name.lower())
    own = ("project", "entity", "run_group", "name", "notes", "job_type", ["a", "tags"])
    assert logged(tmp_path / "second", project=None) == own
    assert logged(tmp_path / "third", **typed) == ("P", "E", "G", "N", "n", "J", ["a", "tags"])


def test_loggers_get_the_names_of_the_settings_and_the_hash_of_the_data(
    tmp_path: Path, monkeypatch: Any
):
    infos: list[RunInfo] = []
    monkeypatch.setattr(
        "offline_cql.commands.fit.make_loggers", lambda _names, info: infos.append(info)
    )
    write_json(tmp_path / "metadata.json", DATASET | {"wandb_id": "00000001", "grid": "grid"})
    typed = ("logger.group=mine", "logger.name=night", "logger.job_type=train", "logger.notes=hot")
    start_loggers(settings("hardware=cpu", "logger=wandb", *typed), tmp_path)
    (run,) = infos
    assert (run.group, run.grid, run.name, run.job_type) == ("mine", "grid", "night", "train")
    assert (run.notes, run.project) == ("hot", None)
    assert run.config["data"] == DATASET["dataset"]


def test_a_server_that_cannot_be_reached_means_offline(
    tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """W&B waits as long as configured, then the run is logged offline under the same id."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("offline_cql.runs.wandb_run.WANDB_INIT_TIMEOUT", 1.0)
    log_gaps("wandb", info(tmp_path, run_id="0000000a"), 1.0)
    error = capsys.readouterr().err
    assert "warning: W&B could not be reached" in error
    assert f"Upload later with: wandb sync {tmp_path}/wandb/offline-*" in error
    assert [run["run_id"] for run in records(tmp_path, "run")] == ["0000000a"]
    assert metric_values(tmp_path, "critic/gap") == [(100, 1.0)]


def test_a_malformed_key_means_offline(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    log_gaps("wandb", info(tmp_path, run_id="0000000b"))
    assert "logging offline" in capsys.readouterr().err
    assert [run["run_id"] for run in records(tmp_path, "run")] == ["0000000b"]


# --- The guard ------------------------------------------------------------------------------------


class RaisingLogger(Logger):
    """A logger that raises in every method that Lightning or a callback calls."""

    def fail(self, *_args: Any, **_options: Any) -> Any:
        raise ConnectionResetError("connection lost\nand more lines")

    name = version = experiment = save_dir = property(fail)
    log_metrics = log_hyperparams = log_graph = save = finalize = after_save_checkpoint = fail


def fail_to_start(_info: RunInfo) -> Logger:
    raise ConnectionRefusedError("no server")


WARNING = "warning: Test failed ({}); the run continues, metrics.csv is complete\n"
RAISING = pytest.mark.parametrize(
    ("start", "reason"),
    [(lambda _info: RaisingLogger(), "connection lost"), (fail_to_start, "no server")],
    ids=["every call", "start"],
)


def service(start: Callable[[RunInfo], Logger]) -> Service:
    """Return a service that starts as given and raises at its end."""
    return Service("Test", "json", start, RaisingLogger.fail)


@pytest.mark.usefixtures("recorded")
@RAISING
def test_a_logger_that_raises_stops_no_run(
    start: Any, reason: str, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """One warning, and the run ends as it would have."""
    monkeypatch.setattr(
        "offline_cql.commands.fit.make_loggers",
        lambda _names, info: [GuardedLogger(service(start), info)],
    )
    folder = train_run(tmp_path / "run", *TINY, "updates=20")
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    assert capsys.readouterr().err.count("warning: Test failed") == 1


@RAISING
def test_the_first_failure_is_reported_in_one_line(
    start: Any, reason: str, tmp_path: Path, capsys: Any
):
    logger = GuardedLogger(service(start), info(tmp_path))
    logger.log_metrics({"critic/gap": 1.0}, step=100)
    logger.log_metrics({"critic/gap": 1.0}, step=200)
    logger.finish({}, succeeded=True)
    assert capsys.readouterr().err == WARNING.format(reason)


def test_a_logger_that_hangs_delays_only_the_end_of_a_run(
    tmp_path: Path, monkeypatch: Any, capsys: Any
):
    """Neither the start nor a metric waits; the end waits for CLOSE_TIMEOUT."""
    monkeypatch.setattr(loggers, "CLOSE_TIMEOUT", 0.05)
    released = threading.Event()

    def hang(_info: RunInfo) -> Logger:
        released.wait()
        return RaisingLogger()

    logger = GuardedLogger(service(hang), info(tmp_path))
    logger.log_metrics({"critic/gap": 1.0}, step=100)
    logger.finish({}, succeeded=True)
    assert capsys.readouterr().err == WARNING.format("no answer within 0 s")
    released.set()


def test_lightnings_own_calls_do_not_reach_a_logger(tmp_path: Path, capsys: Any):
    logger = GuardedLogger(
        Service("Test", "json", lambda _info: RaisingLogger(), lambda *_: None), info(tmp_path)
    )
    assert not hasattr(logger, "experiment")
    logger.log_hyperparams({"seed": 1})
    logger.log_graph(None)
    logger.save()
    logger.after_save_checkpoint(None)
    logger.finalize("success")
    logger.finish({}, succeeded=True)
    assert capsys.readouterr().err == ""


# --- The list of loggers --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "comet"])
def test_a_missing_package_names_its_extra(name: str, tmp_path: Path, monkeypatch: Any):
    def missing(package: str) -> Any:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(importlib, "import_module", missing)
    message = rf"logger={name} needs an extra: pip install 'offline-cql\[{name}\]'"
    with pytest.raises(ConfigError, match=message):
        make_loggers([name], info(tmp_path))


@pytest.mark.parametrize("name", list(LOGGERS))
def test_a_logger_reads_the_settings_that_config_names_for_it(
    name: str, tmp_path: Path, monkeypatch: Any
):
    for package in ("wandb", "comet_ml"):
        monkeypatch.setitem(sys.modules, package, MagicMock())
    sys.modules["wandb"].init.return_value.id = info(tmp_path).run_id
    for logger in ("WandbUpdateLogger", "TensorBoardLogger", "MLFlowLogger", "CometLogger"):
        monkeypatch.setattr(loggers, logger, MagicMock())
    monkeypatch.setenv("WANDB_MODE", "offline")
    read: set[str] = set()

    class RecordingInfo:
        def __getattr__(self, setting: str) -> Any:
            read.add(setting)
            return getattr(info(tmp_path), setting)

    loggers.SERVICES[name].start(RecordingInfo())  # type: ignore[arg-type]
    assert read - {"folder", "config", "run_id", "grid"} == set(LOGGERS[name]) - {
        "artifacts"
    }  # at the end


def test_two_loggers_receive_the_same_metrics(tmp_path: Path, monkeypatch: Any):
    """W&B and TensorBoard side by side; TensorBoard holds values by update, and the result."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    both = make_loggers(["wandb", "tensorboard"], info(tmp_path, config={"seed": 1}))
    for logger in both:
        logger.log_metrics({"critic/gap": 1.5}, step=100)
        logger.log_metrics({"critic/gap": 2.5}, step=200)
    for logger in both:
        logger.finish({"status": "finished"}, succeeded=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["critic/gap"]
    assert [(e.step, e.value) for e in events.Scalars("critic/gap")] == [(100, 1.5), (200, 2.5)]
    assert metric_values(tmp_path, "critic/gap") == [(100, 1.5), (200, 2.5)]


def test_mlflow_logs_into_the_run_folder(tmp_path: Path, monkeypatch: Any):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_gaps("mlflow", info(tmp_path, config={"cql": {"alpha": 5.0}}), 1.5)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert (run.info.status, run.data.params["cql/alpha"]) == ("FINISHED", "5.0")
    (point,) = client.get_metric_history(run.info.run_id, "critic/gap")
    assert (point.step, point.value) == (100, 1.5)


def test_with_csv_alone_no_logger_is_started(tmp_path: Path):
    config = settings("hardware=cpu", "logger=csv")
    write_json(tmp_path / "metadata.json", DATASET)
    assert start_loggers(config, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.json"]
