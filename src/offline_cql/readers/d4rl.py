"""D4RL's legacy HDF5 files, one flat array per quantity over all episodes.

Which transitions they give is what D4RL's `qlearning_dataset` gives: the next observation of a
step is the observation of the following row, whatever `next_observations` says; a step with a
timeout has none and is left out, and so is the last row; a terminal step keeps the following
row's, which its discount of 0 hides. Knows nothing of simulators or training.
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
from offline_cql.readers.writer import CHUNK, Steps, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

Array = npt.NDArray[Any]

SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of every HDF5 file
REQUIRED = ("observations", "actions", "rewards", "terminals")
BOUND = 1.0  # of D4RL's actions, which a file does not say
WIDEST = 1_000_000  # numbers of an observation or action that are believed


@functools.cache
def tasks() -> dict[str, dict[str, Any]]:
    """D4RL's tasks: {"url": of the file, "ref_min", "ref_max": returns of scores 0 and 100}."""
    text = (resources.files("offline_cql.readers") / "d4rl_tasks.json").read_text()
    known: dict[str, dict[str, Any]] = json.loads(text)
    return known


def place_of(task: str) -> Path:
    """Where a task's file belongs, whether or not it exists: in $D4RL_DATASET_DIR.

    Raises DataError, with the names most like it, for a task that D4RL does not have.
    """
    if task not in tasks():
        close = difflib.get_close_matches(task, tasks(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "as in dataset.id=hopper-medium-v2"
        raise DataError(f"dataset.id={task} is no task of D4RL; {hint}")
    folder = os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets"
    url: str = tasks()[task]["url"]
    return Path(folder).expanduser() / url.rpartition("/")[2]


def task_file(task: str) -> Path:
    """The task's file, downloaded if it is not there. Raises DataError."""
    path = place_of(task)
    if not path.exists():
        download(
            tasks()[task]["url"],
            path,
            title=task,
            remedy=f"put the file at {path} by hand, or try data that need no network: "
            "python train.py env=hopper",
            signature=SIGNATURE,
        )
    return path


class D4RLReader:
    """One file in D4RL's layout; `simulator`: the spaces that it has to fit, if there is one.

    episode_length: the steps after which a file without `timeouts` cut its episodes.
    Raises DataError when the file is absent, broken or not in the layout.
    """

    def __init__(
        self, path: Path, dataset_id: str, *, simulator: Spaces | None, episode_length: int | None
    ):
        self.path, self.dataset_id = path, dataset_id
        self.simulator, self.episode_length = simulator, episode_length

    def fingerprint(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise DataError(f"{self.path} is no file; see dataset.path and $D4RL_DATASET_DIR")
        simulator = asdict(self.simulator) if self.simulator is not None else None
        settings = {"simulator": simulator, "episode_length": self.episode_length}
        return {"id": self.dataset_id, "file": file_signature(self.path), **settings}

    def spaces(self) -> Spaces:
        """The simulator's, or the file's sizes with D4RL's bounds of actions, ±1."""
        with _Arrays(self.path) as arrays:
            observation, action = arrays.width("observations"), arrays.width("actions")
        if self.simulator is None:
            return Spaces(observation, action, False, (-BOUND,) * action, (BOUND,) * action)
        expected = self.simulator.observation_dim, self.simulator.action_dim
        if self.simulator.discrete or (observation, action) != expected:
            raise DataError(
                f"{self.path} has observations of {observation} and actions of {action} numbers, "
                f"which does not fit the simulator ({self.simulator}): choose another env, or "
                "env=logged"
            )
        return self.simulator

    def read(self, writer: TransitionWriter) -> None:
        verify(self.path, repair=_repair(self.path))
        with _Arrays(self.path) as arrays:
            size = max(arrays.size - 1, 0)  # nothing follows the last row
            writer.check_disk_space(size)
            timeouts = _Timeouts(arrays, self.episode_length)
            with ProgressBar(f"reading {self.dataset_id}", size) as bar:
                for start in range(0, size, CHUNK):
                    stop = min(start + CHUNK, size)
                    _add(writer, arrays, timeouts, start, stop)
                    bar.advance(stop - start)
            if size and not timeouts.last:  # else it was counted as a timeout
                writer.count_repair("last_step_dropped")


def _add(
    writer: TransitionWriter, arrays: _Arrays, timeouts: _Timeouts, start: int, stop: int
) -> None:
    """The transitions of rows start … stop − 1 through the writer; row `stop` is looked at, too."""
    observations = arrays.read("observations", start, stop + 1)
    terminal = arrays.flags("terminals", start, stop + 1)
    timeout = timeouts.read(start, terminal)
    kept = ~timeout[:-1]
    writer.count_repair("steps_dropped_at_timeouts", int(timeout[:-1].sum()))
    writer.count_repair("terminals_dropped_at_timeouts", int((timeout & terminal)[:-1].sum()))
    writer.append(
        Steps(
            observations=observations[:-1][kept],
            actions=arrays.read("actions", start, stop)[kept],
            rewards=arrays.read("rewards", start, stop)[kept],
            next_observations=observations[1:][kept],
            terminated=terminal[:-1][kept],
            # The step before a timeout is now the last of its episode, unless that ended there.
            truncated=(timeout[1:] & ~terminal[:-1])[kept],
        )
    )


class _Timeouts:
    """Which rows are the last ones before a time limit: the file's own, or counted.

    Read in order, each call's first row being the last one of the call before.
    """

    def __init__(self, arrays: _Arrays, episode_length: int | None):
        self.arrays, self.own = arrays, "timeouts" in arrays.found
        self.length = episode_length or 0
        self.begin, self.last = 0, False  # row where the current episode begins; the latest answer
        if not self.own and not self.length:
            raise DataError(
                f"{arrays.path} has no episode ends (no timeouts, found {arrays.names}) and no "
                "episode length is given: choose the env whose time limit it had"
            )

    def read(self, start: int, terminal: Array) -> Array:
        """[T] for the rows from `start` on whose terminals [T] are given."""
        if self.own:
            timeout = self.arrays.flags("timeouts", start, start + len(terminal))
        else:
            timeout = self._counted(start, terminal)
        self.last = bool(timeout[-1])
        return timeout

    def _counted(self, start: int, terminal: Array) -> Array:
        """Every `length`-th row since a terminal one, or since the first."""
        rows = np.arange(start, start + len(terminal))
        after = np.where(terminal, rows + 1, self.begin)
        begins = np.maximum.accumulate(np.concatenate([[self.begin], after[:-1]]))
        self.begin = int(begins[-1])  # of the row that the next call begins with
        timeout: Array = (rows - begins) % self.length == self.length - 1
        return timeout


class _Arrays:
    """The checked arrays of a file, read a slice at a time.

    Whatever HDF5 stumbles over becomes a DataError that says how to repair the file.
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
        return int(self.found["rewards"].shape[0])

    def width(self, name: str) -> int:
        return int(self.found[name].shape[1])

    def read(self, name: str, start: int, stop: int) -> Array:
        """Rows start … stop − 1: [T, D] of observations and actions, [T] of all else."""
        try:
            values: Array = self.found[name][start:stop]
        except (OSError, RuntimeError, ValueError) as error:
            raise self._broken(error) from error
        return values if name in ("observations", "actions") else values.reshape(len(values))

    def flags(self, name: str, start: int, stop: int) -> Array:
        values = self.read(name, start, stop)
        strange = (values != 0) & (values != 1)
        if strange.any():
            where = start + int(strange.argmax())
            raise DataError(
                f"{self.path}: {name} at row {where} is {values[where - start]}, not 0 or 1"
            )
        return values.astype(bool)

    def _check(self) -> None:
        try:
            link = self.file.id.links.visit(_unless_hard, info=True)
            if link is not None:  # it could show another file of this machine as data
                raise DataError(f"{self.path}: {link} is a link elsewhere, which is refused")
            names = [*REQUIRED, *({"timeouts"} & set(self.file))]
            if missing := [name for name in names if name not in self.file]:
                raise DataError(f"{self.path} has no {', '.join(missing)}; found {self.names}")
            self.found = {name: self.file[name] for name in names}
            for name, array in self.found.items():
                self._check_array(name, array)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise self._broken(error) from error
        lengths = {name: array.shape[0] for name, array in self.found.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.path}: arrays differ in length: {lengths}")

    def _check_array(self, name: str, array: Any) -> None:
        if not isinstance(array, h5py.Dataset):
            raise DataError(f"{self.path}: {name} is not an array")
        if array.is_virtual or array.external:
            raise DataError(f"{self.path}: {name} lies in another file, which is refused")
        if array.dtype.kind not in "biuf":
            raise DataError(f"{self.path}: {name} has dtype {array.dtype}, expected numbers")
        wide = name in ("observations", "actions")
        shape: tuple[int, ...] = array.shape or ()
        fits = len(shape) == 1 or shape[1:] == (1,)
        if wide:
            fits = len(shape) == 2 and 0 < shape[1] <= WIDEST
        if not fits:
            expected = "[N, D]" if wide else "[N]"
            raise DataError(f"{self.path}: {name} has shape {array.shape}, expected {expected}")
        settings = array.id.get_create_plist()
        for index in range(settings.get_nfilters()):
            code, *_, title = settings.get_filter(index)
            if not h5py.h5z.filter_avail(code):
                raise DataError(
                    f"{self.path}: {name} is compressed by filter {code} ({title.decode()}), which "
                    "h5py does not have: write the file again with gzip, as h5repack -f GZIP=4"
                )

    def _broken(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"{self.path} cannot be read ({reason}): {_repair(self.path)}")


def _repair(path: Path) -> str:
    return f"delete it (rm {path}) and run the same command again, or put a whole copy there"


def _unless_hard(name: bytes, info: Any) -> str | None:
    """The name of a soft or external link, which ends the visit of all links."""
    return None if info.type == h5py.h5l.TYPE_HARD else name.decode()
