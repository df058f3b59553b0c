"""Grids (`-m`): a record per job, and the summary table after the last one."""

import atexit
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from hydra.conf import HydraConf
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from offline_cql.config.hydra_internals import sweep_jobs
from offline_cql.errors import DataError
from offline_cql.io import read_json, write_json
from offline_cql.runs.folder import RESULT
from offline_cql.runs.result import read_result

JOBS = "jobs"
JOB = {"overrides": list, "run": (str, NoneType), "error": (str, NoneType)}


@dataclass(frozen=True)
class Job:
    """A job of a grid: the grid's folder and the number of the job."""

    folder: Path
    number: int

    @classmethod
    def of(cls, hydra: HydraConf | DictConfig) -> "Job":
        return cls(Path(hydra.sweep.dir), int(hydra.job.num))

    @property
    def grid(self) -> str:
        return self.folder.name

    def write(self, overrides: list[str], run: Path | None, error: str | None) -> None:
        """Write the run folder and the error of this job; either may be None."""
        (self.folder / JOBS).mkdir(parents=True, exist_ok=True)
        write_json(
            self.folder / JOBS / f"{self.number:04d}.json",
            {"overrides": overrides, "run": str(run) if run else None, "error": error},
        )


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return one row per started job, in order: number, overrides, run folder, error, result.

    The result is {} without one.
    """
    jobs = []
    for path in sorted((folder / JOBS).glob("*.json")):
        job = read_json(path, JOB) | {"number": int(path.stem)}
        run = Path(job["run"]) if job["run"] else None
        job["result"] = _result(run) if run else {}
        jobs.append(job)
    return jobs


def _result(run: Path) -> dict[str, Any]:
    """Return the result of a run, {} without one; that of a damaged file is its error."""
    try:
        return read_result(run) if (run / RESULT).exists() else {}
    except DataError as error:
        return {"status": "failed", "error": str(error)}


class GridSummary(Callback):
    """Print the summary when the process ends: after the last job, a failed one, or a signal."""

    def on_multirun_start(self, config: DictConfig, **_kwargs: Any) -> None:
        folder, planned = Path(config.hydra.sweep.dir), sweep_jobs(config)

        def show() -> None:
            from offline_cql.commands.summary import print_grid, print_not_started

            jobs = rows(folder)
            if jobs:
                print_grid(folder, jobs)
                numbers = {job["number"] for job in jobs}
                print_not_started([job for k, job in enumerate(planned) if k not in numbers])

        atexit.register(show)
