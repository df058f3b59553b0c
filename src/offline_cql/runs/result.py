"""result.json of runs that do not finish: failed before the training, or killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from offline_cql.errors import ConfigError, DivergedError, PreemptedError
from offline_cql.io import NUMBER, locked, read_json, write_json
from offline_cql.runs.folder import METADATA, RESULT, saved_updates
from offline_cql.stop_signals import deferred

NUMBERS = ("return_mean", "return_std", "normalized_score", "updates_per_second", "wall_seconds")
RESULT_SHAPE = {
    **{"status": str, "updates": int, "episodes": int},
    **dict.fromkeys((*NUMBERS, "behavior_return"), (*NUMBER, NoneType)),
    **{"error": (str, NoneType), "signal": (int, NoneType)},
}
KILLED = "the process was killed, or the machine went down"


def describe_stop(stop: BaseException | None) -> tuple[str, str | None, int | None]:
    """Return status, error and signal for result.json; `stop` is the exception, if any."""
    if stop is None:
        return "finished", None, None
    if isinstance(stop, DivergedError):
        return "diverged", str(stop), None
    if isinstance(stop, PreemptedError):
        return "preempted", str(stop), stop.signal_number
    if isinstance(stop, Exception):
        return "failed", f"{type(stop).__name__}: {stop}", None
    return "failed", "interrupted", None


def read_result(folder: Path) -> dict[str, Any]:
    """Return the content of a run's result.json. Raises DataError for what is none."""
    return read_json(folder / RESULT, RESULT_SHAPE)


def is_finished(folder: Path) -> bool:
    """Return whether the run has a result.json that says finished."""
    return (folder / RESULT).exists() and bool(read_result(folder)["status"] == "finished")


@contextmanager
def recorded_failure(folder: Path) -> Iterator[None]:
    """Write result.json when the block raises and has not written it."""
    try:
        yield
    except BaseException as error:
        status, reason, signal_number = describe_stop(error)
        with deferred():
            if not (folder / RESULT).exists():
                write_json(folder / RESULT, _result(folder, status, reason, signal_number))
        raise


def record_killed(folder: Path) -> None:
    """Write result.json of a run that no process holds and that has none.

    A run is held from the creation of its folder to its result, so that it was killed.
    """
    if (folder / RESULT).exists() or not (folder / METADATA).exists():
        return
    try:
        with locked(folder):
            write_json(folder / RESULT, _result(folder, "failed", KILLED, None))
    except (ConfigError, OSError):
        return  # it is in progress, or in a folder that only others can write


def _result(
    folder: Path, status: str, error: str | None, signal_number: int | None
) -> dict[str, Any]:
    """Return the content of result.json of a run that has no score."""
    return {
        "status": status,
        "updates": max(saved_updates(folder), default=0),
        "updates_per_second": None,
        "wall_seconds": None,
        "return_mean": None,
        "return_std": None,
        "normalized_score": None,
        "episodes": 0,
        "evaluation_error": None,
        "behavior_return": None,
        "error": error,
        "signal": signal_number,
    }
