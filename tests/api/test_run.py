"""Guarantee: a training from Python is the one of the command line, in any Python program.

Errors are the project's exceptions; signal handlers, Hydra's state and Lightning's loggers are
afterwards what they were before.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from support.builders import differences
from support.config import ROOT, run_entry_point
from support.train import TINY, rows

from offline_cql import ConfigError, DataError, Dataset, Run, make_agent, train
from offline_cql.runs.checkpoint import newest_checkpoint

VALIDATED = (*TINY, "dataset.validation_fraction=0.3", "evaluation.every=10")


def state(run: Run) -> dict[str, Any]:
    """Return a run's last training state, without the lengths of files with times in them."""
    return {k: v for k, v in newest_checkpoint(run.folder).items() if k != "lengths"}


def test_a_run_is_equal_to_the_command_lines_bit_for_bit(recorded: Path, tmp_path: Path):
    words = [*TINY, "updates=30", "seed=3"]
    process = run_entry_point("train", *words, f"run_dir={tmp_path / 'one'}")
    assert process.returncode == 0, process.stderr
    run = train(overrides=[*words, f"run_dir={tmp_path / 'two'}"])
    assert rows(tmp_path / "one" / "metrics.csv") == rows(run.folder / "metrics.csv")
    assert differences(state(Run(tmp_path / "one")), state(run)) == []
    again = train(overrides=[*words, f"run_dir={tmp_path / 'three'}"])  # in the same process
    assert rows(run.folder / "metrics.csv") == rows(again.folder / "metrics.csv")


def test_a_run_has_its_tables_and_its_result(recorded: Path, tmp_path: Path):
    run = train(overrides=[*VALIDATED, "updates=20", f"run_dir={tmp_path / 'run'}"])
    assert run.metrics["update"].to_pylist() == [10, 20]
    assert run.validation["update"].to_pylist() == [10, 20]
    assert run.evaluation.num_rows == 0  # evaluation=none
    assert run.result["updates"] == 20
    command = (run.folder / "metadata.json").read_text()
    assert "train.py logger=csv dataset.size=2000" in command
    score = run.evaluate(["evaluation.episodes=2", "evaluation.environments=2"])
    assert score.episodes == 2
    estimates = run.estimate(["ope.updates=5", "checkpoint=all"])
    assert list(estimates.policies) == [10, 20]
    report = run.report([], [f"out={tmp_path / 'report'}", "resamples=100"])
    assert report.page == tmp_path / "report" / "report.html"
    (sentences,) = report.recommendations.values()
    assert sentences[0].startswith("No recommendation: every grid point")  # of so few updates
    assert run.resume(["updates=30"]).result["updates"] == 30


def test_arrays_are_trained_on_and_the_shell_can_resume(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From another folder, because the settings of the run name the file."""
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    observations = torch.randn(100, 3, generator=draw).numpy()
    ended = [k % 10 == 9 for k in range(100)]
    dataset = Dataset.from_arrays(observations, [k % 2 for k in range(100)], [0.5] * 100, ended)
    small = [*(word for word in TINY if not word.startswith(("dataset.size", "cql", "network.a")))]
    run = train(dataset, [*small, "updates=10"])
    assert run.folder.is_relative_to(tmp_path / "outputs" / "logged")
    process = run_entry_point("train", f"resume={run.folder}", "updates=20")
    assert process.returncode == 0, process.stderr
    assert run.result["updates"] == 20


def test_overrides_count_before_the_data_are_read(recorded: Path, tmp_path: Path):
    """The data alone cannot be read: they have gaps, few whole numbers, or are too many."""
    draw = np.random.default_rng(0)
    columns = {"x": [None, *draw.normal(size=99)], "act": [0.0, 1.0] * 50, "rew": [0.5] * 100}
    end = [k % 10 == 9 for k in range(100)]
    names = {"observation": ["x"], "action": "act", "reward": "rew", "terminated": "end"}
    frame = pa.table(columns | {"end": end})
    dataset = Dataset.from_dataframe(frame, **names, folder=tmp_path)
    shaping = ["dataset.missing=drop", "dataset.columns.discrete=true"]
    small = [*(word for word in TINY if not word.startswith(("dataset.size", "cql", "network.a")))]
    run = train(dataset, [*small, *shaping, "updates=10", f"run_dir={tmp_path / 'run'}"])
    assert run.policy().discrete
    assert make_agent(dataset, shaping).spaces.discrete
    with pytest.raises(ConfigError, match=r"did you mean cql\.alpha"):
        train(Dataset(["env=cartpole", "dataset.size=100_000"]), ["cql.alhpa=3"])
    with pytest.raises(ConfigError, match="train needs a Dataset, as of"):
        train(np.zeros((3, 2)))


def test_arrays_of_a_simulator_are_trained_on_and_evaluated(tmp_path: Path):
    draw = np.random.default_rng(0)
    observations, actions = draw.normal(size=(100, 3)), draw.uniform(-2, 2, (100, 1))
    ended = [k % 10 == 9 for k in range(100)]
    dataset = Dataset.from_arrays(observations, actions, [0.5] * 100, ended, folder=tmp_path)
    small = [*(word for word in TINY if not word.startswith("dataset.size"))]
    run = train(dataset, [*small, "env=pendulum", "updates=10", f"run_dir={tmp_path / 'run'}"])
    assert run.evaluate(["evaluation.episodes=1", "evaluation.environments=1"]).return_mean < 0
    with pytest.raises(DataError, match=r"dataset\.columns\.discrete=true has no effect with a"):
        train(dataset, [*small, "env=pendulum", "dataset.columns.discrete=true"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cql.alhpa=5"], "cql.alhpa is unknown; did you mean cql.alpha"),
        (["seed=0,1"], "seed=0,1 has several values"),
        (["env=hoper"], "did you mean env=hopper"),
        (["updates=-1"], "updates=-1 must be >= 1"),
        (["--help"], "--help is an option of the command line"),
        (["-m"], "-m is an option of the command line"),
        ("updates=5", "overrides must be a list"),
        (["resume=nowhere"], "nowhere is not a run folder"),
    ],
)
def test_a_mistake_is_a_config_error(overrides: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        train(overrides=overrides)


def test_data_that_cannot_be_read_are_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="nothing"):
        train(Dataset.from_parquet(tmp_path / "nothing.parquet"), ["logger=csv"])


def test_another_hydra_application_keeps_its_state(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "app.yaml").write_text("words: [1, 2]\nname: ${hydra:job.name}\n")
    with initialize_config_dir(str(tmp_path), job_name="theirs", version_base="1.3"):
        config = compose("app", return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        hydra, runtime = GlobalHydra.instance().hydra, JobRuntime.instance().conf.copy()
        train(overrides=[*TINY, "updates=10", f"run_dir={tmp_path / 'run'}"])
        assert GlobalHydra.instance().hydra is hydra
        assert JobRuntime.instance().conf == runtime
        assert HydraConfig.get().job.name == "theirs"
        assert compose("app").words == [1, 2]
    HydraConfig.instance().cfg = None


def test_a_thread_can_train_and_the_main_threads_handlers_stay(recorded: Path, tmp_path: Path):
    errors: list[BaseException] = []

    def work() -> None:
        try:
            train(overrides=[*TINY, "updates=20", f"run_dir={tmp_path / 'run'}"])
        except BaseException as error:
            errors.append(error)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    filters, level = list(warnings.filters), logging.getLogger("pytorch_lightning").level
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert Run(tmp_path / "run").result["updates"] == 20
    train(overrides=[*TINY, "updates=10", f"run_dir={tmp_path / 'main'}"])
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert logging.getLogger("pytorch_lightning").level == level
    assert list(warnings.filters) == filters


class AtUpdate(pl.Callback):
    """Calls a function after the block that ends at an update."""

    def __init__(self, update: int, action: Callable[[pl.Trainer], None]) -> None:
        self.update, self.action = update, action

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if pl_module.updates == self.update:
            self.action(trainer)


def test_an_interrupt_saves_the_run_which_goes_on_bit_for_bit(recorded: Path, tmp_path: Path):
    words = [*TINY, "updates=40"]
    whole = train(overrides=[*words, f"run_dir={tmp_path / 'whole'}"])
    interrupt = AtUpdate(20, lambda _trainer: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"the run is saved; continue with: .*resume="):
        train(overrides=[*words, f"run_dir={tmp_path / 'run'}"], callbacks=[interrupt])
    run = Run(tmp_path / "run")
    assert run.result["status"] == "preempted"
    run.resume()
    assert rows(run.folder / "metrics.csv") == rows(whole.folder / "metrics.csv")


def test_an_interrupt_of_a_callback_is_one_of_the_call(recorded: Path, tmp_path: Path):
    """Lightning would end the process."""

    def interrupt(_trainer: pl.Trainer) -> None:
        raise KeyboardInterrupt

    words = [*TINY, "updates=40", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(KeyboardInterrupt):
        train(overrides=words, callbacks=AtUpdate(20, interrupt))
    assert Run(tmp_path / "run").result["status"] == "failed"


def test_early_stopping_ends_a_run_that_can_go_on(recorded: Path, tmp_path: Path):
    """A difference that no metric reaches: the second evaluation is the first without progress."""
    stopping = EarlyStopping("validation/td_error", min_delta=1e9, patience=1)
    words = [*VALIDATED, "updates=100", f"run_dir={tmp_path / 'run'}"]
    run = train(overrides=words, callbacks=[stopping])
    assert (run.result["status"], run.result["updates"]) == ("finished", 20)
    assert (run.folder / "checkpoints" / "20.ckpt").exists()
    whole = train(overrides=[*VALIDATED, "updates=100", f"run_dir={tmp_path / 'whole'}"])
    assert run.resume().result["updates"] == 100
    assert rows(run.folder / "metrics.csv") == rows(whole.folder / "metrics.csv")


def test_a_run_that_a_callback_ends_between_evaluations_has_its_policy(
    recorded: Path, tmp_path: Path
):
    stop = AtUpdate(20, lambda trainer: setattr(trainer, "should_stop", True))
    words = [*TINY, "updates=100", f"run_dir={tmp_path / 'run'}"]
    run = train(overrides=words, callbacks=[stop])
    assert (run.result["status"], run.result["updates"]) == ("finished", 20)
    assert run.policy(20).action_dim == 1


def test_callbacks_and_loggers_see_the_numbers_of_the_run(recorded: Path, tmp_path: Path):
    seen: dict[str, float] = {}

    def note(trainer: pl.Trainer) -> None:
        seen.update({name: value.item() for name, value in trainer.callback_metrics.items()})

    logger = CSVLogger(tmp_path, name="theirs", version="")
    run = train(
        overrides=[*VALIDATED, "updates=20", f"run_dir={tmp_path / 'run'}"],
        callbacks=[AtUpdate(10, note)],
        loggers=[logger],
    )
    for table in (run.metrics, run.validation):
        first = table.slice(0, 1).to_pylist()[0]
        del first["update"]
        assert {name: seen[name] for name in first} == pytest.approx(first)
    assert (tmp_path / "theirs" / "metrics.csv").read_text().count("\n") >= 2


@pytest.mark.parametrize("callback", [ModelCheckpoint, TQDMProgressBar])
def test_callbacks_that_cannot_work_are_refused(callback: type[pl.Callback]):
    with pytest.raises(ConfigError, match=f"leave out {callback.__name__}: a run has"):
        train(overrides=[], callbacks=[callback()])


@pytest.mark.parametrize("given", [pl.Callback, [pl.Callback], ["wandb"], True])
def test_what_is_no_callback_or_logger_is_refused(given: Any):
    for name in ("callbacks", "loggers"):
        with pytest.raises(ConfigError, match=f"{name} must be objects of Lightning's"):
            train(**{name: given})


def test_several_processes_take_no_objects():
    with pytest.raises(ConfigError, match="callbacks and loggers need"):
        train(overrides=["hardware=ddp_cpu"], callbacks=[pl.Callback()])


def test_the_import_is_light():
    code = (
        "import sys, offline_cql; assert set(dir(offline_cql)) >= {'train', 'Dataset'};"
        "assert not {'torch', 'hydra', 'numpy', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
