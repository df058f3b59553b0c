"""Guarantee: two processes with half of each batch learn what one process learns with all of it.

Ranks start and end equal; only rank 0 writes; each job of a grid is a run of its own.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.builders import OPTIONS, differences
from support.config import compose_config, run_entry_point
from support.train import DISCRETE, LAGRANGE, rows, train_run

from offline_cql.commands.train import create_run, validate
from offline_cql.io import read_json
from offline_cql.runs.checkpoint import newest_checkpoint

pytestmark = pytest.mark.usefixtures("recorded")

ROLLOUTS = ("evaluation=default", "evaluation.episodes=1", "evaluation.environments=1")
SETTINGS = {
    "continuous": (*LAGRANGE, *ROLLOUTS, "evaluation.every=10", "updates=20"),
    "options": (*LAGRANGE, *OPTIONS, *ROLLOUTS, "evaluation.every=10", "updates=20"),
    "discrete": (*DISCRETE, *ROLLOUTS, "evaluation.every=10", "updates=20"),
}


def with_two_processes(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the settings with hardware=ddp_cpu."""
    shared = [key for key in settings if key != "hardware=cpu"]
    return (*shared, "hardware=ddp_cpu")


@pytest.fixture(scope="module")
def runs_by_kind(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> dict[str, Any]:
    """Train each kind of agent in this process and in two; return both run folders per kind."""
    base = tmp_path_factory.mktemp("ranks")
    runs = {}
    for name, settings in SETTINGS.items():
        config = compose_config(*with_two_processes(settings), f"run_dir={base / name}")
        folder = create_run(config, *validate(config, []), grid_name=None)
        runs[name] = (train_run(base / f"{name}-one", *settings), folder)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    worker = [str(Path(__file__).parents[1] / "support" / "ddp_worker.py")]
    folders = [str(two) for _, two in runs.values()]
    subprocess.run([sys.executable, "-m", *command, *worker, *folders], check=True, timeout=900)
    return runs


def load_ranks(folder: Path) -> list[dict[str, Any]]:
    """Return what both ranks saved of a run."""
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("kind", SETTINGS)
def test_two_processes_learn_what_one_learns(kind: str, runs_by_kind: Any):
    one, two = (newest_checkpoint(folder) for folder in runs_by_kind[kind])
    start = initial_weights(kind)
    moved = 0.0
    for name, value in one["agent"].items():
        torch.testing.assert_close(two["agent"][name], value, rtol=0, atol=1e-5, msg=name)
        if name.startswith("critic."):
            moved = max(moved, (value - start[name]).abs().max().item())
    assert moved > 1e-3  # so that 1e-5 means something
    assert two["updates"] == one["updates"] == 20
    assert torch.equal(one["noise"], two["noise"])


def initial_weights(kind: str) -> dict[str, Any]:
    """Return the weights before the first update."""
    from offline_cql.commands.fit import create_agent
    from offline_cql.data.split import split_episodes

    settings, transitions = validate(compose_config(*SETTINGS[kind]), [])
    selection = split_episodes(transitions, settings.dataset)
    return create_agent(settings, transitions, selection).state_dict()


@pytest.mark.parametrize("kind", SETTINGS)
def test_ranks_end_with_equal_weights(kind: str, runs_by_kind: Any):
    first, second = load_ranks(runs_by_kind[kind][1])
    assert differences(first["agent"], second["agent"]) == []
    assert torch.equal(first["noise"], second["noise"])


@pytest.mark.parametrize("kind", SETTINGS)
def test_only_rank_0_writes(kind: str, runs_by_kind: Any):
    first, second = load_ranks(runs_by_kind[kind][1])
    assert second["wrote"] == []
    assert first["wrote"].count("append") == 4  # metrics at 10 and 20, evaluation at 10 and 20


@pytest.mark.parametrize("kind", SETTINGS)
def test_metrics_are_those_of_one_process(kind: str, runs_by_kind: Any):
    """Means are averaged over the ranks, maxima are the largest: those of the global batch."""
    one, two = (rows(folder / "metrics.csv") for folder in runs_by_kind[kind])
    assert [row["update"] for row in two] == ["10", "20"]
    for expected, row in zip(one, two, strict=True):
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5), name
    evaluated = [rows(folder / "evaluation.csv") for folder in runs_by_kind[kind]]
    assert [row["seed"] for row in evaluated[0]] == [row["seed"] for row in evaluated[1]]


@pytest.mark.slow
def test_a_grid_of_distributed_runs_is_separate_runs(tmp_path: Path):
    """Each job has its own alpha and weights and finishes."""
    arguments = (
        *with_two_processes(SETTINGS["continuous"]),
        "cql.alpha=1,5",
        f"run_dir={tmp_path}/run",
    )
    run_entry_point("train", "-m", *arguments, f"hydra.sweep.dir={tmp_path}/grid")
    jobs = [read_json(tmp_path / "grid" / "jobs" / f"000{k}.json") for k in (0, 1)]
    runs = [Path(job["run"]) for job in jobs]
    assert [read_json(run / "result.json")["status"] for run in runs] == ["finished"] * 2
    for run, alpha in zip(runs, (1.0, 5.0), strict=True):
        assert yaml.safe_load((run / "config.yaml").read_text())["cql"]["alpha"] == alpha
        assert {row["cql/alpha"] for row in rows(run / "metrics.csv")} == {str(alpha)}
        assert [row["update"] for row in rows(run / "metrics.csv")] == ["10", "20"]
    one, other = (newest_checkpoint(run)["agent"] for run in runs)
    assert differences(one, other) != []
