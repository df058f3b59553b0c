"""A run's run at W&B: what it shows, and what commands after the training add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from offline_cql.config import LoggerConfig
from offline_cql.render.command import command, path_word
from offline_cql.render.message import print_message
from offline_cql.render.terminal import Terminal
from offline_cql.runs.folder import read_metadata
from offline_cql.runs.wandb_run import RunInfo, add_to_wandb

# By number of updates: metrics, and paths of videos.
Curves: TypeAlias = Mapping[int, Mapping[str, float | Path]]


def run_info(
    folder: Path,
    logger: LoggerConfig,
    facts: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> RunInfo:
    """Return what a run shows at its loggers, under the id and the grid of metadata.json.

    facts: its settings and its data; tags: beside those of the settings.
    """
    metadata = read_metadata(folder)
    return RunInfo(
        folder=folder,
        config=facts or {},
        run_id=metadata.get("wandb_id"),
        grid=metadata.get("grid"),
        project=logger.project,
        entity=logger.entity,
        group=logger.group,
        name=logger.name,
        job_type=logger.job_type,
        notes=logger.notes,
        tags=[*logger.tags, *tags],
        artifacts=logger.artifacts,
    )


def send_results(
    folder: Path,
    logger: LoggerConfig,
    *,
    curves: Curves | None = None,
    figures: Mapping[str, Any] | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
) -> None:
    """Add what a command found out about a run to its run at W&B, if it has one.

    figures: single values of its summary. files: of artifacts, by their names; uploaded where
    logger.artifacts says so. A failure of W&B is a warning: everything is in the run folder.
    """
    info = run_info(folder, logger)
    anything = curves or figures or (files and info.with_artifacts)
    if "wandb" not in logger.names or info.run_id is None or not anything:
        return
    try:
        add_to_wandb(info, curves or {}, figures or {}, files or {})
    except Exception as error:  # third-party code
        reason = str(error).partition("\n")[0]
        print_message(f"warning: W&B failed ({reason}); the results are in {folder}")


def print_sync_command(terminal: Terminal, folder: Path) -> None:
    """Print the command that uploads what W&B has logged offline, if there is any."""
    offline = sorted(folder.glob("wandb/offline-run-*"))
    if offline:
        terminal.print_field("curves", command("wandb", "sync", *map(path_word, offline)))
