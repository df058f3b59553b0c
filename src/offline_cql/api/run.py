"""Training from Python, and the run that it leaves: metrics, evaluation, estimates, export."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from pyarrow import csv

from offline_cql.api.dataset import Dataset
from offline_cql.api.policy import Policy, load_policy
from offline_cql.api.settings import merge_overrides, setting, settings_of
from offline_cql.config.command_line import compose_job
from offline_cql.errors import ConfigError, PreemptedError
from offline_cql.io import expand_home
from offline_cql.runs.folder import CONFIG, EVALUATION, METRICS, ONNX, VALIDATION
from offline_cql.runs.result import read_result
from offline_cql.stop_signals import handle_stop_signals

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import Logger

    from offline_cql.commands.evaluate import Estimates
    from offline_cql.config import EvaluateConfig, ExportConfig, ReportConfig
    from offline_cql.report.summary import Summary
    from offline_cql.simulation.evaluation import Score


def train(
    dataset: Dataset | None = None,
    overrides: Sequence[str] = (),
    *,
    callbacks: Callback | Sequence[Callback] = (),
    loggers: Logger | Sequence[Logger] = (),
) -> Run:
    """Train a policy and return the finished run: `python train.py`, with the same numbers.

    dataset: None trains on the data that the overrides describe. overrides: settings of train.py,
    for example ["cql.alpha=5", "updates=2000"]. callbacks, loggers: Lightning's, beside those of
    every run (docs/python.md). Raises ConfigError and DataError before anything is trained, and
    DivergedError; an interrupt saves the run and raises KeyboardInterrupt.
    """
    if not isinstance(dataset, Dataset | None):
        raise ConfigError(f"train needs a Dataset, as of Dataset.from_arrays, not {dataset!r:.60}")
    # `if dataset` would read the data, without the overrides, for their number.
    words = merge_overrides([] if dataset is None else dataset.settings, overrides)
    return _train(words, callbacks, loggers)


def _train(
    words: list[str],
    callbacks: Callback | Sequence[Callback],
    loggers: Logger | Sequence[Logger],
) -> Run:
    from offline_cql.commands import train as command  # late: torch takes seconds
    from offline_cql.commands.fit import Extras

    extras = Extras.of(callbacks, loggers)
    config = compose_job("train", words)
    if config.hardware.strategy == "ddp" and (extras.callbacks or extras.loggers):
        raise ConfigError("callbacks and loggers need hardware.strategy=single: one process")
    if config.resume is not None:
        folder = expand_home(str(config.resume), "write an absolute path")
        with _stoppable(folder):
            command.resume(folder, config, words, extras=extras)
        return Run(folder)
    settings, transitions = command.validate(config, words)
    folder = command.create_run(config, settings, transitions, grid_name=None, typed=words)
    with _stoppable(folder):
        command.train_run(folder, transitions, verbose=True, extras=extras)
    return Run(folder)


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Save the run at an interrupt, then raise KeyboardInterrupt; handle no signal in a thread."""
    from offline_cql.commands.fit import lightning_as_before
    from offline_cql.commands.train import what_is_saved

    try:
        with handle_stop_signals(), lightning_as_before():
            yield
    except PreemptedError as stop:
        if stop.signal_number != signal.SIGINT:
            raise
        raise KeyboardInterrupt(what_is_saved(folder)) from stop
    except SystemExit as stop:  # what Lightning makes of a KeyboardInterrupt in a callback
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise


class Run:
    """A run folder. Raises ConfigError for a folder that is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = expand_home(str(folder), "write an absolute path").absolute()
        if not (self.folder / CONFIG).exists():
            raise ConfigError(f"{folder} is not a run folder: {CONFIG} is missing")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def metrics(self) -> Any:
        """The training metrics as a pyarrow Table, one row per logging point (docs/metrics.md).

        `.to_pandas()` and `polars.from_arrow` make data frames of it.
        """
        return self._table(METRICS)

    @property
    def validation(self) -> Any:
        """The validation metrics as a pyarrow Table, one row per evaluation point."""
        return self._table(VALIDATION)

    @property
    def evaluation(self) -> Any:
        """The episodes that were evaluated during training as a pyarrow Table, one row each."""
        return self._table(EVALUATION)

    @property
    def result(self) -> dict[str, Any]:
        """The content of result.json: status, updates, the last evaluation's return."""
        return read_result(self.folder)

    def _table(self, name: str) -> Any:
        path = self.folder / name
        return csv.read_csv(path) if path.exists() else pa.table({})

    def policy(self, checkpoint: int | str = "last") -> Policy:
        """Return the policy of a checkpoint: the newest, or that after so many updates."""
        return load_policy(self.folder, checkpoint=checkpoint)

    def evaluate(self, overrides: Sequence[str] = ()) -> Score:
        """Return the mean return of episodes in the simulator; overrides: of evaluate.py."""
        from offline_cql.commands.evaluate import can_roll_out, roll_out
        from offline_cql.commands.load_run import open_run
        from offline_cql.simulation.environments import import_package

        settings = cast("EvaluateConfig", self._settings("evaluate", overrides))
        import_package(settings.env.package)
        if not can_roll_out(open_run(self.folder), settings):
            raise ConfigError("evaluation.episodes must be >= 1; Run.estimate needs no episodes")
        return roll_out(self.folder, settings)[1]

    def estimate(self, overrides: Sequence[str] = ()) -> Estimates:
        """Return estimates of the policy's return from the validation episodes, by updates.

        overrides: of evaluate.py, for example ["ope=all", "checkpoint=all"]; fqe without any.
        """
        from offline_cql.commands.evaluate import checkpoint_names, estimate_returns
        from offline_cql.commands.load_run import open_run
        from offline_cql.simulation.environments import import_package

        implied = ["ope=fqe", "evaluation.episodes=0"]
        settings = cast("EvaluateConfig", self._settings("evaluate", overrides, implied))
        import_package(settings.env.package)
        checkpoints = checkpoint_names(self.folder, settings.checkpoint)
        return estimate_returns(self.folder, open_run(self.folder), checkpoints, settings.ope)

    def report(self, others: Sequence[Run] = (), overrides: Sequence[str] = ()) -> Report:
        """Compare this run with others: what to ship, and why; write a page with plots.

        overrides: settings of report.py.
        """
        from offline_cql.commands.report import rule, write_report
        from offline_cql.report.load_runs import LoadedRuns, load_runs
        from offline_cql.report.summary import summarize

        implied = [setting("runs", self.folder)]
        settings = cast("ReportConfig", settings_of("report", implied, overrides))
        parts = [load_runs(str(run.folder)) for run in (self, *others)]
        loaded = LoadedRuns(
            [run for part in parts for run in part.runs],
            [folder for part in parts for folder in part.left_out],
        )
        limits, sampling = rule(settings)
        summary = summarize(loaded, limits, **sampling)
        return Report(write_report(settings, summary)[0], summary)

    def export(self, overrides: Sequence[str] = ()) -> Path:
        """Write the policy as policy.onnx, checked against torch, and return its path.

        overrides: settings of export.py. Raises ExportError.
        """
        from offline_cql.commands.export import export_policy

        export_policy(cast("ExportConfig", self._settings("export", overrides)))
        return self.folder / ONNX

    def resume(
        self,
        overrides: Sequence[str] = (),
        *,
        callbacks: Callback | Sequence[Callback] = (),
        loggers: Logger | Sequence[Logger] = (),
    ) -> Run:
        """Continue the run bit for bit, for example until ["updates=20_000"]; return it."""
        words = merge_overrides([setting("resume", self.folder)], overrides)
        return _train(words, callbacks, loggers)

    def _settings(self, command: str, overrides: Sequence[str], implied: Sequence[str] = ()) -> Any:
        return settings_of(command, [setting("run", self.folder), *implied], overrides)


class Report:
    """The page of a report, and what it recommends per task and grid of alphas."""

    def __init__(self, page: Path, summary: Summary) -> None:
        self.page, self.summary = page, summary

    @property
    def recommendations(self) -> dict[str, list[str]]:
        """The verdict, then its reasons, by the name of the grid."""
        from offline_cql.report.messages import sentences

        return {name: sentences(each) for name, each in self.summary.selections.items()}
