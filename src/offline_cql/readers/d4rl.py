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
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.readers.download import download, verify
from offline_cql.readers.hdf5 import find_foreign_link
from offline_cql.readers.writer import CHUNK, Steps, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

Array = npt.NDArray[Any]

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # first bytes of every HDF5 file
REQUIRED = ("observations", "actions", "rewards", "terminals")
BOUND = 1.0  # of D4RL's actions; the files do not state it
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
    folder = os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets"
    url: str = tasks()[task]["url"]
    return Path(folder).expanduser() / url.rpartition("/")[2]


def ensure_task_file(task: str) -> Path:
    """Return the path of a task's file; download the file if it is missing. Raises DataError."""
    path = task_path(task)
    if not path.exists():
        download(
            tasks()[task]["url"],
            path,
            title=task,
            remedy=f"put the file at {path} by hand, or use data that need no network: "
            "python train.py env=hopper",
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
        with _Arrays(self.path) as arrays:
            observation, action = arrays.width("observations"), arrays.width("actions")
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
        verify(self.path, repair=_repair(self.path))
        with _Arrays(self.path) as arrays:
            size = max(arrays.size - 1, 0)  # the last row has no next observation
            writer.check_disk_space(size)
            timeouts = _Timeouts(arrays, self.episode_length)
            with ProgressBar(f"reading {self.dataset_id}", size) as bar:
                for start in range(0, size, CHUNK):
                    stop = min(start + CHUNK, size)
                    _append(writer, arrays, timeouts, start, stop)
                    bar.advance(stop - start)
            if size and not timeouts.last:  # otherwise it is counted as a timeout
                writer.count_repair("last_step_dropped")


def _append(
    writer: TransitionWriter, arrays: _Arrays, timeouts: _Timeouts, start: int, stop: int
) -> None:
    """Append the transitions of rows start … stop − 1; row `stop` is read as next observation."""
    observations = arrays.read("observations", start, stop + 1)
    terminal = arrays.flags("terminals", start, stop + 1)
    timeout = timeouts.read(start, terminal)
    keep = ~timeout[:-1]
    writer.count_repair("steps_dropped_at_timeouts", int(timeout[:-1].sum()))
    writer.count_repair("terminals_dropped_at_timeouts", int((timeout & terminal)[:-1].sum()))
    writer.append(
        Steps(
            observations=observations[:-1][keep],
            actions=arrays.read("actions", start, stop)[keep],
            rewards=arrays.read("rewards", start, stop)[keep],
            next_observations=observations[1:][keep],
            terminated=terminal[:-1][keep],
            # The step before a timeout becomes the last of its episode, unless it is terminal.
            truncated=(timeout[1:] & ~terminal[:-1])[keep],
        )
    )


class _Timeouts:
    """The rows at which a time limit ended an episode: from the file, or by counting rows.

    `read` is called in order; the first row of each call is the last one of the call before.
    """

    def __init__(self, arrays: _Arrays, episode_length: int | None):
        self.arrays, self.stored = arrays, "timeouts" in arrays.datasets
        self.length = episode_length or 0
        self.begin, self.last = 0, False  # first row of the current episode; the latest flag
        if not self.stored and not self.length:
            raise DataError(
                f"{arrays.path} has no timeouts and there is no simulator with a time limit: "
                f"choose the env that the data come from; the file has {arrays.names}"
            )

    def read(self, start: int, terminal: Array) -> Array:
        """Return the flags [T] of the rows from `start` on, whose terminals are `terminal` [T]."""
        if self.stored:
            timeout = self.arrays.flags("timeouts", start, start + len(terminal))
        else:
            timeout = self._count(start, terminal)
        self.last = bool(timeout[-1])
        return timeout

    def _count(self, start: int, terminal: Array) -> Array:
        """Flag every `length`-th row since the last terminal one, or since the first row."""
        rows = np.arange(start, start + len(terminal))
        after = np.where(terminal, rows + 1, self.begin)
        begins = np.maximum.accumulate(np.concatenate([[self.begin], after[:-1]]))
        self.begin = int(begins[-1])  # the next call starts with this row
        timeout: Array = (rows - begins) % self.length == self.length - 1
        return timeout


class _Arrays:
    """The validated arrays of a file, read in slices.

    Errors of HDF5 become a DataError with a remedy.
    """

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> _Arrays:
        try:
            self.file = h5py.File(self.path, "r")
        except (OSError, RuntimeError) as error:
            raise self._broken(error) from error
        try:
            self._check()
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def names(self) -> str:
        return ", ".join(sorted(map(str, self.file))) or "nothing"

    @property
    def size(self) -> int:
        return int(self.datasets["rewards"].shape[0])

    def width(self, name: str) -> int:
        return int(self.datasets[name].shape[1])

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return rows start … stop − 1: [T, D] of observations and actions, [T] otherwise."""
        try:
            values: Array = self.datasets[name][start:stop]
        except (OSError, RuntimeError, ValueError) as error:
            raise self._broken(error) from error
        return values if name in ("observations", "actions") else values.reshape(len(values))

    def flags(self, name: str, start: int, stop: int) -> Array:
        values = self.read(name, start, stop)
        invalid = (values != 0) & (values != 1)
        if invalid.any():
            row = int(invalid.argmax())
            raise DataError(
                f"{self.path}: {name} at row {start + row} is {values[row]}, expected 0 or 1"
            )
        return values.astype(bool)

    def _check(self) -> None:
        try:
            link = find_foreign_link(self.file)
            if link is not None:
                raise DataError(f"{self.path}: {link} is a soft or external link: copy the data")
            names = [*REQUIRED, *({"timeouts"} & set(self.file))]
            if missing := [name for name in names if name not in self.file]:
                raise DataError(
                    f"{self.path} has no {', '.join(missing)}; the file has {self.names}"
                )
            self.datasets = {name: self.file[name] for name in names}
            for name, array in self.datasets.items():
                self._check_array(name, array)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise self._broken(error) from error
        lengths = {name: array.shape[0] for name, array in self.datasets.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.path}: the arrays differ in length: {lengths}")

    def _check_array(self, name: str, array: Any) -> None:
        if not isinstance(array, h5py.Dataset):
            raise DataError(f"{self.path}: {name} is not an array")
        if array.is_virtual or array.external:
            raise DataError(f"{self.path}: {name} is stored in another file: copy the data")
        if array.dtype.kind not in "biuf":
            raise DataError(f"{self.path}: {name} has dtype {array.dtype}, expected numbers")
        is_vector = name in ("observations", "actions")
        shape: tuple[int, ...] = array.shape or ()
        valid = len(shape) == 1 or shape[1:] == (1,)
        if is_vector:
            valid = len(shape) == 2 and 0 < shape[1] <= MAX_WIDTH
        if not valid:
            expected = "[N, D]" if is_vector else "[N]"
            raise DataError(f"{self.path}: {name} has shape {array.shape}, expected {expected}")
        settings = array.id.get_create_plist()
        for index in range(settings.get_nfilters()):
            code, *_, title = settings.get_filter(index)
            if not h5py.h5z.filter_avail(code):
                raise DataError(
                    f"{self.path}: {name} is compressed by filter {code} ({title.decode()}), which "
                    "h5py lacks: compress the file with gzip instead (h5repack -f GZIP=4)"
                )

    def _broken(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"{self.path} cannot be read ({reason}): {_repair(self.path)}")


def _repair(path: Path) -> str:
    return f"delete it (rm {path}) and run the same command again, or put an intact copy there"
