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

from pytorch_lightning.loggers import (
    CometLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from offline_cql.errors import ConfigError
from offline_cql.io import home_folder, write_json
from offline_cql.readers.cache import cache_root
from offline_cql.render.command import path_word, shell_word
from offline_cql.render.message import print_message
from offline_cql.runs.folder import METADATA, read_metadata

WANDB_INIT_TIMEOUT = 20.0  # seconds until W&B logs offline instead
WANDB_FINISH_TIMEOUT = 30.0  # seconds that W&B may upload at the end of a run
WANDB_ONLINE = ("online", "run", "shared")  # modes that need a key
PROJECT = "offline-cql"  # where neither the settings nor the service name one
CLOSE_TIMEOUT = 90.0  # seconds that a run waits for one logger at its end
STOP_TIMEOUT = 5.0  # seconds that a run waits for all loggers after a stop signal


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The facts about a run that its loggers show.

    config: the settings and the data as plain values; run_id: the run's id at W&B, kept when it is
    resumed; grid: the group of a job of a grid, where none is set. None: what the service has set,
    as WANDB_PROJECT does, then a default.
    """

    folder: Path
    config: Mapping[str, Any]
    run_id: str | None
    grid: str | None
    project: str | None
    entity: str | None
    group: str | None
    name: str | None
    job_type: str | None
    notes: str | None
    tags: Sequence[str]


@dataclass(frozen=True)
class Service:
    """One kind of logger: its package, how a run starts there, and how it ends.

    start returns Lightning's logger with a run of its own; end(logger, result, succeeded) adds the
    result and closes the run.
    """

    title: str
    package: str
    start: Callable[[RunInfo], Logger]
    end: Callable[[Any, Mapping[str, Any], bool], None]


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

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.experiment.log({**metrics, "update": step})


def start_wandb(info: RunInfo) -> WandbLogger:
    """Start a W&B run: online when W&B would, a key is configured, and W&B answers.

    In a sweep the run is the agent's.
    """
    import wandb

    place_wandb()
    user = wandb.setup().settings  # of variables and files of W&B: WANDB_PROJECT and the like

    def start(mode: Any) -> Any:
        return wandb.init(
            project=info.project or user.project or PROJECT,
            entity=info.entity or user.entity,
            group=info.group or user.run_group or info.grid,
            job_type=info.job_type or user.run_job_type,
            notes=info.notes or user.run_notes,
            tags=[*dict.fromkeys([*(user.run_tags or ()), *info.tags])],
            name=info.name or user.run_name or info.folder.name,
            dir=info.folder,
            id=None if user.sweep_id is not None else info.run_id,
            resume="allow" if mode in WANDB_ONLINE else None,
            config=dict(info.config),
            mode=mode,
            settings=wandb.Settings(
                reinit="create_new",  # one run per training, not the open one of the process
                init_timeout=WANDB_INIT_TIMEOUT,
                finish_timeout=WANDB_FINISH_TIMEOUT,
                console="off",
                silent=True,
            ),
        )

    mode = wandb_mode()
    if (switch := off_switch(mode)) is not None:
        print_message(
            f"note: W&B {'logs nothing' if mode == 'disabled' else 'is offline'}: {switch}"
        )
    try:
        run = start(mode)
    except Exception as error:  # third-party code: any failure means offline
        if mode not in WANDB_ONLINE:
            raise
        reason = str(error).partition("\n")[0]
        runs = f"{shell_word(path_word(info.folder))}/wandb/offline-*"
        print_message(
            f"warning: W&B could not be reached ({reason}); logging offline. "
            f"Upload later with: wandb sync {runs}"
        )
        wandb.teardown(exit_code=1)  # its service would go on and hold the run's id
        run = start("offline")
    if mode != "disabled" and info.run_id not in (None, run.id):
        record_wandb_id(info.folder, run.id)
    run.define_metric("update")
    run.define_metric("*", step_metric="update")
    return WandbUpdateLogger(experiment=run)


def place_wandb() -> None:
    """Set W&B's folders to one in the cache, where those in the home folder cannot be written.

    Before W&B reads its settings: it has no other way of saying where its logs and artifacts go.
    """
    home, folder = home_folder(), cache_root() / "wandb"
    if home is None or not os.access(home, os.W_OK):
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder))
        os.environ.setdefault("WANDB_DATA_DIR", str(folder))
    if home is None:  # else its files are read, which may switch W&B off
        os.environ.setdefault("WANDB_CONFIG_DIR", str(folder))
        os.environ.setdefault("XDG_DATA_HOME", str(folder))
        os.environ.setdefault("NETRC", str(folder / "netrc"))


def record_wandb_id(folder: Path, run_id: str) -> None:
    """Write the id that W&B gave a run into metadata.json: a sweep and SageMaker choose it."""
    write_json(folder / METADATA, read_metadata(folder) | {"wandb_id": run_id})
    print_message(f"note: W&B logs {folder} as {run_id}")


def end_wandb(logger: WandbLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    import wandb

    run = logger.experiment
    rows = [[key, str(value)] for key, value in result.items()]
    run.log({"result": wandb.Table(columns=["figure", "value"], data=rows)})
    run.summary.update({f"result/{key}": value for key, value in result.items()})
    run.finish(exit_code=0 if succeeded else 1)


def wandb_mode() -> str:
    """Return the mode that W&B has by its variables and settings files; offline without a key.

    `wandb offline` and `wandb disabled` write such a file.
    """
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb.setup().settings
    if is_disabled():
        return "disabled"
    mode: str = settings.mode
    if mode not in WANDB_ONLINE or settings.api_key or settings.identity_token_file:
        return mode
    return mode if read_netrc_auth(host=settings.base_url) else "offline"


def is_disabled() -> bool:
    """Return whether $WANDB_DISABLED says so: older W&B and Transformers know it, W&B no more."""
    return os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on")


def off_switch(mode: str) -> str | None:
    """Return what makes W&B less than online, as the user set it; None without a switch.

    mode: of `wandb_mode`. A key that is missing counts where WANDB_MODE is an online mode.
    """
    import wandb

    settings = wandb.setup().settings
    if is_disabled():
        return f"WANDB_DISABLED={os.environ['WANDB_DISABLED']}"
    typed = os.environ.get("WANDB_MODE")
    if settings.mode in WANDB_ONLINE:
        missing = typed is not None and mode == "offline"
        return f"WANDB_MODE={typed} needs a key: run `wandb login`" if missing else None
    if typed is not None:
        return f"WANDB_MODE={typed}"
    files = " and ".join(str(path) for path in settings.read_system_settings().sources)
    return f"mode = {settings.mode} in {files}"


# --- TensorBoard, MLflow, Comet -------------------------------------------------------------------


def start_tensorboard(info: RunInfo) -> TensorBoardLogger:
    """Start event files in the run folder: `tensorboard --logdir outputs`."""
    logger = TensorBoardLogger(info.folder, "tensorboard", version="", default_hp_metric=False)
    logger.log_hyperparams(dict(info.config))
    return logger


def end_tensorboard(logger: TensorBoardLogger, result: Mapping[str, Any], succeeded: bool) -> None:
    logger.experiment.add_text("result", json.dumps(dict(result)))
    logger.finalize("success" if succeeded else "failed")


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
    "wandb": Service("W&B", "wandb", start_wandb, end_wandb),
    "tensorboard": Service("TensorBoard", "tensorboard", start_tensorboard, end_tensorboard),
    "mlflow": Service("MLflow", "mlflow", start_mlflow, end_mlflow),
    "comet": Service("Comet", "comet_ml", start_comet, end_comet),
}
