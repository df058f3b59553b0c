"""From a Minari data set in the local store to transitions.

Metadata come through Minari's own API, but only after they were checked: nothing that a data set
names is ever imported or run, and no id leaves the store. Knows nothing of recording or training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import numpy.typing as npt
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.storage.datasets_root_dir import get_dataset_path

from offline_cql.environments import BOUND_TOLERANCE, flat_spaces
from offline_cql.transitions import ActionMap, DataError, Spaces, Transitions, content_sha256

Array = npt.NDArray[Any]

ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")


def store_root() -> Path:
    """$MINARI_DATASETS_PATH, or Minari's default; made if it is absent."""
    return Path(get_dataset_path())


def dataset_path(dataset_id: str) -> Path:
    """Where a data set lies in the local store, whether or not it exists.

    Raises DataError for an id that is not of the form name/name-v0, so for `..` too.
    """
    match = DATASET_ID_RE.fullmatch(dataset_id)
    if match is None or match.group("version") is None or "//" in dataset_id:
        raise DataError(f"data set id {dataset_id!r} must look like sim/hopper/medium-v0")
    return store_root() / dataset_id


def is_stored(dataset_id: str) -> bool:
    """Whether the local store has the data set."""
    return (dataset_path(dataset_id) / "data" / "metadata.json").is_file()


def load_transitions(dataset_id: str) -> Transitions:
    """A stored data set, actions mapped to [-1, 1], every transition kept.

    A step that is both terminal and truncated is terminal; an episode without an end is truncated
    at its last step. Raises DataError when the data set is absent, malformed, not of a supported
    kind, or holds NaN, infinity or actions beyond their bounds.
    """
    path = dataset_path(dataset_id) / "data"
    _check_metadata(dataset_id, path)
    try:  # foreign files: whatever Minari or HDF5 stumbles over is a fault of theirs
        dataset = minari.load_dataset(dataset_id, download=False)
        spaces = flat_spaces(dataset.observation_space, dataset.action_space)
        count = dataset.total_episodes
        episodes = _episodes(dataset_id, path / "main_data.hdf5", count, spaces)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{dataset_id} cannot be read ({error}): delete {path.parent} and record or download "
            "it again"
        ) from error
    steps = sum(map(len, episodes))
    if steps != dataset.total_steps or steps == 0:
        raise DataError(
            f"{dataset_id} holds {steps} steps, its metadata promise {dataset.total_steps}: "
            f"delete {path.parent} and record or download it again"
        )
    return _joined(dataset_id, episodes, spaces)


def _check_metadata(dataset_id: str, path: Path) -> None:
    """Refuses what Minari would otherwise answer by making an environment that the file names."""
    if not is_stored(dataset_id):
        raise DataError(
            f"data set {dataset_id} is not in the local store {store_root()}: record it with "
            "python collect.py env=… dataset.quality=… (see python collect.py --help)"
        )
    try:
        metadata = json.loads((path / "metadata.json").read_text())
    except ValueError as error:
        raise DataError(f"{dataset_id}: metadata.json is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{dataset_id}: metadata.json must hold an object")
    for key in ("observation_space", "action_space"):
        if not isinstance(metadata.get(key), str):
            raise DataError(
                f"{dataset_id}: metadata.json has no {key}; such a data set is read by running "
                "the environment that it names, which is refused"
            )
    if metadata.get("data_format") != "hdf5":
        raise DataError(
            f"{dataset_id} is stored as {metadata.get('data_format')!r}; hdf5 is supported"
        )


def _episodes(dataset_id: str, path: Path, count: int, spaces: Spaces) -> list[_Episode]:
    """All episodes by number (HDF5's own order is alphabetical, 10 before 2).

    Arrays are read by h5py's low-level interface: data sets with short episodes have thousands of
    them, and Minari's reader needs a millisecond for each.
    """
    with h5py.File(path, "r") as file:
        link = file.id.links.visit(_unless_hard, info=True)
        if link is not None:  # it could show another file of this machine as data
            raise DataError(f"{dataset_id}: {link} is a link elsewhere, which is refused")
        return [
            _Episode(
                f"{dataset_id}: episode {number}",
                spaces,
                *(_array(file, f"episode_{number}/{name}") for name in ARRAYS),
            )
            for number in range(count)
        ]


def _unless_hard(name: bytes, info: Any) -> str | None:
    """The name of a soft or external link, which ends the visit of all links."""
    return None if info.type == h5py.h5l.TYPE_HARD else name.decode()


def _array(file: h5py.File, name: str) -> Array:
    stored = h5py.h5d.open(file.id, name.encode())
    layout = stored.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise DataError(f"{file.filename}: {name} lies in another file, which is refused")
    if stored.dtype.kind not in "biuf":
        raise DataError(f"{file.filename}: {name} has the type {stored.dtype}, not numbers")
    values = np.empty(stored.shape, stored.dtype)
    stored.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values


class _Episode:
    """One stored episode, its shapes checked: T+1 observations for T of everything else."""

    def __init__(
        self,
        place: str,
        spaces: Spaces,
        observations: Array,
        actions: Array,
        rewards: Array,
        terminations: Array,
        truncations: Array,
    ):
        steps = len(rewards)
        if steps == 0:
            raise DataError(f"{place} is empty")
        found = [x.shape for x in (observations, actions, rewards, terminations, truncations)]
        action = () if spaces.discrete else (spaces.action_dim,)
        after = (steps + 1, spaces.observation_dim)  # the one after the last action, too
        expected = [after, (steps, *action), (steps,), (steps,), (steps,)]
        for name, shape, fitting in zip(ARRAYS, found, expected, strict=True):
            if shape != fitting:
                raise DataError(f"{place} of {steps} steps has {name} {shape}, expected {fitting}")
        early = np.flatnonzero((terminations.astype(bool) | truncations.astype(bool))[:-1])
        if early.size:
            raise DataError(f"{place} ends at step {early[0]} but goes on to step {steps - 1}")
        self.observations, self.actions, self.rewards = observations, actions, rewards
        self.terminated = terminations.astype(bool)
        self.truncated = np.zeros(steps, dtype=bool)
        self.truncated[-1] = not self.terminated[-1]

    def __len__(self) -> int:
        return len(self.rewards)


class _Rows:
    """The steps of all episodes end to end; says where a step lies that cannot be used."""

    def __init__(self, dataset_id: str, episodes: list[_Episode]):
        lengths = [len(episode) for episode in episodes]
        self.dataset_id = dataset_id
        self.episodes = np.repeat(np.arange(len(episodes), dtype=np.int32), lengths)
        self.steps = np.concatenate([np.arange(length) for length in lengths])

    def refuse(self, bad: Array, fault: str) -> None:
        """Raises DataError if any entry of bad [N] or [N, …] is true."""
        rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
        if rows.size:
            raise DataError(
                f"{self.dataset_id}: {fault} at {rows.size} of {len(bad)} steps, first in episode "
                f"{self.episodes[rows[0]]} at step {self.steps[rows[0]]}"
            )

    def finite(self, name: str, parts: list[Array]) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is refused
            values = np.concatenate(parts).astype(np.float32)
        self.refuse(~np.isfinite(values), f"{name} hold NaN or infinity")
        return values

    def actions(self, parts: list[Array], spaces: Spaces) -> Array:
        """[N, A] float32 in [-1, 1], or [N] int64."""
        actions = np.concatenate(parts)
        if spaces.discrete:
            if not np.issubdtype(actions.dtype, np.integer):
                raise DataError(f"{self.dataset_id}: actions are {actions.dtype}, not integers")
            outside = (actions < 0) | (actions >= spaces.action_dim)
            self.refuse(outside, f"actions are not among 0 … {spaces.action_dim - 1}")
            return actions.astype(np.int64)
        self.finite("actions", parts)
        bounds = ActionMap(spaces.action_low, spaces.action_high)
        internal = bounds.to_internal(actions.astype(np.float64))
        beyond = np.abs(internal) > 1 + 2 * BOUND_TOLERANCE  # relative to the span: 2 inside
        self.refuse(beyond, f"actions lie outside {bounds.low} … {bounds.high}")
        return np.clip(internal, -1, 1).astype(np.float32)


def _joined(dataset_id: str, episodes: list[_Episode], spaces: Spaces) -> Transitions:
    rows = _Rows(dataset_id, episodes)
    arrays = (
        rows.finite("observations", [e.observations[:-1] for e in episodes]),
        rows.actions([e.actions for e in episodes], spaces),
        rows.finite("rewards", [e.rewards for e in episodes]),
        rows.finite("next observations", [e.observations[1:] for e in episodes]),
        np.concatenate([e.terminated for e in episodes]),
        np.concatenate([e.truncated for e in episodes]),
        rows.episodes,
    )
    return Transitions(
        *arrays, spaces=spaces, dataset_id=dataset_id, sha256=content_sha256(spaces, *arrays)
    )
