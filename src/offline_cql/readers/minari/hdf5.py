"""Minari's HDF5 format: one file, a group for each episode, nested groups for nested observations.

Only what lies in the file itself is read: HDF5 can show other files of the machine as data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.readers.minari.episodes import (
    FLAGS,
    Episode,
    Stored,
    check_array,
    flags,
    pictures,
    stored_shape,
)
from offline_cql.spaces import Leaf

Array = npt.NDArray[Any]

FILE = "main_data.hdf5"
METADATA = 2**19  # bytes of HDF5's own memory of where things are


def episodes(stored: Stored) -> Iterator[Episode]:
    """In the order of their numbers. Raises DataError, or whatever HDF5 stumbles over."""
    with h5py.File(stored.folder / FILE, "r") as file:
        _remember_little(file)
        link = file.id.links.visit(_unless_hard, info=True)
        if link is not None:  # it could show another file of this machine as data
            raise DataError(f"{stored.dataset_id}: {link} is a link elsewhere, which is refused")
        stored.check_count(len(file))
        reader = _Reader(file, stored)
        # By number: HDF5's own order is alphabetical, 10 before 2.
        for number in range(stored.episodes):
            yield reader.episode(number)


def _remember_little(file: h5py.File) -> None:
    """HDF5 would keep what it met on the way to each episode, about as much as the episode."""
    memory = file.id.get_mdc_config()
    memory.min_size = memory.max_size = memory.initial_size = METADATA
    file.id.set_mdc_config(memory)


def _unless_hard(name: bytes, info: Any) -> str | None:
    """The name of a soft or external link, which ends the visit of all links."""
    return None if info.type == h5py.h5l.TYPE_HARD else name.decode()


class _Reader:
    def __init__(self, file: h5py.File, stored: Stored):
        self.file, self.stored = file, stored
        self.leaves = [("/".join(_group_names(leaf)), leaf) for leaf in stored.layout.leaves]

    def episode(self, number: int) -> Episode:
        name = f"episode_{number}"
        ends = [flags(f"{name}/{flag}", self.array(f"{name}/{flag}", ())) for flag in FLAGS]
        return Episode(
            f"{self.stored.dataset_id}: episode {number}",
            [self.leaf(f"{name}/{path}", leaf) for path, leaf in self.leaves],
            self.array(f"{name}/actions", stored_shape(self.stored.action)),
            self.array(f"{name}/rewards", ()),
            *ends,
        )

    def leaf(self, name: str, leaf: Leaf) -> Array:
        if not self.stored.is_picture(leaf):
            return self.array(name, stored_shape(leaf.space))
        dataset = h5py.Dataset(self.own(name))
        kind = h5py.check_vlen_dtype(dataset.dtype) or dataset.dtype
        if kind != np.uint8:
            raise DataError(f"{self.place(name)} has dtype {dataset.dtype}, expected JPEG files")
        return pictures(self.place(name), leaf, dataset[()])

    def array(self, name: str, inner: tuple[int, ...]) -> Array:
        """[T, *inner], read without the detour over h5py's high level, which costs more."""
        dataset = self.own(name)
        check_array(self.place(name), dataset.dtype, dataset.shape, inner)
        values = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values.reshape(len(values), *inner)

    def own(self, name: str) -> h5py.h5d.DatasetID:
        """A dataset that lies in this file and is not longer than the whole data set."""
        dataset = h5py.h5d.open(self.file.id, name.encode())
        layout = dataset.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise DataError(f"{self.place(name)} lies in another file, which is refused")
        if dataset.shape and dataset.shape[0] > self.stored.steps + 1:
            raise DataError(
                f"{self.place(name)} is {dataset.shape[0]:,} long, metadata.json says "
                f"{self.stored.steps:,} steps"
            )
        return dataset

    def place(self, name: str) -> str:
        return f"{self.file.filename}: {name}"


def _group_names(leaf: Leaf) -> list[str]:
    """Minari's names of nested groups: a Dict's keys, _index_0 of a Tuple."""
    return ["observations", *(k if isinstance(k, str) else f"_index_{k}" for k in leaf.path)]
