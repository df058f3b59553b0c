"""Reader of Minari data sets in the local store: HDF5, Arrow and Parquet.

Metadata are parsed as JSON and validated: nothing that a data set names is imported or run, and no
id or link leads out of the store. Downloads are in download.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from minari.dataset.minari_dataset import DATASET_ID_RE, parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces
from minari.serialization import deserialize_space

from offline_cql.errors import DataError
from offline_cql.io import expand_home, read_json, remedied
from offline_cql.readers.checksums import MANIFEST, verify_manifest
from offline_cql.readers.foreign_files import refuse_foreign_content
from offline_cql.readers.minari import arrow, hdf5
from offline_cql.readers.minari.episodes import Episode, StoredDataset, write_episodes
from offline_cql.readers.writer import TransitionWriter, translate_errors
from offline_cql.render.command import command
from offline_cql.spaces import flat_spaces, layout
from offline_cql.transitions import Spaces

FORMATS: dict[str, Callable[[StoredDataset], Iterator[Episode]]] = {
    "hdf5": hdf5.episodes,
    "arrow": arrow.episodes,
    "parquet": arrow.episodes,
}
DATA_SUFFIXES = (".hdf5", ".arrow", ".parquet")
RECORDED = "sim/"  # namespace of the data sets that this project simulates; no server has them


STORE = "MINARI_DATASETS_PATH"
STORE_REMEDY = f"set {STORE} to a folder that you can write, on a disk with space"


def store_root() -> Path:
    """Return $MINARI_DATASETS_PATH, or Minari's default, as an absolute path; create the folder.

    Raises ConfigError for a user without a home.
    """
    root = expand_home(os.environ.get(STORE) or "~/.minari/datasets", STORE_REMEDY).absolute()
    os.environ[STORE] = str(root)  # Minari's functions read it, and know neither ~ nor no home
    with remedied(root, STORE_REMEDY):
        root.mkdir(parents=True, exist_ok=True)
    return root


def dataset_path(dataset_id: str) -> Path:
    """Return the folder of a data set in the local store, whether or not it exists.

    Raises DataError for an id that is not of the form name/name-v0, `..` included.
    """
    match = DATASET_ID_RE.fullmatch(dataset_id)
    if match is None or match.group("version") is None or "//" in dataset_id:
        raise DataError(
            f"data set id {dataset_id!r} must look like sim/hopper/medium-v0: names of two letters "
            "or more, and a version"
        )
    return store_root() / dataset_id


def is_stored(dataset_id: str) -> bool:
    """Return True if the local store has the data set."""
    return (dataset_path(dataset_id) / "data" / "metadata.json").is_file()


def hidden_path(folder: str, dataset_id: str) -> Path:
    """Return a path of one data set in a folder of the store that Minari does not list."""
    relative = dataset_path(dataset_id).relative_to(store_root())
    return store_root() / folder / relative.as_posix().replace("/", "__")


def ensure_namespace(dataset_id: str) -> None:
    """Create the namespace of a data set: Minari lists only data sets in namespaces."""
    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)


class MinariReader:
    """Reader of a data set in the local store; observation_keys: of a Dict, None for all.

    An episode without an end is truncated at its last step. Raises DataError when the data set is
    missing, malformed or unsupported, or contradicts its metadata.
    """

    def __init__(self, dataset_id: str, *, observation_keys: Sequence[str] | None = None):
        self.dataset_id = dataset_id
        self.folder = dataset_path(dataset_id) / "data"
        self.keys = None if observation_keys is None else list(observation_keys)
        self.remedy = _remedy(dataset_id, self.folder.parent)

    def fingerprint(self) -> dict[str, Any]:
        stored = self.stored
        with translate_errors(self.dataset_id, self.remedy):
            files = _files(stored.folder)
        return {
            "id": self.dataset_id,
            "folder": str(self.folder.resolve()),
            "files": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
            "observation_keys": self.keys,
        }

    def spaces(self) -> Spaces:
        return self.stored.spaces

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The content of metadata.json."""
        return _metadata(self.dataset_id, self.folder)

    @cached_property
    def stored(self) -> StoredDataset:
        """The validated metadata."""
        metadata = self.metadata
        with translate_errors(self.dataset_id, self.remedy):
            observation = deserialize_space(metadata["observation_space"])
            action = deserialize_space(metadata["action_space"])
            return StoredDataset(
                self.dataset_id,
                self.folder,
                format=metadata["data_format"],
                steps=metadata["total_steps"],
                episodes=metadata["total_episodes"],
                layout=layout(observation, self.keys),
                action=action,
                spaces=flat_spaces(observation, action, self.keys),
                jpeg=bool(metadata.get("jpeg_encoding", True)),
            )

    def read(self, writer: TransitionWriter) -> None:
        stored = self.stored
        writer.check_disk_space(stored.steps, images=stored.layout.images)
        names = _names(self.metadata, stored)
        writer.observation_names, writer.action_names = names
        refuse_links_outside(self.folder)
        verify_manifest(self.folder, self.remedy)
        for path in self.folder.rglob("*"):  # a clone of a repository may hold pointers
            if path.suffix in DATA_SUFFIXES and path.is_file():
                refuse_foreign_content(path, path.suffix, again=self.remedy)
        with translate_errors(self.dataset_id, self.remedy):
            write_episodes(stored, FORMATS[stored.format](stored), writer)
        if writer.size != stored.steps or not stored.steps:
            raise DataError(
                f"{self.dataset_id} holds {writer.size} steps, metadata.json states "
                f"{stored.steps}: {self.remedy}"
            )


def _names(
    metadata: dict[str, Any], stored: StoredDataset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of observation columns and of actions; a table's are in its metadata."""
    sizes = {"observation": stored.spaces.observation_dim, "action": stored.spaces.action_dim}
    names = []
    for part, size in sizes.items():
        entries: Any = metadata.get(f"{part}_names")
        valid = isinstance(entries, list) and {*map(type, entries)} == {str}
        names.append(tuple(entries) if valid and len(entries) == size else ())
    return stored.layout.names or names[0], names[1]


def _remedy(dataset_id: str, folder: Path) -> str:
    """Return the remedy for broken files; only what was recorded here is deleted."""
    if dataset_id.startswith(RECORDED) or (folder / MANIFEST).is_file():
        return f"delete {folder} and record it again"
    return f"put an intact copy there, or if it was downloaded, delete {folder} and do so again"


def _metadata(dataset_id: str, folder: Path) -> dict[str, Any]:
    """Return the content of metadata.json.

    Raises DataError for missing spaces: Minari would create the environment that the file names.
    """
    if not is_stored(dataset_id):
        raise DataError(
            f"data set {dataset_id} is not in the local store {store_root()}: record it; "
            f"{command('collect.py', '--help')} says how"
        )
    metadata = read_json(folder / "metadata.json")
    for key in ("observation_space", "action_space"):
        if not isinstance(metadata.get(key), str):
            raise DataError(
                f"{dataset_id}: metadata.json has no {key}: Minari would have to run the "
                "environment that the data set names, which is not allowed"
            )
    for key in ("total_steps", "total_episodes"):
        if type(metadata.get(key)) is not int or metadata[key] < 0:
            raise DataError(f"{dataset_id}: {key} in metadata.json must be an integer, at least 0")
    data_format = metadata.get("data_format")
    if not isinstance(data_format, str) or data_format not in FORMATS:
        raise DataError(
            f"{dataset_id} has the data_format {data_format!r}; supported: {', '.join(FORMATS)}"
        )
    return metadata


def refuse_links_outside(folder: Path) -> None:
    """Raise DataError for a symbolic link that leads out of the folder."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise DataError(f"{path} is a link out of the data set: replace it by the file")


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, size and modification time of every file below a folder."""
    files = []
    for parent, _, names in os.walk(folder):  # three times as fast as Path.rglob
        for path in (os.path.join(parent, name) for name in names):
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
                raise DataError(f"{path} is not a regular file: replace it by one")
            files.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return sorted(files)
