"""Minari's HDF5 format: one file, a group per episode, nested groups for nested observations.

Links and external storage are refused: through them HDF5 could expose other files as data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError
from offline_cql.readers.hdf5 import find_foreign_link
from offline_cql.readers.minari.episodes import (
    FLAGS,
    Episode,
    StoredDataset,
    as_flags,
    check_array,
    decode_images,
    stored_shape,
)
from offline_cql.spaces import Leaf

Array = npt.NDArray[Any]

FILE = "main_data.hdf5"
METADATA_CACHE = 2**19  # bytes that HDF5 may use to remember where objects are


def episodes(stored: StoredDataset) -> Iterator[Episode]:
    """Yield the episodes by number. Raises DataError, or any error of HDF5's."""
    with h5py.File(stored.folder / FILE, "r") as file:
        _limit_metadata_cache(file)
        link = find_foreign_link(file)
        if link is not None:
            raise DataError(f"{stored.dataset_id}: {link} is a soft or external link: refused")
        stored.check_count(len(file))
        reader = _EpisodeReader(file, stored)
        # By number: HDF5's own order is alphabetical, 10 before 2.
        for number in range(stored.episodes):
            yield reader.episode(number)


def _limit_metadata_cache(file: h5py.File) -> None:
    """Limit the cache that would otherwise grow by about the size of each episode."""
    config = file.id.get_mdc_config()
    config.min_size = config.max_size = config.initial_size = METADATA_CACHE
    file.id.set_mdc_config(config)


class _EpisodeReader:
    """Reads single episodes of an open file."""

    def __init__(self, file: h5py.File, stored: StoredDataset):
        self.file, self.stored = file, stored
        self.leaves = [("/".join(_group_names(leaf)), leaf) for leaf in stored.layout.leaves]

    def episode(self, number: int) -> Episode:
        name = f"episode_{number}"
        ends = [as_flags(f"{name}/{flag}", self.array(f"{name}/{flag}", ())) for flag in FLAGS]
        return Episode(
            f"{self.stored.dataset_id}: episode {number}",
            [self.leaf(f"{name}/{path}", leaf) for path, leaf in self.leaves],
            self.array(f"{name}/actions", stored_shape(self.stored.action)),
            self.array(f"{name}/rewards", ()),
            *ends,
        )

    def leaf(self, name: str, leaf: Leaf) -> Array:
        """Return one part of the observations [T+1, ...]; JPEG images are decoded."""
        if not self.stored.is_jpeg(leaf):
            return self.array(name, stored_shape(leaf.space))
        dataset, full_name = h5py.Dataset(self.open(name)), self.full_name(name)
        kind = h5py.check_vlen_dtype(dataset.dtype) or dataset.dtype
        if kind != np.uint8:
            raise DataError(f"{full_name} has dtype {dataset.dtype}, expected JPEG files")
        return decode_images(full_name, leaf, dataset[()])

    def array(self, name: str, inner: tuple[int, ...]) -> Array:
        """Return [T, *inner], read through h5py's low level, which is faster."""
        dataset = self.open(name)
        check_array(self.full_name(name), dataset.dtype, dataset.shape, inner)
        values = np.empty(dataset.shape, dataset.dtype)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values.reshape(len(values), *inner)

    def open(self, name: str) -> h5py.h5d.DatasetID:
        """Return an HDF5 dataset. Raises DataError for external storage and implausible length."""
        dataset = h5py.h5d.open(self.file.id, name.encode())
        layout = dataset.get_create_plist()
        if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
            raise DataError(f"{self.full_name(name)} is stored in another file: refused")
        if dataset.shape and dataset.shape[0] > self.stored.steps + 1:
            raise DataError(
                f"{self.full_name(name)} is {dataset.shape[0]:,} long, metadata.json states "
                f"{self.stored.steps:,} steps"
            )
        return dataset

    def full_name(self, name: str) -> str:
        """Return the file and the name in it, for messages."""
        return f"{self.file.filename}: {name}"


def _group_names(leaf: Leaf) -> list[str]:
    """Return Minari's names of nested groups: a Dict's keys, _index_0 for a Tuple."""
    return ["observations", *(k if isinstance(k, str) else f"_index_{k}" for k in leaf.path)]
