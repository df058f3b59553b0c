"""Guarantee: a grid leaves one run folder per job and a table; a failing job stops no other."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.config import run_entry_point
from support.train import DISCRETE

from offline_cql.commands import summary
from offline_cql.commands.multirun import Job, rows
from offline_cql.io import read_json

pytestmark = pytest.mark.usefixtures("recorded")

# Settings that both kinds of agents have; one without effect would be refused.
SMALL = [key for key in DISCRETE if key != "env=cartpole"]


def run_grid(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python train.py -m …` with its folders below `folder`."""
    # All jobs get the same name; each still gets a folder of its own.
    folders = (f"run_dir={folder}/run", f"hydra.sweep.dir={folder}/grid")
    return run_entry_point("train", "-m", *SMALL, "updates=10", *arguments, *folders)


@pytest.mark.slow
def test_a_grid_leaves_a_folder_per_job_and_a_table(tmp_path: Path):
    process = run_grid(tmp_path, "env=pendulum,cartpole", "cql.alpha=0,1")
    assert process.returncode == 0, process.stderr
    jobs = rows(tmp_path / "grid")
    settings = []
    for job in jobs:
        config = yaml.safe_load((Path(job["run"]) / "config.yaml").read_text())
        settings.append((config["env"]["name"], config["cql"]["alpha"]))
        assert config["run_dir"] == job["run"]
        assert read_json(Path(job["run"]) / "metadata.json")["grid"] == "grid"
    assert settings == [("pendulum", 0.0), ("pendulum", 1.0), ("cartpole", 0.0), ("cartpole", 1.0)]
    assert [job["result"]["status"] for job in jobs] == ["finished"] * 4
    names = [f"{tmp_path}/run{suffix}" for suffix in ("", "-2", "-3", "-4")]
    assert [job["run"] for job in jobs] == names
    table = process.stdout.partition("grid ")[2]
    assert "4 jobs" in table
    assert len(re.findall(r"│ *finished *│", table)) == 4
    assert all(name in table for name in names)
    assert "did not finish" not in table
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("grid", "run", "run-2", "run-3", "run-4")
    ]


def test_a_job_that_fails_does_not_stop_the_others(tmp_path: Path):
    """The first job's critics explode."""
    process = run_grid(tmp_path, "cql.critic_learning_rate=1e30,1e-3", "log_every=1")
    assert process.returncode == 1
    bad, good = rows(tmp_path / "grid")
    assert bad["result"]["status"] == "diverged"
    assert good["result"]["status"] == "finished"
    table = process.stdout.partition("grid ")[2]
    assert "1 of 2 jobs did not finish" in table
    assert "cql.critic_learning_rate=1e+30" in table.partition("did not finish")[2]
    assert "is not finite" in table
    assert "Traceback" not in process.stderr
    assert "error: update" in process.stderr


def test_a_job_without_a_run_folder_is_listed(tmp_path: Path, capsys: Any):
    """Its data was missing, so it never began."""
    Job(tmp_path, 0).write(["env=hopper"], None, "no such data")
    (job,) = rows(tmp_path)
    assert job["result"] == {}
    summary.print_grid(tmp_path, [job])
    output = capsys.readouterr().out
    assert "1 of 1 jobs did not finish" in output
    assert "env=hopper: failed: no such data" in output


@pytest.mark.slow
def test_the_joblib_launcher_runs_jobs_in_parallel(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = run_grid(tmp_path, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert process.returncode == 0, process.stderr
    jobs = rows(tmp_path / "grid")
    assert [job["result"]["status"] for job in jobs] == ["finished"] * 2
    assert len({job["run"] for job in jobs}) == 2
    assert "2 jobs" in process.stdout
