"""Minari data sets of the local store.

Metadata come through Minari's own API, but only after they were checked: nothing that a data set
names is ever imported or run, and no id leaves the store. Knows nothing of recording or training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import numpy.typing as npt
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.storage.datasets_root_dir import get_dataset_path

from offline_cql.environments import flat_spaces
from offline_cql.sources.gate import CHUNK, Gate, Steps, stamp
from offline_cql.sources.progress import ProgressBar
from offline_cql.transitions import DataError, Spaces

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


class MinariStore:
    """A data set of the local store; nothing is downloaded.

    A step that is both terminal and truncated is terminal; an episode without an end is truncated
    at its last step. Raises DataError when the data set is absent, malformed, not of a supported
    kind, or not what its metadata promise.
    """

    def __init__(self, dataset_id: str):
        self.dataset_id = dataset_id
        self.path = dataset_path(dataset_id) / "data"

    def fingerprint(self) -> dict[str, Any]:
        _check_metadata(self.dataset_id, self.path)
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {"id": self.dataset_id, "files": [stamp(path) for path in files]}

    def spaces(self) -> Spaces:
        _check_metadata(self.dataset_id, self.path)
        with self._readable():
            self.dataset = minari.load_dataset(self.dataset_id, download=False)
            return flat_spaces(self.dataset.observation_space, self.dataset.action_space)

    def read(self, gate: Gate) -> None:
        promised = int(self.dataset.total_steps)
        gate.expect(promised)
        with (
            self._readable(),
            h5py.File(self.path / "main_data.hdf5", "r") as file,
            ProgressBar(f"reading {self.dataset_id}", promised) as bar,
        ):
            link = file.id.links.visit(_unless_hard, info=True)
            if link is not None:  # it could show another file of this machine as data
                raise DataError(f"{self.dataset_id}: {link} is a link elsewhere, which is refused")
            waiting: list[_Episode] = []
            # By number: HDF5's own order is alphabetical, 10 before 2.
            for number in range(self.dataset.total_episodes):
                arrays = (_array(file, f"episode_{number}/{name}") for name in ARRAYS)
                waiting.append(_Episode(f"{self.dataset_id}: episode {number}", *arrays))
                if sum(map(len, waiting)) >= CHUNK:
                    bar.advance(_add(gate, waiting))
                    waiting = []
            _add(gate, waiting)
        if gate.size != promised or not promised:
            raise DataError(
                f"{self.dataset_id} holds {gate.size} steps, its metadata promise {promised}: "
                f"delete {self.path.parent} and record or download it again"
            )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Foreign files: whatever Minari or HDF5 stumbles over is a fault of theirs."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.dataset_id} cannot be read ({error}): delete {self.path.parent} and "
                "record or download it again"
            ) from error


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
    """One stored episode: T+1 observations for T of everything else."""

    def __init__(
        self,
        place: str,
        observations: Array,
        actions: Array,
        rewards: Array,
        terminations: Array,
        truncations: Array,
    ):
        steps = len(rewards)
        if steps == 0:
            raise DataError(f"{place} is empty")
        lengths = [len(x) for x in (observations, actions, rewards, terminations, truncations)]
        expected = [steps + 1, *[steps] * 4]  # the observation after the last action, too
        for name, length, fitting in zip(ARRAYS, lengths, expected, strict=True):
            if length != fitting:
                raise DataError(f"{place} of {steps} steps has {length} {name}, expected {fitting}")
        self.terminated, self.truncated = terminations.astype(bool), truncations.astype(bool)
        early = np.flatnonzero((self.terminated | self.truncated)[:-1])
        if early.size:
            raise DataError(f"{place} ends at step {early[0]} but goes on to step {steps - 1}")
        self.observations, self.actions, self.rewards = observations, actions, rewards

    def __len__(self) -> int:
        return len(self.rewards)


def _add(gate: Gate, episodes: list[_Episode]) -> int:
    """Whole episodes, end to end, through the gate; how many steps they were."""
    if not episodes:
        return 0
    last = np.cumsum([len(episode) for episode in episodes]) - 1
    terminated = np.concatenate([episode.terminated for episode in episodes])
    truncated = np.concatenate([episode.truncated for episode in episodes])
    unmarked = last[~(terminated | truncated)[last]]
    gate.count("episodes_without_an_end", len(unmarked))
    truncated[unmarked] = True
    gate.add(
        Steps(
            observations=np.concatenate([e.observations[:-1] for e in episodes]),
            actions=np.concatenate([e.actions for e in episodes]),
            rewards=np.concatenate([e.rewards for e in episodes]),
            next_observations=np.concatenate([e.observations[1:] for e in episodes]),
            terminated=terminated,
            truncated=truncated,
        )
    )
    return len(terminated)
