"""Guarantee: a run's W&B run gets what later commands find out, and the files that are asked for.

Everything is offline here; each command continues the same run.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.offline_wandb import of_kind, offline_runs
from support.train import TINY, resume_run, train_run

from offline_cql import Run, load_policy
from offline_cql.commands.load_run import load_config
from offline_cql.commands.run_loggers import run_info
from offline_cql.io import read_json
from offline_cql.runs.wandb_run import run_files

SHORT = (
    *(key for key in TINY if key not in ("logger=csv", "evaluation=none")),
    *("logger=wandb", "updates=20", "checkpoint_every=10", "evaluation.every=10"),
    *("evaluation.episodes=2", "evaluation.environments=2", "dataset.validation_fraction=0.3"),
)
ROLLOUTS = ("evaluation.episodes=2", "evaluation.environments=2")
pytestmark = pytest.mark.usefixtures("recorded")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    wandb.teardown()  # it reads variables once per process
    monkeypatch.setenv("WANDB_MODE", "offline")


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    updates = [part["update"] for part in of_kind(records, "summary") if "update" in part]
    return {key: value for part in updates for key, value in part.items()}


def artifacts(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the files of each artifact by its name."""
    found = [a for a in of_kind(records, "artifact") if a["type"] in ("model", "report")]
    return {a["name"]: [e["path"] for e in a["manifest"]["contents"]] for a in found}


def test_every_command_continues_the_run_and_adds_its_results(tmp_path: Path, capsys: Any):
    folder = train_run(tmp_path / "run", *SHORT, "logger.artifacts=policy")
    run = Run(folder)
    score = run.evaluate(ROLLOUTS)
    estimates = run.estimate(["ope.updates=5", "checkpoint=all"])
    run.export(["support=false"])
    run.report([], [f"out={tmp_path / 'report'}", "resamples=100", "above_best_share=1"])
    resume_run(folder, "updates=30")
    training, evaluated, estimated, exported, reported, resumed = offline_runs(folder)

    for records in (training, evaluated, estimated, exported, reported, resumed):
        (record,) = of_kind(records, "run")
        assert record["run_id"] == read_json(folder / "metadata.json")["wandb_id"]
        assert record["resume"]
    histograms = [row["item"] for row in of_kind(training, "history")]
    histograms = [item for item in histograms if "evaluation/returns.values" in item]
    assert [item["update"] for item in histograms] == [10, 20]
    assert sum(histograms[0]["evaluation/returns.values"]) == 2
    (record,) = of_kind(training, "run")
    assert record["config"]["update"]["audit"] == []

    (row,) = (row["item"] for row in of_kind(evaluated, "history"))
    assert row["evaluate/return_mean"] == pytest.approx(score.return_mean)
    rows = [row["item"] for row in of_kind(estimated, "history")]
    assert [row["update"] for row in rows] == [10, 20]
    assert rows[1]["estimate/fqe_low"] == pytest.approx(estimates.policies[20][0].low)
    assert summary(estimated)["estimate/behavior"] == pytest.approx(estimates.behavior.value)

    run_id = read_json(folder / "metadata.json")["wandb_id"]
    assert artifacts(training) == {
        f"{run_id}-run": [
            *("checkpoints/20.ckpt", "checkpoints/20.ckpt.sha256"),
            *("config.yaml", "metadata.json"),
        ]
    }
    assert artifacts(evaluated) == artifacts(estimated) == {}
    assert artifacts(exported) == {f"{run_id}-onnx": ["policy.json", "policy.onnx"]}
    verdict = summary(reported)["report/verdict"]
    assert verdict.startswith("Do not ship; the best candidate is alpha=5 after")
    files = [f"report.{kind}" for kind in ("html", "json", "md", "tex")]
    assert artifacts(reported) == {f"{run_id}-report": files}
    assert {row["item"]["update"] for row in of_kind(resumed, "history")} == {30}


@pytest.mark.parametrize("artifacts", ["policy", "all"])
def test_a_downloaded_copy_can_be_used(tmp_path: Path, monkeypatch: Any, artifacts: str):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = train_run(tmp_path / "run", *SHORT, f"logger.artifacts={artifacts}")
    copy = tmp_path / "copy"
    for file in run_files(run_info(folder, load_config(folder).logger)):
        if file.is_file():
            (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy / file.relative_to(folder))
    observation = [[0.1, 0.2, 0.3]]
    expected = load_policy(folder).predict(observation)
    assert (load_policy(copy / "checkpoints" / "20.ckpt").predict(observation) == expected).all()
    if artifacts == "all":
        resume_run(copy, "updates=30")
        assert Run(copy).result["updates"] == 30


def test_a_failure_of_wandb_loses_no_result(tmp_path: Path, monkeypatch: Any, capsys: Any):
    folder = train_run(tmp_path / "run", *SHORT)

    def fail(*_arguments: Any) -> None:
        raise OSError("no space left\nsecond line")

    monkeypatch.setattr("offline_cql.commands.run_loggers.add_to_wandb", fail)
    assert Run(folder).evaluate(ROLLOUTS).episodes == 2
    warning = "warning: W&B failed (no space left); the results are in"
    assert warning in capsys.readouterr().err.replace("\n", " ")


def test_other_runs_get_no_results_at_wandb(tmp_path: Path, monkeypatch: Any):
    folder = train_run(tmp_path / "run", *SHORT, "logger=csv")
    Run(folder).evaluate(ROLLOUTS)
    assert not (folder / "wandb").exists()
