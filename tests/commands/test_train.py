"""Guarantee: a run leaves a folder with its settings and its result, however it ends."""

import csv
import importlib.metadata
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from support.builders import differences
from support.config import CONF, compose_config
from support.train import (
    DISCRETE,
    TINY,
    entry_point,
    load_learned,
    resume_run,
    rows,
    train_run,
    wait_for,
)

from offline_cql.commands.collect import collect
from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.load_run import load_config
from offline_cql.commands.train import train, validate
from offline_cql.data.dataset import make_dataset
from offline_cql.data.split import train_on_all
from offline_cql.errors import ConfigError, DivergedError
from offline_cql.io import read_json
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import CsvFile

pytestmark = pytest.mark.usefixtures("recorded")

ROLLOUTS = ("evaluation=default", "evaluation.episodes=4", "evaluation.environments=2")
METRICS_PAGE = (CONF.parent / "docs" / "metrics.md").read_text()


def run_train(*overrides: str) -> float | None:
    """Run `python train.py <overrides>`, without the check of its command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    try:
        with open_dict(config):
            del config["hydra"]
        return train(config)
    finally:
        HydraConfig.instance().cfg = None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> tuple[Path, float]:
    """Train 20 updates with two evaluations; return the run folder and what train() returned."""
    folder = tmp_path_factory.mktemp("finished") / "2026-11-21_00-00-00-seed0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEED", "7")
        value = run_train(
            *(*TINY, *ROLLOUTS, "evaluation.every=10", "updates=20", f"run_dir={folder}"),
            "seed=${oc.env:SEED}",
        )
    assert value is not None
    return folder, value


def test_config_yaml_has_no_interpolation(finished: Any):
    """Everything is a value, so that neither later defaults nor another shell change the run."""
    text = (finished[0] / "config.yaml").read_text()
    assert "seed: 7" in text
    assert "${" not in text
    assert f"run_dir: {finished[0]}" in text


def test_metadata_describe_code_data_and_machine(finished: Any):
    metadata = read_json(finished[0] / "metadata.json")
    assert {"created", "command", "grid", "commit", "versions", "hardware", "dataset"} <= set(
        metadata
    )
    assert metadata["versions"]["torch"] == importlib.metadata.version("torch")
    assert metadata["dataset"]["id"] == "sim/pendulum/mixed_2000-v0"
    assert re.fullmatch("[0-9a-f]{64}", metadata["dataset"]["sha256"])
    assert metadata["wandb_id"] is None  # logger=csv
    assert metadata["grid"] is None


def test_metadata_have_the_factor_of_the_rewards(tmp_path: Path):
    """With it the standard deviation of the returns is 100, times dataset.reward_scale."""
    unit = ("cql.alpha_unit=return", "updates=10", "dataset.reward_scale=2")
    folder = train_run(tmp_path / "run", *TINY, *unit)
    factor = read_json(folder / "metadata.json")["reward_scale"]
    settings, data = validate(compose_config(*TINY, f"run_dir={tmp_path}/raw"), [])
    raw = make_dataset(data, train_on_all(data), settings.dataset, gamma=0.99)
    assert factor * raw.return_to_go.std(correction=0).item() == pytest.approx(200.0, rel=1e-5)


def test_result_json_has_the_last_evaluation(finished: Any):
    folder, value = finished
    result = read_json(folder / "result.json")
    table = METRICS_PAGE.partition("## result.json\n")[2].partition("\n## ")[0]
    assert list(result) == re.findall(r"(?m)^\| `(\w+)` \|", table)
    assert (result["status"], result["updates"], result["error"]) == ("finished", 20, None)
    last = [
        float(row["return"]) for row in rows(folder / "evaluation.csv") if row["update"] == "20"
    ]
    assert len(last) == result["episodes"] == 4
    mean = sum(last) / 4
    assert value == result["return_mean"] == pytest.approx(mean)
    spread = math.sqrt(sum((x - mean) ** 2 for x in last) / 4)
    assert result["return_std"] == pytest.approx(spread)
    # Pendulum's references are -1200 and -150.
    assert result["normalized_score"] == pytest.approx(100 * (mean + 1200) / 1050)


def test_csv_files_have_the_documented_columns(finished: Any):
    with (finished[0] / "evaluation.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["update", "episode", "seed", "return", "length"]
    with (finished[0] / "metrics.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    assert columns[0] == "update"
    assert {"critic/td_loss", "critic/gap", "cql/alpha", "time/updates_per_second"} <= set(columns)
    assert {row["length"] for row in rows(finished[0] / "evaluation.csv")} == {"200"}


def test_without_rollouts_there_is_no_metric(tmp_path: Path, capsys: Any):
    folder = tmp_path / "run"
    assert run_train(*DISCRETE, "updates=3", f"run_dir={folder}") is None
    assert not (folder / "evaluation.csv").exists()
    assert read_json(folder / "result.json")["return_mean"] is None
    command = f"python evaluate.py run={folder} evaluation.episodes=100"
    assert f"next    {command}" in capsys.readouterr().out
    validated = ("dataset.validation_fraction=0.2", f"run_dir={folder}2")
    run_train(*DISCRETE, "updates=3", *validated)
    command = f"python evaluate.py run={folder}2 ope=fqe evaluation.episodes=0"
    assert f"next    {command}" in capsys.readouterr().out


@pytest.mark.parametrize("log_every", [1, 1000], ids=["logged", "not logged"])
def test_a_diverging_run_stops_and_keeps_its_last_finite_checkpoint(log_every: int, tmp_path: Path):
    """alpha explodes at update 7: the checkpoint of update 5 stays, none is written at 10."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    explosion = ("alpha_schedule=piecewise", "alpha_schedule.points=[[5,1],[6,1e300]]")
    every = ("checkpoint_every=5", f"log_every={log_every}")
    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"is not finite; lower cql.critic_learning_rate"):
        train_run(folder, *TINY, *explosion, *every, "updates=20")
    result = read_json(folder / "result.json")
    assert result["status"] == "diverged"
    assert "is not finite" in result["error"]
    checkpoint = newest_checkpoint(folder)
    assert checkpoint["updates"] == 5
    assert all(value.isfinite().all() for value in checkpoint["agent"].values())
    # The next job of a grid can be stopped.
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_missing_gpu_is_refused(monkeypatch: Any):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    settings = [key for key in TINY if key != "hardware=cpu"]
    with pytest.raises(ConfigError, match="needs as many GPUs, found 0; use hardware=cpu") as error:
        validate(compose_config("hardware=gpu", *settings), [])
    assert error.value.exit_code == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a GPU, found 0"):
        validate(compose_config("hardware=auto", "hardware.capture=true", *settings), [])


@pytest.mark.parametrize(
    ("units", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False}, "32")],
)
def test_precision_auto_is_resolved_once_and_printed(
    units: dict[str, bool], precision: str, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    folder = train_run(tmp_path / "run", *DISCRETE, "hardware.precision=auto", "updates=2")
    assert f"precision {precision} (hardware.precision=auto)" in capsys.readouterr().out
    assert load_config(folder).hardware.precision == precision
    assert read_json(folder / "metadata.json")["hardware"]["precision"] == precision
    # Another processor keeps the precision that the run began with.
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    resume_run(folder, f"resume={folder}", "updates=4")
    assert load_config(folder).hardware.precision == precision


def test_evaluating_a_finished_run_repeats_its_last_evaluation(finished: Any):
    folder, value = finished
    options = ("evaluation.episodes=4", "evaluation.environments=2", "evaluation.seed=10000")
    again = evaluate(compose_config(f"run={folder}", *options, entry_point="evaluate"))
    assert again == value
    last = [row for row in rows(folder / "evaluation.csv") if row["update"] == "20"]
    assert rows(folder / "evaluate.csv") == last
    summary = read_json(folder / "evaluate.json")
    assert (summary["return_mean"], summary["updates"], summary["seed"]) == (value, 20, 10000)
    other = evaluate(
        compose_config(f"run={folder}", *options[:2], "evaluation.seed=1", entry_point="evaluate")
    )
    assert other != value


def test_collecting_with_a_finished_run(finished: Any, tmp_path: Path, monkeypatch: Any):
    """The deterministic policy plays 25 steps in each of ten environments."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = finished[0]
    collect(compose_config(f"policy=run:{folder}", "dataset.size=250", entry_point="collect"))
    data = load(MinariReader(f"sim/pendulum/{folder.name}_250-v0"))
    assert len(data) == 250
    assert float(abs(data.actions).max()) <= 1.0


def test_sigterm_saves_a_checkpoint_that_resuming_starts_from(tmp_path: Path):
    folder = tmp_path / "run"
    with entry_point(*TINY, "updates=1_000_000", f"run_dir={folder}") as process:
        wait_for(lambda: CsvFile(folder / "metrics.csv").size() > 0, process)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 143
    assert f"continue with: python train.py resume={folder}" in error
    assert "Traceback" not in error
    result = read_json(folder / "result.json")
    assert (result["status"], result["signal"]) == ("preempted", 15)
    reached = newest_checkpoint(folder)["updates"]
    assert reached == result["updates"]
    resume_run(folder, f"updates={reached + 5}")
    whole = train_run(tmp_path / "whole", *TINY, f"updates={reached + 5}")
    assert differences(load_learned(whole), load_learned(folder)) == []
