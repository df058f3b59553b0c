"""What every source passes: steps as they were logged become packed, checked rows in files.

The writer refuses what cannot be learned from, with the place where it stands; it mends and counts
what is harmless. Steps come in chunks, so that a data set may be larger than the memory. Knows
nothing of formats or training.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.readers.row_files import ENDS, IMAGES, PROPENSITIES, ROWS, RowFiles, load_rows
from offline_cql.transitions import (
    BOUND_TOLERANCE,
    ActionMap,
    Spaces,
    Transitions,
    columns,
    content_sha256,
)

Array = npt.NDArray[Any]

CHUNK = 65_536  # steps that a source should give at a time: few, large pieces
LARGEST_INDEX = 2**24  # of a discrete action: what float32 still counts exactly


@dataclass(frozen=True, eq=False)
class Steps:
    """T consecutive steps as a source has them; an episode may go on in the next Steps.

    observations, next_observations [T, D] of one numeric dtype (uint8: images, kept as such);
    actions [T, A] in the environment's units, or [T] integers; rewards [T]; terminated,
    truncated [T] bool: either ends the episode, which is whatever lies between two ends;
    propensities [T] or None.
    """

    observations: Array
    actions: Array
    rewards: Array
    next_observations: Array
    terminated: Array
    truncated: Array
    propensities: Array | None = None


class Source(Protocol):
    """One data set in one format. `load` in cache.py makes Transitions of it."""

    @property
    def dataset_id(self) -> str:
        """Its name in messages and records."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What decides the content, found out without reading it: files with their sizes and
        times, and the settings of the reading. Raises DataError when the data are not there."""
        ...

    def spaces(self) -> Spaces:
        """Sizes and bounds. Asked for only when the data are about to be read."""
        ...

    def read(self, writer: TransitionWriter) -> None:
        """Pass every step in order to `writer.add`, and a known size to `writer.expect` first."""
        ...


def file_signature(path: Path) -> list[str | int]:
    """What changes whenever a file does, without reading it: its place, size and time."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


class TransitionWriter:
    """Checks steps and appends them to files of a folder, rows.f32 and its like.

    Used as a context; `finish` gives the transitions, or raises DataError with the first kind of
    fault, how many steps have it and where the first of them is. Infinite action bounds are
    refused at once.
    """

    def __init__(self, dataset_id: str, spaces: Spaces, folder: Path):
        self.dataset_id, self.spaces, self.folder = dataset_id, spaces, folder
        self.size = 0
        self.ends: list[Array] = []
        self.repairs: Counter[str] = Counter()
        self.observation_names: tuple[str, ...] = ()
        self.action_names: tuple[str, ...] = ()
        self._bounds = None if spaces.discrete else ActionMap(spaces.action_low, spaces.action_high)
        self._files = RowFiles(folder)
        self._faults: dict[str, tuple[int, str]] = {}
        self._episode, self._step = 0, 0  # of the next step

    def __enter__(self) -> TransitionWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def count(self, name: str, times: int = 1) -> None:
        """Note that the source repaired something so many times; the audit lists it."""
        if times:
            self.repairs[name] += times

    def expect(self, size: int, *, images: bool = False) -> None:
        """Refuse what the disk has no room for, before it is read."""
        each = 4 * columns(self.spaces, images=images).width
        each += 2 * self.spaces.observation_dim * images
        needed, free = size * each, shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(
                f"{self.dataset_id} promises {size:,} steps, {needed / 1e9:,.1f} GB in the cache "
                f"{self.folder.parent.parent}, where {free / 1e9:,.1f} GB are free: set "
                "OFFLINE_CQL_CACHE to a folder with more room"
            )

    def add(self, steps: Steps) -> None:
        """Check steps and write them."""
        size = steps.rewards.size
        self._check_form(steps, size)
        if size == 0:
            return
        terminated, truncated = steps.terminated.astype(bool), steps.truncated.astype(bool)
        ended = terminated | truncated
        self.count("terminal_and_truncated", int((terminated & truncated).sum()))
        places = _Places(self._episode, self._step, ended)
        images = steps.observations.dtype == np.uint8
        place = columns(self.spaces, images=images)
        rows = np.empty((size, place.width), np.float32)
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            if images:
                pair = np.stack([steps.observations, steps.next_observations], axis=1)
                self._files.append(IMAGES, pair)
            else:
                rows[:, place.observation] = steps.observations
                rows[:, place.next_observation] = steps.next_observations
            rows[:, place.action] = self._actions(steps.actions, places)
            rows[:, place.reward] = steps.rewards
            rows[:, place.terminated] = terminated
        if not np.isfinite(rows).all():  # one look at everything; what it is, only then
            self._refuse_infinite("observations", steps.observations, places)
            self._refuse_infinite("next observations", steps.next_observations, places)
            self._refuse_infinite("rewards", steps.rewards, places)
        self._files.append(ROWS, rows)
        if steps.propensities is not None:
            self._files.append(PROPENSITIES, self._propensities(steps.propensities, places))
        self.ends.append(self.size + np.flatnonzero(ended) + 1)
        self.size += size
        self._episode, self._step = places.after

    def finish(self) -> Transitions:
        """The transitions, as memory maps of the files; an open last episode counts as truncated.

        Raises DataError for every fault that was met on the way.
        """
        for fault, (count, where) in self._faults.items():
            some = f"{count:,} of {self.size:,} steps, first in"
            raise DataError(f"{self.dataset_id}: {fault} at {some} {where}")
        ends = np.concatenate([*self.ends, np.empty(0, int)]).astype(np.int64)
        if self.size and (not len(ends) or ends[-1] != self.size):
            self.count("unfinished_last_episode")
            ends = np.append(ends, self.size)
        self._files.append(ENDS, ends)
        self._files.close()
        return load_rows(self.folder, self.about())

    def about(self) -> dict[str, Any]:
        """What the files do not say themselves, as plain values."""
        return {
            "dataset_id": self.dataset_id,
            "sha256": content_sha256(self.spaces, self._files.digests()),
            "spaces": asdict(self.spaces),
            "size": self.size,
            "files": dict(sorted(self._files.lengths.items())),
            "observation_names": list(self.observation_names),
            "action_names": list(self.action_names),
            "repairs": dict(sorted(self.repairs.items())),
        }

    def _check_form(self, steps: Steps, size: int) -> None:
        """Shapes and types, which are the same for all steps: a fault here ends the reading."""
        action = () if self.spaces.discrete else (self.spaces.action_dim,)
        shapes = {
            "observations": (size, self.spaces.observation_dim),
            "next_observations": (size, self.spaces.observation_dim),
            "actions": (size, *action),
            "rewards": (size,),
            "terminated": (size,),
            "truncated": (size,),
            "propensities": (size,),
        }
        for name, shape in shapes.items():
            array: Array | None = getattr(steps, name)
            if array is None:
                continue
            if array.shape != shape:
                found = f"{name} has shape {array.shape}, expected {shape}"
                raise DataError(f"{self.dataset_id}: {found}")
            flags = name in ("terminated", "truncated")
            if array.dtype.kind not in ("biu" if flags else "biuf"):
                kind = "true or false" if flags else "numbers"
                raise DataError(f"{self.dataset_id}: {name} has the type {array.dtype}, not {kind}")
        if self.spaces.discrete and steps.actions.dtype.kind == "f":
            raise DataError(f"{self.dataset_id}: actions are {steps.actions.dtype}, not integers")
        self._check_continuation(steps)

    def _check_continuation(self, steps: Steps) -> None:
        """Images stay images, and propensities are there for all steps or for none."""
        first, following = steps.observations.dtype, steps.next_observations.dtype
        if (first == np.uint8) != (following == np.uint8):
            both = f"observations are {first}, next observations {following}"
            raise DataError(f"{self.dataset_id}: {both}; images must be uint8 in both")
        if self.size == 0:
            return
        where = f"episode {self._episode} at step {self._step}"
        if (first == np.uint8) != (IMAGES in self._files.lengths):
            raise DataError(f"{self.dataset_id}: observations become {first} in {where}")
        if (steps.propensities is not None) != (PROPENSITIES in self._files.lengths):
            change = "end before" if steps.propensities is None else "are missing before"
            raise DataError(f"{self.dataset_id}: propensities {change} {where}")

    def _refuse(self, bad: Array, fault: str, places: _Places) -> None:
        """Note the fault of the steps where bad [T] or [T, …] is true."""
        rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
        if not rows.size:
            return
        where = places.name(int(rows[0]))
        if bad.ndim == 2 and bad.shape[1] > 1:
            where += f", column {int(bad[rows[0]].argmax())}"
        count, first = self._faults.get(fault, (0, where))
        self._faults[fault] = (count + rows.size, first)

    def _refuse_infinite(self, name: str, values: Array, places: _Places) -> None:
        finite = np.isfinite(values)
        self._refuse(~finite, f"{name} hold NaN or infinity", places)
        with np.errstate(over="ignore"):
            large = finite & ~np.isfinite(values.astype(np.float32))
        self._refuse(large, f"{name} are too large for float32", places)

    def _actions(self, actions: Array, places: _Places) -> Array:
        """[T, A] in [-1, 1], or [T, 1] indices."""
        if self._bounds is None:
            most = self.spaces.action_dim - 1
            if actions.min() < 0 or actions.max() > min(most, LARGEST_INDEX):
                outside = (actions < 0) | (actions > min(most, LARGEST_INDEX))
                self._refuse(outside, f"actions are not among 0 … {most}", places)
            return actions[:, None]
        exact = actions.astype(np.float64)
        low, high = np.asarray(self._bounds.low), np.asarray(self._bounds.high)
        internal = self._bounds.to_internal(exact)
        if (exact.min(axis=0) >= low).all() and (exact.max(axis=0) <= high).all():
            return internal
        self._refuse_infinite("actions", actions, places)  # NaN comes here too
        slack = BOUND_TOLERANCE * (high - low)
        outside = (exact < low - slack) | (exact > high + slack)
        self._refuse(
            outside, f"actions lie outside {self._bounds.low} … {self._bounds.high}", places
        )
        self.count("clipped_actions", int(((exact < low) | (exact > high)).any(axis=1).sum()))
        return internal.clip(-1, 1)

    def _propensities(self, values: Array, places: _Places) -> Array:
        self._refuse_infinite("propensities", values, places)
        most, range_ = (1.0, "(0, 1]") if self.spaces.discrete else (np.inf, "(0, ∞)")
        self._refuse(
            (values <= 0) | (values > most), f"propensities are not within {range_}", places
        )
        with np.errstate(over="ignore"):
            return values.astype(np.float32)


class _Places:
    """Episode and step of each of T steps; `after`: those of the step that follows."""

    def __init__(self, episode: int, step: int, ended: Array):
        self.ends = np.flatnonzero(ended)
        self.episode, self.step = episode, step
        self.after = self.of(len(ended))

    def of(self, index: int) -> tuple[int, int]:
        before = int(np.searchsorted(self.ends, index))  # episodes that ended earlier
        if before == 0:
            return self.episode, self.step + index
        return self.episode + before, index - int(self.ends[before - 1]) - 1

    def name(self, index: int) -> str:
        episode, step = self.of(index)
        return f"episode {episode} at step {step}"
