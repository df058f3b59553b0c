"""Guarantee: a run belongs to itself, not to the shell it was started in.

The variables of Slurm, torchrun, mpirun and Lightning change no number; the signals that clusters
send save and stop a run; a launcher that would train one run several times is refused.
"""

import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from support.builders import differences, settings
from support.config import CONF
from support.train import (
    TINY,
    entry_point,
    load_learned,
    resume_run,
    rows,
    train_run,
    wait_for,
)

from offline_cql.commands.launchers import check_launcher, torchrun_environment
from offline_cql.errors import ConfigError
from offline_cql.io import read_json
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import CsvFile

pytestmark = pytest.mark.usefixtures("recorded")

RUN = (*TINY, "updates=20")
SLURM = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "node[1-4]"}
TASK = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
VARIABLES = {
    "sbatch --ntasks=4": SLURM | {"SLURM_NTASKS": "4"},
    "sbatch --ntasks-per-node=4": SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"},
    "sbatch --nodes=2": SLURM | {"SLURM_NTASKS": "2", "SLURM_NNODES": "2"},
    "sbatch, first task": SLURM | TASK | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    "srun -n 4": SLURM | TASK | {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"},
    "array": SLURM | {"SLURM_ARRAY_JOB_ID": "76", "SLURM_ARRAY_TASK_ID": "3"},
    "torch's": {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "1"},
    "a part of torch's": {"WORLD_SIZE": "4", "MASTER_ADDR": "nowhere", "MASTER_PORT": "no"},
    "torchrun, leftovers": {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2"},
    "torchrun of one": {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1"},
    "mpirun -n 2": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    "LSF": {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "none", "JSM_NAMESPACE_RANK": "1"},
    "Kubeflow": {"KUBERNETES_PORT": "1", "GROUP_RANK": "1"},
    "seeds of Lightning": {"PL_GLOBAL_SEED": "5", "PL_SEED_WORKERS": "1"},
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    """Train without any of these variables; return the run folder."""
    with pytest.MonkeyPatch.context() as patch:
        remove_variables(patch)
        return train_run(tmp_path_factory.mktemp("clean") / "run", *RUN)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    remove_variables(monkeypatch)


def remove_variables(patch: pytest.MonkeyPatch) -> None:
    """Unset the variables of launchers, which the machine of a test may have."""
    names = {name for variables in VARIABLES.values() for name in variables}
    for name in names:
        patch.delenv(name, raising=False)


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_of_launchers_change_no_number(
    name: str, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Rows of metrics.csv and tensors are equal, and no variable is removed."""
    for key, value in VARIABLES[name].items():
        monkeypatch.setenv(key, value)
    before = dict(os.environ)
    run = train_run(tmp_path / "run", *RUN)
    assert rows(run / "metrics.csv") == rows(clean / "metrics.csv")
    assert differences(load_learned(clean), load_learned(run)) == []
    assert dict(os.environ) == before


def test_trainer_defaults_from_variables_change_no_number(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Lightning takes any argument that is not given from PL_TRAINER_<NAME>; each is 3 here."""
    for name in inspect.signature(pl.Trainer).parameters:
        monkeypatch.setenv(f"PL_TRAINER_{name.upper()}", "3")
    run = train_run(tmp_path / "run", *RUN)
    assert rows(run / "metrics.csv") == rows(clean / "metrics.csv")
    assert differences(load_learned(clean), load_learned(run)) == []


def test_the_rank_of_a_launcher_silences_no_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning's loggers of rank 1 write nothing; a run of one process has rank 0."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as an import with RANK=1 leaves it
    arguments = [key for key in RUN if key != "logger=csv"]
    run = train_run(tmp_path / "run", *arguments, "logger=tensorboard")
    accumulator = events.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in accumulator.Scalars("critic/td_loss")] == [10, 20]


# --- Launchers ----------------------------------------------------------------------------------


def test_a_distributed_run_under_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch):
    """`srun -n 2 python train.py hardware=ddp` would train twice, with two ranks each."""
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ConfigError, match=r"without srun: .* this is process 1 of 2 of srun") as e:
        check_launcher(settings("hardware=ddp_cpu").hardware)
    assert "unset SLURM_PROCID SLURM_STEP_NUM_TASKS" in str(e.value)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    check_launcher(settings("hardware=ddp_cpu").hardware)


def test_runs_of_one_process_under_a_launcher_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`srun -n 4 python train.py 'seed=${oc.env:SLURM_PROCID}'` is four runs on purpose."""
    check_launcher(settings().hardware)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    check_launcher(settings().hardware)
    expected = "note: this is process 1 of 4 of srun; each of them trains a run of its own\n"
    assert capsys.readouterr().err == expected


@pytest.mark.slow
@pytest.mark.parametrize("hardware", ["cpu", "ddp_cpu"])
def test_torchrun_trains_nothing_twice(hardware: str, tmp_path: Path):
    """train.py started by torchrun is refused in one line, before a run folder exists."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py")
    overrides = [key for key in RUN if key != "hardware=cpu"]
    process = subprocess.run(
        [
            *(sys.executable, *torchrun, *overrides),
            *(f"hardware={hardware}", f"run_dir={tmp_path}/run"),
        ],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode != 0
    assert "error: start train.py without torchrun" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_ranks_get_none_of_torchruns_variables(monkeypatch: pytest.MonkeyPatch):
    """torchrun reads its arguments from PET_…: PET_NNODES=2 would wait for another machine."""
    for name in ("PET_NNODES", "PET_MAX_RESTARTS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("SEED", "7")
    variables = torchrun_environment(3)
    assert not [name for name in variables if name.startswith(("PET_", "TORCHELASTIC_"))]
    assert (variables["SEED"], variables["OMP_NUM_THREADS"]) == ("7", "3")


# --- Signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_the_signals_of_clusters_save_and_stop(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`sbatch --signal=USR1@120`: exit 128 + number, resumable, nothing requeued or left around."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\ntouch {tmp_path}/requeued\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    for name, value in (SLURM | TASK | {"SLURM_NTASKS": "1"}).items():
        monkeypatch.setenv(name, value)
    folder, before = tmp_path / "run", set(CONF.parent.iterdir())
    with entry_point(*TINY, "updates=1_000_000", f"run_dir={folder}") as process:
        wait_for(lambda: CsvFile(folder / "metrics.csv").size() > 0, process)
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert "Traceback" not in error
    result = read_json(folder / "result.json")
    assert (result["status"], result["signal"]) == ("preempted", number)
    assert not (tmp_path / "requeued").exists()
    assert {path.name for path in set(CONF.parent.iterdir()) - before} <= {".pytest_cache"}
    reached = newest_checkpoint(folder)["updates"]
    assert reached == result["updates"]
    resume_run(folder, f"updates={reached + 5}")
    whole = train_run(tmp_path / "whole", *TINY, f"updates={reached + 5}")
    assert differences(load_learned(whole), load_learned(folder)) == []
