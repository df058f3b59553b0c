"""Guarantee: the number of CPU threads belongs to the run, not to the shell or to the load.

auto is one thread where updates are small and never more than half of the cores; it is settled
once, and a resumed run keeps it. Waiting threads do not spin for long.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from support.builders import differences
from support.config import CONF, settings
from support.train import SIZE, TINY, load_learned, resume_run, train_run

from offline_cql.commands.load_run import load_config
from offline_cql.commands.resume_settings import fixed_settings
from offline_cql.commands.threads import allowed_cores, choose_threads, run_cores
from offline_cql.config.command_line import bound_spinning
from offline_cql.io import read_json
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.transitions import Spaces

HOPPER = Spaces(11, 3, False, (-1.0,) * 3, (1.0,) * 3)
PENDULUM = Spaces(3, 1, False, (-2.0,), (2.0,))
CARTPOLE = Spaces(4, 2, True, (), ())
# Large enough that two threads round sums otherwise than one: the sizes of pendulum.
RUN = ("logger=csv", "evaluation=none", "hardware=cpu", f"dataset.size={SIZE}", "log_every=2")


@pytest.fixture
def shell_with_two_threads() -> Iterator[None]:
    """Give torch two threads, as OMP_NUM_THREADS=2 does."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("task", "spaces", "cores", "threads"),
    [
        (("env=pendulum",), PENDULUM, 64, 1),
        (("env=cartpole",), CARTPOLE, 64, 1),
        (("env=hopper",), HOPPER, 64, 2),
        (("env=hopper", "cql=corl"), HOPPER, 64, 14),  # 13.3 GFLOP
        (("env=hopper", "cql=corl"), HOPPER, 8, 4),
        (("env=hopper", "cql=corl"), HOPPER, 2, 1),
        (("env=hopper", "cql=corl"), HOPPER, 1, 1),
        (("env=hopper", "cql=corl", "hardware=ddp_cpu"), HOPPER, 8, 2),  # per process
        (("env=hopper", "algorithm=bc"), HOPPER, 64, 1),
        (("env=hopper", "cql=corl", "hardware.threads=3"), HOPPER, 1, 3),
    ],
)
def test_auto_depends_on_sizes_and_cores(
    task: tuple[str, ...], spaces: Spaces, cores: int, threads: int
):
    assert choose_threads(settings(*task), spaces, gpu=False, cores=cores) == threads


def test_a_run_on_a_gpu_has_one_thread():
    assert choose_threads(settings("cql=corl"), HOPPER, gpu=True, cores=64) == 1


@pytest.mark.usefixtures("recorded", "shell_with_two_threads")
def test_the_threads_of_the_shell_change_no_number(tmp_path: Path):
    two_threads = train_run(tmp_path / "two", *RUN, "updates=4")
    assert torch.get_num_threads() == 2  # as before the run
    torch.set_num_threads(1)
    one_thread = train_run(tmp_path / "one", *RUN, "updates=4")
    assert differences(load_learned(one_thread), load_learned(two_threads)) == []
    assert load_config(two_threads).hardware.threads == 1
    assert read_json(two_threads / "metadata.json")["hardware"]["torch_threads"] == 1


@pytest.mark.usefixtures("recorded")
def test_a_resumed_run_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On most processors two threads round otherwise than one: it goes on with two, bit for bit."""
    whole, part = (
        train_run(tmp_path / str(n), *RUN, f"updates={n}", "hardware.threads=2") for n in (4, 2)
    )
    counts: list[int] = []
    set_num_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (counts.append(n), set_num_threads(n)))
    before = torch.get_num_threads()
    resume_run(part, "updates=4")
    assert counts == [2, before]
    assert differences(load_learned(whole), load_learned(part)) == []


@pytest.mark.usefixtures("recorded")
def test_a_run_from_before_this_setting_can_be_resumed(tmp_path: Path):
    run = train_run(tmp_path / "run", *TINY, "updates=10")
    path, text = run / "config.yaml", (run / "config.yaml").read_text()
    path.write_text(text.replace("  threads: 1\n", ""))
    assert load_config(run).hardware.threads is None
    state = newest_checkpoint(run)
    del state["config"]["hardware"]["threads"]
    assert fixed_settings(state["config"]) == fixed_settings(load_config(run).model_dump())


@pytest.mark.usefixtures("recorded")
def test_a_variable_without_effect_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    train_run(tmp_path / "run", *TINY, "updates=10")
    assert (
        "note: OMP_NUM_THREADS=4 has no effect on a run: it has hardware.threads=1\n"
        in capsys.readouterr().err
    )


def test_jobs_that_run_at_once_share_the_cores():
    cores = allowed_cores()
    try:
        for jobs, share in (("1", cores), (str(cores), 1), ("-1", 1)):
            arguments = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]
            arguments += ["hydra.mode=MULTIRUN"]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                config = compose("train", arguments, return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            assert run_cores() == share
    finally:
        HydraConfig.instance().cfg = None
    assert run_cores() == cores


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"user.slice/cpu.max": "100000 100000"}, 1),
        ({"user.slice/job.scope/cpu.max": "100000 100000", "cpu.max": "max 100000"}, 1),
        ({"other.slice/cpu.max": "100000 100000"}, None),
    ],
)
def test_the_quota_of_a_container_counts(limits: dict[str, str], cores: int | None, tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/ignored\n0::/user.slice/job.scope\n")
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    expected = len(os.sched_getaffinity(0)) if cores is None else cores
    assert allowed_cores(tmp_path, own) == expected


def test_cores_that_the_process_may_not_use_do_not_count():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_waiting_threads_soon_sleep_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    bound_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    bound_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.slow
def test_openmp_is_told_before_torch_loads_it():
    """The library prints what it read when it was loaded."""
    variables = os.environ | {"OMP_DISPLAY_ENV": "VERBOSE"}
    variables.pop("GOMP_SPINCOUNT", None)
    command = [sys.executable, "evaluate.py", "run=none"]  # imports torch, then ends
    process = subprocess.run(
        command, cwd=CONF.parent, env=variables, capture_output=True, text=True, check=False
    )
    if "GOMP_SPINCOUNT" not in process.stderr:
        pytest.skip("torch uses another OpenMP here")
    assert "GOMP_SPINCOUNT = '30000'" in process.stderr
