"""Mirrors of the record: Weights & Biases, TensorBoard. metrics.csv is the truth, these follow it.

A mirror that is slow, down or not logged in never stops a run. The x-axis is always the update.
"""

import json
import netrc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from offline_cql.config import LoggerConfig
from offline_cql.errors import ConfigError

INIT_TIMEOUT, FINISH_TIMEOUT = 20.0, 30.0  # seconds that W&B may hold a run up


class Mirror(Protocol):
    """Receives what the record writes."""

    def log(self, metrics: Mapping[str, float], update: int) -> None: ...

    def finish(self, result: Mapping[str, Any], exit_code: int) -> None: ...


class WandbMirror:
    """One W&B run: online when a key is configured, offline otherwise; never a prompt."""

    def __init__(
        self,
        logger: LoggerConfig,
        folder: Path,
        *,
        config: Mapping[str, Any],
        run_id: str,
        group: str | None,
        tags: list[str],
    ) -> None:
        import wandb

        self.lost = False

        def start(mode: Any) -> Any:
            return wandb.init(
                project=logger.project,
                entity=logger.entity,
                group=logger.group or group,
                tags=[*logger.tags, *tags],
                name=folder.name,
                dir=folder,
                id=run_id,
                resume="allow" if mode == "online" else None,
                config=dict(config),
                mode=mode,
                settings=wandb.Settings(
                    init_timeout=INIT_TIMEOUT,
                    finish_timeout=FINISH_TIMEOUT,
                    console="off",
                    silent=True,
                ),
            )

        mode = wandb_mode()
        if mode == "online":
            try:
                self.run = start("online")
            except Exception as error:  # foreign code: whatever stops it must not stop the run
                reason = str(error).partition("\n")[0]
                print(
                    f"warning: W&B could not be reached ({reason}); logging offline, "
                    f"later: wandb sync {folder}/wandb/offline-*",
                    file=sys.stderr,
                )
                wandb.teardown(exit_code=1)  # its service would go on and hold the run's id
                mode = "offline"
        if mode != "online":
            self.run = start(mode)
        self.run.define_metric("update")
        self.run.define_metric("*", step_metric="update")

    def log(self, metrics: Mapping[str, float], update: int) -> None:
        with self.at_a_distance():
            self.run.log({**metrics, "update": update})

    def finish(self, result: Mapping[str, Any], exit_code: int) -> None:
        import wandb

        rows = [[key, value] for key, value in result.items()]
        table = wandb.Table(columns=["figure", "value"], data=[[k, str(v)] for k, v in rows])
        with self.at_a_distance():
            self.run.log({"result": table})
            self.run.summary.update({f"result/{key}": value for key, value in rows})
            self.run.finish(exit_code=exit_code)

    @contextmanager
    def at_a_distance(self) -> Iterator[None]:
        """W&B's service is a process of its own: when it dies the run goes on, and says so once."""
        try:
            yield
        except Exception as error:  # foreign code, as above
            if not self.lost:
                print(f"warning: W&B stopped ({error}); metrics.csv goes on", file=sys.stderr)
            self.lost = True


def wandb_mode() -> str:
    """$WANDB_MODE, else online when a key is configured, else offline."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    if host is None or not file.exists():
        return "offline"
    try:
        login = netrc.netrc(file).authenticators(host)
    except netrc.NetrcParseError:
        return "offline"
    return "online" if login else "offline"


class TensorboardMirror:
    """Scalars for TensorBoard in the run folder: `tensorboard --logdir outputs`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard needs its extra: pip install 'offline-cql[tensorboard]'"
            ) from error
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: Mapping[str, float], update: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, update)

    def finish(self, result: Mapping[str, Any], exit_code: int) -> None:
        self.writer.add_text("result", json.dumps(dict(result)))
        self.writer.close()


def make_mirrors(
    logger: LoggerConfig,
    folder: Path,
    *,
    config: Mapping[str, Any],
    run_id: str | None,
    group: str | None,
    tags: list[str],
) -> list[Mirror]:
    """What `logger=…` names; csv and none have no mirror (metrics.csv is written always)."""
    if logger.kind == "wandb":
        assert run_id is not None
        return [WandbMirror(logger, folder, config=config, run_id=run_id, group=group, tags=tags)]
    if logger.kind == "tensorboard":
        return [TensorboardMirror(folder)]
    return []
