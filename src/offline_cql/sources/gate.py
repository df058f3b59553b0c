"""What every source passes: steps as they were logged become packed, checked rows in files.

The gate refuses what cannot be learned from, with the place where it stands; it mends and counts
what is harmless. Steps come in chunks, so that a data set may be larger than the memory. Knows
nothing of formats or training.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from offline_cql.environments import BOUND_TOLERANCE
from offline_cql.transitions import (
    ActionMap,
    DataError,
    Spaces,
    Transitions,
    array_sha256,
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

    def read(self, gate: Gate) -> None:
        """Everything, in order, through `gate.add`; `gate.expect` first, if the size is known."""
        ...


def stamp(path: Path) -> list[str | int]:
    """What changes whenever a file does, without reading it: its place, size and time."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


class Gate:
    """Checks steps and appends them to files of a folder, rows.f32 and its like.

    Used as a context; `finish` gives the transitions, or raises DataError with the first kind of
    fault, how many steps have it and where the first of them is.
    """

    def __init__(self, dataset_id: str, spaces: Spaces, folder: Path):
        self.dataset_id, self.spaces, self.folder = dataset_id, spaces, folder
        self.size = 0
        self.ends: list[Array] = []
        self.found: Counter[str] = Counter()
        self.observation_names: tuple[str, ...] = ()
        self.action_names: tuple[str, ...] = ()
        self._files: dict[str, _HashedFile] = {}
        self._faults: dict[str, tuple[int, str]] = {}
        self._images: bool | None = None  # known from the first steps
        self._episode, self._step = 0, 0  # of the next step

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def count(self, name: str, times: int = 1) -> None:
        """Note that the source mended something so many times; the audit lists it."""
        if times:
            self.found[name] += times

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
        size = len(steps.rewards)
        if size == 0:
            return
        self._check_shapes(steps, size)
        terminated, truncated = steps.terminated.astype(bool), steps.truncated.astype(bool)
        ended = terminated | truncated
        self.count("terminal_and_truncated", int((terminated & truncated).sum()))
        places = _Places(self._episode, self._step, ended)
        images = steps.observations.dtype == np.uint8
        if self._images is None:
            self._images = images
        self._refuse(np.full(size, images != self._images), "observations change type", places)
        place = columns(self.spaces, images=images)
        rows = np.empty((size, place.width), np.float32)
        if images:
            pair = np.stack([steps.observations, steps.next_observations], axis=1)
            self._append("images.u8", pair)
        else:
            rows[:, place.observation] = self._finite("observations", steps.observations, places)
            following = self._finite("next observations", steps.next_observations, places)
            rows[:, place.next_observation] = following
        rows[:, place.action] = self._actions(steps.actions, places)
        rows[:, place.reward] = self._finite("rewards", steps.rewards, places)
        rows[:, place.terminated] = terminated
        self._append("rows.f32", rows)
        if steps.propensities is not None:
            self._append("propensities.f32", self._propensities(steps.propensities, places))
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
        self._append("ends.i64", ends)
        for name, file in self._files.items():
            file.close()
            width = {"ends.i64": len(ends)}.get(name, self.size)
            assert file.length % max(width, 1) == 0, f"{name} has a part of a row"
        if "propensities.f32" in self._files:
            complete = self._files["propensities.f32"].length == 4 * self.size
            assert complete, "propensities for some steps only"
        return opened(self.folder, self.about())

    def about(self) -> dict[str, Any]:
        """What the files do not say themselves, as plain values."""
        digests = {name: file.sha256 for name, file in sorted(self._files.items())}
        return {
            "dataset_id": self.dataset_id,
            "sha256": content_sha256(self.spaces, *digests.values()),
            "spaces": asdict(self.spaces),
            "size": self.size,
            "files": {name: file.length for name, file in sorted(self._files.items())},
            "observation_names": list(self.observation_names),
            "action_names": list(self.action_names),
            "found": dict(sorted(self.found.items())),
        }

    def _append(self, name: str, values: Array) -> None:
        if name not in self._files:
            self._files[name] = _HashedFile(self.folder / name)
        self._files[name].append(values)

    def _check_shapes(self, steps: Steps, size: int) -> None:
        dim = self.spaces.observation_dim
        action = () if self.spaces.discrete else (self.spaces.action_dim,)
        expected = {
            "observations": (size, dim),
            "next_observations": (size, dim),
            "actions": (size, *action),
            "terminated": (size,),
            "truncated": (size,),
        }
        for name, shape in expected.items():
            found = getattr(steps, name).shape
            if found != shape:
                raise DataError(f"{self.dataset_id}: {name} has shape {found}, expected {shape}")
        for name in ("observations", "next_observations", "actions", "rewards"):
            dtype = getattr(steps, name).dtype
            if dtype.kind not in "biuf":
                raise DataError(f"{self.dataset_id}: {name} has the type {dtype}, not numbers")

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

    def _finite(self, name: str, values: Array, places: _Places) -> Array:
        finite = np.isfinite(values)
        self._refuse(~finite, f"{name} hold NaN or infinity", places)
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        self._refuse(finite & ~np.isfinite(single), f"{name} are too large for float32", places)
        return single

    def _actions(self, actions: Array, places: _Places) -> Array:
        """[T, A] in [-1, 1], or [T, 1] indices."""
        if self.spaces.discrete:
            if actions.dtype.kind not in "iub":
                raise DataError(f"{self.dataset_id}: actions are {actions.dtype}, not integers")
            most = self.spaces.action_dim - 1
            outside = (actions < 0) | (actions > min(most, LARGEST_INDEX))
            self._refuse(outside, f"actions are not among 0 … {most}", places)
            return actions[:, None].astype(np.float32)
        self._finite("actions", actions, places)
        bounds = ActionMap(self.spaces.action_low, self.spaces.action_high)
        internal = bounds.to_internal(actions.astype(np.float64))
        beyond = np.abs(internal) > 1 + 2 * BOUND_TOLERANCE
        self._refuse(beyond, f"actions lie outside {bounds.low} … {bounds.high}", places)
        self.count("clipped_actions", int((np.abs(internal) > 1).any(axis=1).sum()))
        return np.clip(internal, -1, 1)

    def _propensities(self, values: Array, places: _Places) -> Array:
        single = self._finite("propensities", values, places)
        with np.errstate(invalid="ignore"):
            bad = (single <= 0) | ((single > 1) if self.spaces.discrete else False)
        range_ = "(0, 1]" if self.spaces.discrete else "(0, ∞)"
        self._refuse(bad, f"propensities are not within {range_}", places)
        return single


def opened(folder: Path, about: dict[str, Any]) -> Transitions:
    """Transitions over the files that a gate wrote. Raises DataError when one has another size."""
    for name, length in about["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != length:
            raise DataError(f"{path} has {found} bytes, expected {length}: delete {folder}")
    plain: dict[str, Any] = about["spaces"]
    spaces = Spaces(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})
    size, images = about["size"], "images.u8" in about["files"]

    def mapped(name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> Array:
        # Copy on write: torch wants memory that it may write to; nothing does.
        return np.memmap(folder / name, dtype, mode="c", shape=shape) if size else np.empty(shape)

    width = columns(spaces, images=images).width
    own = "propensities.f32" in about["files"]
    return Transitions(
        rows=mapped("rows.f32", np.float32, (size, width)),
        ends=np.fromfile(folder / "ends.i64", np.int64),
        images=mapped("images.u8", np.uint8, (size, 2, spaces.observation_dim)) if images else None,
        propensities=mapped("propensities.f32", np.float32, (size,)) if own else None,
        spaces=spaces,
        dataset_id=about["dataset_id"],
        sha256=about["sha256"],
        observation_names=tuple(about["observation_names"]),
        action_names=tuple(about["action_names"]),
        found=about["found"],
    )


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


class _HashedFile:
    """A file that is only appended to, and its sha256 so far."""

    def __init__(self, path: Path):
        self.file: BinaryIO = path.open("wb")
        self.digest, self.length = hashlib.sha256(), 0

    def append(self, values: Array) -> None:
        block = np.ascontiguousarray(values)
        self.file.write(block.data)
        self.digest.update(block.data)
        self.length += block.nbytes

    @property
    def sha256(self) -> str:
        return self.digest.hexdigest()

    def close(self) -> None:
        self.file.close()
