"""Minari data sets of the local store: HDF5, Arrow and Parquet.

Metadata are read as plain text and checked: nothing that a data set names is ever imported or run,
no id and no link leaves the store. Nothing is downloaded here (minari_download.py does). Knows
nothing of recording or training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from minari.dataset.minari_dataset import DATASET_ID_RE, parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces
from minari.serialization import deserialize_space
from minari.storage.datasets_root_dir import get_dataset_path

from offline_cql.errors import DataError
from offline_cql.readers.minari import arrow, hdf5
from offline_cql.readers.minari.episodes import Episode, Stored, write_episodes
from offline_cql.readers.writer import TransitionWriter
from offline_cql.spaces import flat_spaces, layout
from offline_cql.transitions import Spaces

FORMATS: dict[str, Callable[[Stored], Iterator[Episode]]] = {
    "hdf5": hdf5.episodes,
    "arrow": arrow.episodes,
    "parquet": arrow.episodes,
}
RECORDED = "sim/"  # what this project records itself, and no server has


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


def hidden(folder: str, dataset_id: str) -> Path:
    """A place in the store that Minari does not list, of one data set; the id is checked."""
    relative = dataset_path(dataset_id).relative_to(store_root())
    return store_root() / folder / relative.as_posix().replace("/", "__")


def ensure_namespace(dataset_id: str) -> None:
    """Minari lists only what lies in a namespace that it knows."""
    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)


class MinariReader:
    """A data set of the local store; observation_keys: of a Dict observation, None for all.

    A step that is both terminal and truncated is terminal; an episode without an end is truncated
    at its last step. Raises DataError when the data set is absent, malformed, not of a supported
    kind, or not what its metadata promise.
    """

    def __init__(self, dataset_id: str, *, observation_keys: Sequence[str] | None = None):
        self.dataset_id = dataset_id
        self.folder = dataset_path(dataset_id) / "data"
        self.keys = None if observation_keys is None else list(observation_keys)

    def fingerprint(self) -> dict[str, Any]:
        _metadata(self.dataset_id, self.folder)
        with self._readable():
            files = _files(self.folder)
        return {
            "id": self.dataset_id,
            "folder": str(self.folder.resolve()),
            "files": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
            "observation_keys": self.keys,
        }

    def spaces(self) -> Spaces:
        metadata = _metadata(self.dataset_id, self.folder)
        with self._readable():
            observation = deserialize_space(metadata["observation_space"])
            return flat_spaces(observation, self.stored.action, self.keys)

    @cached_property
    def stored(self) -> Stored:
        metadata = _metadata(self.dataset_id, self.folder)
        with self._readable():
            return Stored(
                self.dataset_id,
                self.folder,
                format=metadata["data_format"],
                steps=metadata["total_steps"],
                episodes=metadata["total_episodes"],
                layout=layout(deserialize_space(metadata["observation_space"]), self.keys),
                action=deserialize_space(metadata["action_space"]),
                encoded=bool(metadata.get("jpeg_encoding", True)),
            )

    def read(self, writer: TransitionWriter) -> None:
        stored = self.stored
        writer.check_disk_space(stored.steps, images=stored.layout.images)
        writer.observation_names = stored.layout.names
        refuse_links_outside(self.folder)
        with self._readable():
            write_episodes(stored, FORMATS[stored.format](stored), writer)
        if writer.size != stored.steps or not stored.steps:
            raise DataError(
                f"{self.dataset_id} holds {writer.size} steps, metadata.json says {stored.steps}: "
                f"delete {self.folder.parent} and record or download it again"
            )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Foreign files: whatever Minari, HDF5 or pyarrow stumbles over is a fault of theirs."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.dataset_id} cannot be read ({error!s:.300}): delete {self.folder.parent} "
                "and record or download it again"
            ) from error


def _metadata(dataset_id: str, folder: Path) -> dict[str, Any]:
    """Refuses what Minari would answer by making an environment that the file names."""
    if not is_stored(dataset_id):
        raise DataError(
            f"data set {dataset_id} is not in the local store {store_root()}: record it with "
            "python collect.py env=… dataset.quality=… (see python collect.py --help)"
        )
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
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
    for key in ("total_steps", "total_episodes"):
        if type(metadata.get(key)) is not int or metadata[key] < 0:
            raise DataError(f"{dataset_id}: metadata.json has no count {key}")
    stored_as = metadata.get("data_format")
    if not isinstance(stored_as, str) or stored_as not in FORMATS:
        raise DataError(
            f"{dataset_id} is stored as {stored_as!r}; {', '.join(FORMATS)} are supported"
        )
    return metadata


def refuse_links_outside(folder: Path) -> None:
    """Raises DataError for a link that leads out of the folder."""
    top = folder.resolve()
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in folders + names):
            if path.is_symlink() and not path.resolve().is_relative_to(top):
                raise DataError(f"{path} is a link out of the data set, which is refused")


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Every file below, with its size and time."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            about = os.stat(path)
            found.append((os.path.relpath(path, folder), about.st_size, about.st_mtime_ns))
    return sorted(found)
