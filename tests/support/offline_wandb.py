"""What W&B has written offline, read back with its own program."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def offline_runs(folder: Path) -> list[list[dict[str, Any]]]:
    """Return the records of each offline W&B run in a run folder, the oldest first."""
    program = Path(sys.executable).with_name("wandb")
    runs = []
    for run in sorted((folder / "wandb").glob("offline-run-*")):
        words = [program, "leet", "inspect", "--json", run]
        process = subprocess.run(words, capture_output=True, text=True, check=True)
        runs.append([json.loads(line) for line in process.stdout.splitlines()])
    return runs


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the records of a kind: run, history, summary, artifact, exit."""
    return [record[kind] for record in records if record["type"] == kind]
