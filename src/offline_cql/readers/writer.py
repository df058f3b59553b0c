"""Writer that every reader passes its steps to: it validates them and writes packed rows.

Invalid data are refused with the episode, step and column of the first fault; harmless faults are
repaired and counted. Steps come in chunks, so a data set may be larger than the memory.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from offline_cql.errors import FAILURES, DataError
from offline_cql.features import Features
from offline_cql.readers.row_files import (
    DURATIONS,
    ENDS,
    IMAGES,
    PROPENSITIES,
    ROWS,
    Array,
    RowFiles,
    load_rows,
)
from offline_cql.render.numbers import format_share, format_size
from offline_cql.transitions import (
    BOUND_TOLERANCE,
    ActionMap,
    Spaces,
    Transitions,
    columns,
    content_sha256,
)

CHUNK = 65_536  # steps that a reader should pass at a time
# Repairs that drop a row.
DROPPED = (
    "dropped_last_steps",
    "dropped_episodes_of_one_step",
    "steps_dropped_at_timeouts",
    "last_step_dropped",
)
FEW_VALUES = 20  # as many different whole numbers may be choices, or amounts
LARGEST_INDEX = 2**24  # of a discrete action: float32 represents every integer up to it


@dataclass(frozen=True, eq=False)
class Steps:
    """T consecutive steps; an episode may continue in the next Steps.

    observations, next_observations [T, D] of one numeric dtype (uint8: images, stored as bytes);
    actions [T, A] in the environment's units, or [T] integers; rewards [T]; terminated,
    truncated [T] bool: either ends the episode; propensities [T] or None; durations [T] above 0 in
    units of dataset.time_unit, or None.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    terminated: Array
    truncated: Array
    propensities: Array | None = None
    durations: Array | None = None


Arrays = TypeVar("Arrays")


def take(arrays: Arrays, index: Any) -> Arrays:
    """Return a dataclass of arrays with every array indexed by a slice, mask or row numbers."""
    values = {name: v[index] for name, v in vars(arrays).items() if v is not None}
    return replace(arrays, **values)  # type: ignore[type-var]


class Reader(Protocol):
    """A data set in one format. `load` in cache.py returns its transitions."""

    @property
    def dataset_id(self) -> str:
        """The data set's name in messages and in the run folder."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the content, without reading it: files with their sizes and
        times, and the settings of the reader. Raises DataError when the data do not exist."""
        ...

    def spaces(self) -> Spaces:
        """Return sizes and bounds. Called only when the data are read."""
        ...

    def read(self, writer: TransitionWriter) -> None:
        """Pass all steps in order to `writer.append`; before, call `writer.check_disk_space`
        if their number is known."""
        ...


def file_signature(path: Path) -> list[str | int]:
    """Return path, size and modification time of a file: a change of the file changes them."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def few_values(known: Array, values: Array) -> Array:
    """Return the different numbers of both, sorted; more than FEW_VALUES are not counted further.

    known: of earlier chunks, [0] at first. Returns at most FEW_VALUES + 1 numbers.
    """
    return known if len(known) > FEW_VALUES else np.union1d(known, values)[: FEW_VALUES + 1]


@contextmanager
def translate_errors(name: Path | str, remedy: str = "") -> Iterator[None]:
    """Turn any error of a library that parses a file into a DataError: the file is broken.

    A full disk and a lack of memory are no faults of the file: they pass.
    """
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FAILURES:
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        suffix = f": {remedy}" if remedy else ""
        raise DataError(f"{name} cannot be read ({reason}){suffix}") from error


class TransitionWriter:
    """Validate steps and append them to the files of a folder (see row_files.py).

    Use as a context. `finish` returns the transitions, or raises DataError with the first kind of
    fault, the number of steps that have it and the position of the first one. Raises DataError at
    once if an action bound is infinite.
    """

    def __init__(self, dataset_id: str, spaces: Spaces, folder: Path):
        self.dataset_id, self.spaces, self.folder = dataset_id, spaces, folder
        self.size = 0
        self.ends: list[Array] = []
        self.repairs: Counter[str] = Counter()
        self.observation_names: tuple[str, ...] = ()
        self.action_names: tuple[str, ...] = ()
        self.features: Features | None = None  # of a table
        self._bounds = None if spaces.discrete else ActionMap(spaces.action_low, spaces.action_high)
        self._files = RowFiles(folder)
        self._faults: dict[str, tuple[int, int, str]] = {}  # steps, row and column of the first

    def __enter__(self) -> TransitionWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def count_repair(self, name: str, times: int = 1) -> None:
        """Count a repair, by the reader or here; the audit lists them."""
        if times:
            self.repairs[name] += times

    def check_loss(self, rows: int, *, largest_share: float, reason: str, remedy: str) -> None:
        """Raise DataError if `rows`, dropped for one reason, are a large share of all rows.

        largest_share: of all rows, kept and dropped, that is a repair and no error. One row is
        never an error: a recording may stop anywhere.
        """
        total = self.size + sum(self.repairs[name] for name in DROPPED)
        if rows > max(1, largest_share * total):
            raise self._error(
                f"{rows:,} of {total:,} rows ({format_share(rows / total)}) would be dropped: "
                f"{reason}: {remedy}"
            )

    def check_disk_space(self, size: int, *, images: bool = False) -> None:
        """Raise DataError if the disk of the cache cannot hold `size` transitions."""
        row_bytes = 4 * columns(self.spaces, images=images).width
        row_bytes += 2 * self.spaces.observation_dim * images
        needed, free = size * row_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"{self.dataset_id} has {size:,} steps, which need {format_size(needed)} in the "
                f"cache {self.folder.parent.parent}; {format_size(free)} are free: set "
                "OFFLINE_CQL_CACHE to a folder on a larger disk"
            )

    def append(self, steps: Steps) -> None:
        """Validate steps and write them. Raises DataError for wrong shapes and types at once."""
        size = steps.rewards.size
        self._check_arrays(steps, size)
        if size == 0:
            return
        terminated, truncated = steps.terminated.astype(bool), steps.truncated.astype(bool)
        ended = terminated | truncated
        self.count_repair("terminal_and_truncated", int((terminated & truncated).sum()))
        images = steps.observations.dtype == np.uint8
        layout = columns(self.spaces, images=images)
        rows = np.empty((size, layout.width), np.float32)
        with np.errstate(over="ignore"):  # infinite values are refused below
            if images:
                pair = np.stack([steps.observations, steps.next_observations], axis=1)
                self._files.append(IMAGES, pair)
            else:
                rows[:, layout.observation] = steps.observations
                rows[:, layout.next_observation] = steps.next_observations
            rows[:, layout.action] = self._actions(steps.actions)
            rows[:, layout.reward] = steps.rewards
            rows[:, layout.terminated] = terminated
        if not np.isfinite(rows).all():  # one pass over all; which array it is, only if needed
            self._refuse_infinite("observations", steps.observations)
            self._refuse_infinite("next observations", steps.next_observations)
            self._refuse_infinite("rewards", steps.rewards)
        self._files.append(ROWS, rows)
        if steps.propensities is not None:
            self._files.append(PROPENSITIES, self._propensities(steps.propensities))
        if steps.durations is not None:
            durations = steps.durations.astype(np.float32)
            self._refuse(~((durations > 0) & np.isfinite(durations)), "durations are not above 0")
            self._files.append(DURATIONS, durations)
        self.ends.append(self.size + np.flatnonzero(ended) + 1)
        self.size += size

    def finish(self) -> Transitions:
        """Return the transitions, memory-mapped; an open last episode counts as truncated.

        Raises DataError if any step was invalid.
        """
        for fault, (count, row, column) in self._faults.items():
            extent = f"{count:,} of {self.size:,} steps"
            raise self._error(f"{fault} at {extent}, first in {self._locate(row)}{column}")
        ends = np.concatenate([*self.ends, np.empty(0, int)]).astype(np.int64)
        if self.size and (not len(ends) or ends[-1] != self.size):
            self.count_repair("unfinished_last_episode")
            ends = np.append(ends, self.size)
        self._files.append(ENDS, ends)
        self._files.close()
        return load_rows(self.folder, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """Return the sizes, names and counts that the files do not contain, as JSON values."""
        return {
            "dataset_id": self.dataset_id,
            "sha256": content_sha256(self.spaces, self._files.digests()),
            "spaces": asdict(self.spaces),
            "size": self.size,
            "files": dict(sorted(self._files.lengths.items())),
            "checksums": self._files.checksums(),
            "observation_names": list(self.observation_names),
            "action_names": list(self.action_names),
            "features": None if self.features is None else self.features.to_json(),
            "repairs": dict(sorted(self.repairs.items())),
        }

    def _check_arrays(self, steps: Steps, size: int) -> None:
        """Raise DataError unless every array has the expected shape and type."""
        action = () if self.spaces.discrete else (self.spaces.action_dim,)
        shapes = {
            "observations": (size, self.spaces.observation_dim),
            "next_observations": (size, self.spaces.observation_dim),
            "actions": (size, *action),
            "rewards": (size,),
            "terminated": (size,),
            "truncated": (size,),
            "propensities": (size,),
            "durations": (size,),
        }
        for name, shape in shapes.items():
            array: Array | None = getattr(steps, name)
            if array is None:
                continue
            if array.shape != shape:
                raise self._error(f"{name} has shape {array.shape}, expected {shape}")
            is_flag = name in ("terminated", "truncated")
            if array.dtype.kind not in ("biu" if is_flag else "biuf"):
                expected = "booleans" if is_flag else "numbers"
                raise self._error(f"{name} has dtype {array.dtype}, expected {expected}")
        if self.spaces.discrete and steps.actions.dtype.kind == "f":
            raise self._error(f"actions have dtype {steps.actions.dtype}, expected integers")
        self._check_continuation(steps)

    def _check_continuation(self, steps: Steps) -> None:
        """Raise DataError if images or propensities are present for some steps only."""
        dtype, next_dtype = steps.observations.dtype, steps.next_observations.dtype
        if (dtype == np.uint8) != (next_dtype == np.uint8):
            types = f"observations are {dtype}, next observations {next_dtype}"
            raise self._error(f"{types}: images must be uint8 in both")
        if self.size == 0:
            return
        position = self._locate(self.size)
        if (dtype == np.uint8) != (IMAGES in self._files.lengths):
            raise self._error(f"observations change to {dtype} in {position}")
        if (steps.propensities is not None) != (PROPENSITIES in self._files.lengths):
            side = "after" if steps.propensities is None else "before"
            raise self._error(f"propensities are missing {side} {position}")

    def _error(self, fault: str) -> DataError:
        return DataError(f"{self.dataset_id}: {fault}")

    def _locate(self, row: int) -> str:
        """Return the position of a row for a message: `episode 3 at step 17`."""
        starts = np.concatenate([[0], *self.ends])
        episode = int(np.searchsorted(starts, row, side="right")) - 1
        return f"episode {episode} at step {row - starts[episode]}"

    def _refuse(self, bad: Array, fault: str) -> None:
        """Record the fault of the steps where bad [T] or [T, …] is true."""
        rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
        if not rows.size:
            return
        column = f", column {bad[rows[0]].argmax()}" if bad.ndim == 2 and bad.shape[1] > 1 else ""
        first = (0, self.size + int(rows[0]), column)
        count, row, column = self._faults.get(fault, first)
        self._faults[fault] = (count + rows.size, row, column)

    def _refuse_infinite(self, name: str, values: Array) -> None:
        finite = np.isfinite(values)
        self._refuse(~finite, f"{name} contain NaN or infinity")
        with np.errstate(over="ignore"):
            too_large = finite & ~np.isfinite(values.astype(np.float32))
        self._refuse(too_large, f"{name} are too large for float32")

    def _actions(self, actions: Array) -> Array:
        """Return continuous actions [T, A] in [-1, 1], or discrete ones [T, 1]."""
        if self._bounds is None:
            last = self.spaces.action_dim - 1
            if actions.min() < 0 or actions.max() > min(last, LARGEST_INDEX):
                outside = (actions < 0) | (actions > min(last, LARGEST_INDEX))
                self._refuse(outside, f"actions are not among 0 … {last}")
            return actions[:, None]
        exact = actions.astype(np.float64)
        low, high = np.asarray(self._bounds.low), np.asarray(self._bounds.high)
        internal = self._bounds.to_internal(exact)
        if (exact.min(axis=0) >= low).all() and (exact.max(axis=0) <= high).all():
            return internal
        self._refuse_infinite("actions", actions)  # NaN fails the comparison above
        tolerance = BOUND_TOLERANCE * (high - low)
        outside = (exact < low - tolerance) | (exact > high + tolerance)
        self._refuse(outside, f"actions are outside {self._bounds.low} … {self._bounds.high}")
        clipped = ((exact < low) | (exact > high)).any(axis=1)
        self.count_repair("clipped_actions", int(clipped.sum()))
        return internal.clip(-1, 1)

    def _propensities(self, values: Array) -> Array:
        self._refuse_infinite("propensities", values)
        largest, interval = (1.0, "(0, 1]") if self.spaces.discrete else (np.inf, "(0, ∞)")
        with np.errstate(over="ignore"):
            result = values.astype(np.float32)
        outside = (result <= 0) | (values > largest)  # 1e-60 would be 0
        hint = " (if they are logarithms, take exp)" if (values < 0).all() else ""
        self._refuse(outside, f"propensities are not within {interval}{hint}")
        return result
