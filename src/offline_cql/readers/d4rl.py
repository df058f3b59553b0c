"""Reader of D4RL's legacy HDF5 files: one flat array per quantity over all episodes.

It returns the transitions of D4RL's `qlearning_dataset`: the next observation of a step is the
observation of the next row (`next_observations` in the file are not read); a step with a timeout
has no next observation and is dropped, and so is the last row; a terminal step keeps the next
row's observation, which its discount of 0 masks.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from offline_cql.errors import DataError
from offline_cql.io import expand_home
from offline_cql.readers.download import download, is_downloaded, verify
from offline_cql.readers.foreign_files import refuse_foreign_content, tianshou_conversion
from offline_cql.readers.hdf5 import refuse_foreign_links
from offline_cql.readers.row_files import Array
from offline_cql.readers.writer import (
    CHUNK,
    Steps,
    TransitionWriter,
    file_signature,
    translate_errors,
)
from offline_cql.render.command import command, path_word
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # first bytes of every HDF5 file
VECTORS = ("observations", "actions")
REQUIRED = (*VECTORS, "rewards", "terminals")
BOUND = 1.0  # of D4RL's actions; the files do not state it
MAX_TIMEOUTS = 0.5  # share of the rows
MAX_WIDTH = 1_000_000  # numbers per observation or action; more is a corrupt header


@functools.cache
def tasks() -> dict[str, dict[str, Any]]:
    """Return D4RL's tasks: {"url", "ref_min", "ref_max"}, the returns of scores 0 and 100."""
    text = (resources.files("offline_cql.readers") / "d4rl_tasks.json").read_text()
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content


def task_path(task: str) -> Path:
    """Return the path of a task's file in $D4RL_DATASET_DIR, whether or not it exists.

    Raises DataError, with the closest names, for a task that D4RL does not have.
    """
    if task not in tasks():
        close = difflib.get_close_matches(task, tasks(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "example: hopper-medium-v2"
        raise DataError(f"dataset.id={task} is not a task of D4RL; {hint}")
    name = os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets"
    folder = expand_home(name, "set D4RL_DATASET_DIR to a folder that you can write")
    url: str = tasks()[task]["url"]
    return folder / url.rpartition("/")[2]


def ensure_task_file(task: str) -> Path:
    """Return the path of a task's file; download the file if it is missing. Raises DataError."""
    path = task_path(task)
    if not path.exists():
        download(
            tasks()[task]["url"],
            path,
            title=task,
            remedy=f"put the file at {path} by hand, or use data that need no network: "
            f"{command('train.py', 'env=hopper')}",
            signature=SIGNATURE,
        )
    return path


class D4RLReader:
    """Reader of one file in D4RL's layout.

    simulator: spaces that the data have to fit, or None. episode_length: the time limit that ends
    episodes in a file without `timeouts`. Raises DataError when the file is missing, broken or
    has another layout.
    """

    def __init__(
        self, path: Path, dataset_id: str, *, simulator: Spaces | None, episode_length: int | None
    ):
        self.path, self.dataset_id = path, dataset_id
        self.simulator, self.episode_length = simulator, episode_length

    def fingerprint(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise DataError(f"{self.path} is not a file: set dataset.path or $D4RL_DATASET_DIR")
        simulator = asdict(self.simulator) if self.simulator is not None else None
        settings = {"simulator": simulator, "episode_length": self.episode_length}
        return {"id": self.dataset_id, "file": file_signature(self.path), **settings}

    def spaces(self) -> Spaces:
        """Return the simulator's spaces, or the file's sizes with D4RL's action bounds, ±1."""
        with _open(self.path) as arrays:
            observation, action = (int(arrays[name].shape[1]) for name in VECTORS)
        if self.simulator is None:
            return Spaces(observation, action, False, (-BOUND,) * action, (BOUND,) * action)
        expected = self.simulator.observation_dim, self.simulator.action_dim
        if self.simulator.discrete or (observation, action) != expected:
            raise DataError(
                f"{self.path} has observations of {observation} and actions of {action} numbers; "
                f"the simulator has {self.simulator}: choose another env, or env=logged"
            )
        return self.simulator

    def read(self, writer: TransitionWriter) -> None:
        """Read the flags of the whole file, then the other arrays in chunks of CHUNK steps."""
        verify(self.path, repair=_repair(self.path))
        with _open(self.path) as arrays:
            size = max(len(arrays["rewards"]) - 1, 0)  # the last row has no next observation
            writer.check_disk_space(size)
            terminal = _flags(arrays["terminals"])
            timeout = self._timeouts(arrays, terminal)
            writer.count_repair("steps_dropped_at_timeouts", int(timeout[:-1].sum()))
            both = (timeout & terminal)[:-1]
            writer.count_repair("terminals_dropped_at_timeouts", int(both.sum()))
            with ProgressBar(f"reading {self.dataset_id}", size) as bar:
                for start in range(0, size, CHUNK):
                    stop = min(start + CHUNK, size)
                    writer.append(_steps(arrays, terminal, timeout, start, stop))
                    bar.advance(stop - start)
            if size and not timeout[-1]:  # otherwise it is counted as a timeout
                writer.count_repair("last_step_dropped")
            source = "timeouts of the file" if "timeouts" in arrays else "simulator's time limit"
            writer.check_loss(
                int(timeout[:-1].sum()),
                largest_share=MAX_TIMEOUTS,
                reason=f"they are at a time limit, according to the {source}",
                remedy="check the timeouts; dataset=table keeps truncated rows that have a next "
                "observation",
            )

    def _timeouts(self, arrays: dict[str, Any], terminal: Array) -> Array:
        """Return the rows [N] at which a time limit ended an episode.

        From the file; or every episode_length-th row since the last terminal one, or since the
        first row.
        """
        if "timeouts" in arrays:
            return _flags(arrays["timeouts"])
        if not self.episode_length:
            raise DataError(
                f"{self.path} has no timeouts and there is no simulator with a time limit: choose "
                f"the env that the data come from; the file has {_names(arrays['rewards'].file)}"
            )
        rows = np.arange(len(terminal))
        after_terminal = np.where(terminal, rows + 1, 0)
        begins = np.maximum.accumulate(np.append(0, after_terminal))[:-1]
        timeout: Array = (rows - begins + 1) % self.episode_length == 0
        return timeout


def _steps(arrays: dict[str, Any], terminal: Array, timeout: Array, start: int, stop: int) -> Steps:
    """Return the transitions of rows start … stop − 1; row `stop` is read as next observation.

    terminal, timeout: flags of all rows.
    """
    terminal, timeout = terminal[start : stop + 1], timeout[start : stop + 1]
    keep = ~timeout[:-1]
    observations = _read(arrays["observations"], start, stop + 1)
    return Steps(
        observations=observations[:-1][keep],
        actions=_read(arrays["actions"], start, stop)[keep],
        rewards=_read(arrays["rewards"], start, stop)[keep],
        next_observations=observations[1:][keep],
        terminated=terminal[:-1][keep],
        # The step before a timeout becomes the last of its episode, unless it is terminal.
        truncated=(timeout[1:] & ~terminal[:-1])[keep],
    )


@contextmanager
def _open(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the validated arrays of a file by name."""
    with ExitStack() as stack:
        with translate_errors(path, _repair(path)):
            refuse_foreign_content(path, ".hdf5", again=_repair(path))
            arrays = _validate(path, stack.enter_context(h5py.File(path, "r")))
        yield arrays


def _read(array: h5py.Dataset, start: int = 0, stop: int | None = None) -> Array:
    """Return rows start … stop − 1: [T, D] of observations and actions, [T] otherwise."""
    path = array.file.filename
    with translate_errors(path, _repair(path)):
        values: Array = array[start:stop]
    return values if array.name.strip("/") in VECTORS else values.reshape(len(values))


def _flags(array: h5py.Dataset) -> Array:
    """Return terminals or timeouts [N] as bool. Raises DataError for other values than 0 and 1."""
    values = _read(array)
    invalid = (values != 0) & (values != 1)
    if invalid.any():
        position = f"{array.name.strip('/')} at row {invalid.argmax()}"
        value = values[invalid.argmax()]
        raise DataError(f"{array.file.filename}: {position} is {value}, expected 0 or 1")
    return values.astype(bool)


def _validate(path: Path, file: h5py.File) -> dict[str, Any]:
    """Return the arrays of an open file by name. Raises DataError for another layout."""
    refuse_foreign_links(file, path)
    if missing := [name for name in REQUIRED if name not in file]:
        remedy = tianshou_conversion(path, file) or "choose a file in D4RL's layout"
        raise DataError(
            f"{path} has no {', '.join(missing)}; the file has {_names(file)}: {remedy}"
        )
    arrays = {name: file[name] for name in [*REQUIRED, *({"timeouts"} & set(file))]}
    for name, array in arrays.items():
        if fault := _find_fault(name, array):
            raise DataError(f"{path}: {name} {fault}")
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: the arrays differ in length: {lengths}")
    return arrays


def _find_fault(name: str, array: Any) -> str | None:
    """Return why an array cannot be read, or None."""
    if not isinstance(array, h5py.Dataset):
        return "is not an array"
    if array.is_virtual or array.external:
        return "is stored in another file: copy the data"
    if array.dtype.kind not in "biuf":
        return f"has dtype {array.dtype}, expected numbers"
    shape: tuple[int, ...] = array.shape or ()
    if name in VECTORS:
        valid, expected = len(shape) == 2 and 0 < shape[1] <= MAX_WIDTH, "[N, D]"
    else:
        valid, expected = len(shape) == 1 or shape[1:] == (1,), "[N]"
    if not valid:
        return f"has shape {array.shape}, expected {expected}"
    settings = array.id.get_create_plist()
    for index in range(settings.get_nfilters()):
        code, *_, title = settings.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            return (
                f"is compressed by filter {code} ({title.decode()}), which h5py lacks: compress "
                "the file with gzip instead (h5repack -f GZIP=4)"
            )
    return None


def _names(file: h5py.File) -> str:
    return ", ".join(sorted(map(str, file))) or "nothing"


def _repair(path: Path | str) -> str:
    """Return the remedy for a broken file; only a file that was downloaded here is deleted."""
    if not is_downloaded(Path(path)):
        return "put an intact copy there"
    remove = command("rm", path_word(path))
    return f"delete it ({remove}) and run the same command again, or put an intact copy there"
