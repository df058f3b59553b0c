"""A run's run at Weights & Biases: opened, continued, and given results and files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from offline_cql.io import cache_root, home_folder, write_json
from offline_cql.render.command import path_word, shell_word
from offline_cql.render.message import print_message
from offline_cql.runs.folder import (
    CONFIG,
    METADATA,
    digest_path,
    kept_updates,
    policy_path,
    read_metadata,
)

WANDB_INIT_TIMEOUT = 20.0  # seconds until W&B logs offline instead
WANDB_FINISH_TIMEOUT = 30.0  # seconds that W&B may upload at the end of a run
WANDB_ONLINE = ("online", "run", "shared")  # modes that need a key
PROJECT = "offline-cql"  # where neither the settings nor the service name one


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
    artifacts: Literal["none", "policy", "all"] | None = None

    @property
    def with_artifacts(self) -> bool:
        """Whether files go to W&B."""
        return self.artifacts not in (None, "none")


def open_wandb_run(info: RunInfo) -> Any:
    """Open a W&B run: online when W&B would, a key is configured, and W&B answers.

    In a sweep the run is the agent's. A run of this id that is there, also offline, goes on.
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
            resume="allow",
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
    return run


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


def run_files(info: RunInfo) -> list[Path]:
    """Return the files of a run that `logger.artifacts` names: its last policy, or everything.

    Both are laid out as the run folder, and `load_policy` and resume= work on a downloaded copy.
    """
    folder = info.folder
    if info.artifacts == "all":
        return [file for file in folder.rglob("*") if file.relative_to(folder).parts[0] != "wandb"]
    last = policy_path(folder, max(kept_updates(folder), default=0))
    return [folder / CONFIG, folder / METADATA, last, digest_path(last)]


def log_artifact(run: Any, info: RunInfo, name: str, files: Sequence[Path]) -> None:
    """Add files to W&B as the artifact RUN-NAME, by their places in the run folder."""
    import wandb

    files = [file for file in files if file.is_file() and not file.is_symlink()]
    if not (info.with_artifacts and files):
        return
    artifact = wandb.Artifact(f"{run.id}-{name}", type="report" if name == "report" else "model")
    for file in files:
        inside = file.is_relative_to(info.folder)
        artifact.add_file(str(file), str(file.relative_to(info.folder)) if inside else file.name)
    run.log_artifact(artifact)


def add_to_wandb(
    info: RunInfo,
    curves: Mapping[int, Mapping[str, float | Path]],
    figures: Mapping[str, Any],
    files: Mapping[str, Sequence[Path]],
) -> None:
    """Continue a run at W&B by metrics per number of updates, single figures and artifacts.

    A path in place of a metric is that of a video.
    """
    import wandb

    place_wandb()
    if wandb_mode() == "disabled":
        return
    run = open_wandb_run(info)
    for update, metrics in sorted(curves.items()):
        values = {
            name: wandb.Video(str(value), format="gif") if isinstance(value, Path) else value
            for name, value in metrics.items()
        }
        run.log({**values, "update": update})
    run.summary.update(dict(figures))
    for name, paths in files.items():
        log_artifact(run, info, name, paths)
    run.finish()


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
