"""Lightning's loggers, each behind a guard; they receive the numbers of metrics.csv.

A logger that is slow, down or not logged in neither stops nor delays a run. The x-axis is always
the number of updates.
"""

import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from pytorch_lightning.loggers import (
    CometLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from offline_cql.errors import ConfigError
from offline_cql.render.message import print_message
from offline_cql.runs.wandb_run import PROJECT, RunInfo, log_artifact, open_wandb_run, run_files

CLOSE_TIMEOUT = 90.0  # seconds that a run waits for one logger at its end
STOP_TIMEOUT = 5.0  # seconds that a run waits for all loggers after a stop signal


@dataclass(frozen=True)
class Service:
    """One kind of logger: its package, how a run starts there, and how it ends.

    start returns Lightning's logger with a run of its own; end(logger, result, succeeded) adds the
    result and closes the run; histogram(logger, name, values, update) and video(logger, name, path,
    update) add one, None: not here.
    """

    title: str
    package: str
    start: Callable[[RunInfo], Logger]
    end: Callable[[Any, Mapping[str, Any], bool], None]
    histogram: Callable[[Any, str, Sequence[float], int], None] | None = None
    video: Callable[[Any, str, Path, int], None] | None = None


class GuardedLogger(Logger):
    """A logger that works on a thread of its own and reports its first failure on stderr.

    Lightning calls `experiment` and `finalize` unguarded. Here there is no `experiment`, and
    `finalize` does nothing: the run is closed by `finish`, when its result is known. The settings
    are sent once, at the start of the run; checkpoints and graphs never.
    """

    def __init__(self, service: Service, info: RunInfo) -> None:
        super().__init__()
        self.service, self.info = service, info
        self._failed = False
        self._calls: SimpleQueue[Callable[[Logger], None] | None] = SimpleQueue()
        # A daemon, because a logger that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=service.title, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str | None:
        return self.info.project or PROJECT

    @property
    def version(self) -> str:
        return self.info.folder.name

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        self._calls.put(lambda logger: logger.log_metrics(values, step=step))

    def log_histogram(self, name: str, values: Sequence[float], *, update: int) -> None:
        """Send values whose distribution matters, where the service has histograms."""
        if (send := self.service.histogram) is not None:
            numbers = list(values)
            self._calls.put(lambda logger: send(logger, name, numbers, update))

    def log_video(self, name: str, path: Path, *, update: int) -> None:
        """Send an animated GIF, where the service shows them."""
        if (send := self.service.video) is not None:
            self._calls.put(lambda logger: send(logger, name, path, update))

    def log_hyperparams(self, *_args: Any, **_options: Any) -> None:
        """Ignore Lightning's own call."""

    def finalize(self, status: str) -> None:
        """Ignore Lightning's own call: the result of the run is not known yet."""

    def finish(
        self, result: Mapping[str, Any], *, succeeded: bool, timeout: float | None = None
    ) -> None:
        """Send the result, close the run and wait for both; timeout: seconds, or CLOSE_TIMEOUT."""
        timeout = CLOSE_TIMEOUT if timeout is None else timeout
        self._calls.put(lambda logger: self.service.end(logger, result, succeeded))
        self._calls.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._report(f"no answer within {timeout:.0f} s")

    def _work(self) -> None:
        logger: Logger | None = None
        try:
            logger = self.service.start(self.info)
        except Exception as error:  # third-party code: no failure of it may stop the run
            self._report(error)
        while (call := self._calls.get()) is not None:
            try:
                if logger is not None:
                    call(logger)
            except Exception as error:  # third-party code, as above
                self._report(error)

    def _report(self, reason: object) -> None:
        if not self._failed:
            line = str(reason).partition("\n")[0]
            print_message(
                f"warning: {self.service.title} failed ({line}); the run continues, "
                "metrics.csv is complete"
            )
        self._failed = True


def make_loggers(names: Sequence[str], info: RunInfo) -> list[GuardedLogger]:
    """Start one run per named logger. Raises ConfigError for a package that is not installed."""
    import_packages(names)
    return [GuardedLogger(SERVICES[name], info) for name in names]


def import_packages(names: Sequence[str]) -> None:
    """Import the packages of the named loggers. Raises ConfigError as `make_loggers` does.

    In the main thread, because loggers that import at the same time could see half a module.
    """
    for name in names:
        try:
            importlib.import_module(SERVICES[name].package)
        except ImportError as error:
            remedy = f"pip install 'offline-cql[{name}]'"
            raise ConfigError(f"logger={name} needs an extra: {remedy}") from error


# --- Weights & Biases -----------------------------------------------------------------------------


class WandbUpdateLogger(WandbLogger):
    """Lightning's W&B logger with the column `update` as step, instead of trainer/global_step."""

    info: RunInfo

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log({**metrics, "update": step})


def start_wandb(info: RunInfo) -> WandbUpdateLogger:
    """Start Lightning's logger on the run that W&B has for this one."""
    logger = WandbUpdateLogger(experiment=open_wandb_run(info))
    logger.info = info
    return logger


def end_wandb(logger: WandbUpdateLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    import wandb

    run = logger.experiment
    rows = [[key, str(value)] for key, value in result.items()]
    run.log({"result": wandb.Table(columns=["figure", "value"], data=rows)})
    run.summary.update({f"result/{key}": value for key, value in result.items()})
    if succeeded:
        log_artifact(run, logger.info, "run", run_files(logger.info))
    run.finish(exit_code=0 if succeeded else 1)


def histogram_wandb(
    logger: WandbUpdateLogger, name: str, values: Sequence[float], update: int
) -> None:
    import wandb

    logger.experiment.log({name: wandb.Histogram(values), "update": update})


def video_wandb(logger: WandbUpdateLogger, name: str, path: Path, update: int) -> None:
    import wandb

    logger.experiment.log({name: wandb.Video(str(path), format="gif"), "update": update})


# --- TensorBoard, MLflow, Comet -------------------------------------------------------------------


def start_tensorboard(info: RunInfo) -> TensorBoardLogger:
    """Start event files in the run folder: `tensorboard --logdir outputs`."""
    logger = TensorBoardLogger(info.folder, "tensorboard", version="", default_hp_metric=False)
    logger.log_hyperparams(dict(info.config))
    return logger


def end_tensorboard(logger: TensorBoardLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    logger.experiment.add_text("result", json.dumps(dict(result)))
    logger.finalize("success" if succeeded else "failed")


def histogram_tensorboard(
    logger: TensorBoardLogger, name: str, values: Sequence[float], update: int
) -> None:
    logger.experiment.add_histogram(name, np.asarray(values), update)


def start_mlflow(info: RunInfo) -> MLFlowLogger:
    """Start a run at $MLFLOW_TRACKING_URI, or in the run folder when that is not set."""
    local, group = f"sqlite:///{info.folder.resolve()}/mlflow.db", info.group or info.grid
    logger = MLFlowLogger(
        experiment_name=info.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=info.name or info.folder.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", local),
        tags={tag: "" for tag in info.tags} | ({"group": group} if group else {}),
    )
    logger.log_hyperparams(dict(info.config))
    return logger


def end_mlflow(logger: MLFlowLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    for key, value in result.items():
        logger.experiment.set_tag(logger.run_id, f"result.{key}", str(value))
    logger.finalize("success" if succeeded else "failed")


def start_comet(info: RunInfo) -> CometLogger:
    """Start an experiment. Raises RuntimeError without a key, for which Comet would prompt."""
    import comet_ml

    if comet_ml.get_config("comet.api_key") is None:
        raise RuntimeError("no API key is configured: set COMET_API_KEY")
    group = info.group or info.grid
    logger = CometLogger(
        project=info.project or comet_ml.get_config("comet.project_name") or PROJECT,
        workspace=info.entity,
        name=info.name or info.folder.name,
        tags=[*info.tags, *([group] if group else [])],
    )
    logger.log_hyperparams(dict(info.config))
    return logger


def end_comet(logger: CometLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    logger.experiment.log_others({f"result/{key}": value for key, value in result.items()})
    logger.finalize("success" if succeeded else "failed")
    logger.experiment.end()


SERVICES = {
    "wandb": Service("W&B", "wandb", start_wandb, end_wandb, histogram_wandb, video_wandb),
    "tensorboard": Service(
        "TensorBoard", "tensorboard", start_tensorboard, end_tensorboard, histogram_tensorboard
    ),
    "mlflow": Service("MLflow", "mlflow", start_mlflow, end_mlflow),
    "comet": Service("Comet", "comet_ml", start_comet, end_comet),
}
