"""Minari's HDF5 format: one file, a group per episode, nested groups for nested observations.

Links and external storage are refused: through them HDF5 could expose other files as data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import h5py
import numpy as np

from offline_cql.errors import DataError
from offline_cql.readers.hdf5 import refuse_foreign_links
from offline_cql.readers.minari.episodes import (
    Episode,
    StoredDataset,
    build_episode,
    check_array,
    decode_images,
    stored_shape,
)
from offline_cql.readers.row_files import Array
from offline_cql.spaces import Leaf

FILE = "main_data.hdf5"
METADATA_CACHE = 2**19  # bytes that HDF5 may use to remember where objects are


def episodes(stored: StoredDataset) -> Iterator[Episode]:
    """Yield the episodes by number. Raises DataError, or any error of HDF5's."""
    with h5py.File(stored.folder / FILE, "r") as file:
        _limit_metadata_cache(file)
        refuse_foreign_links(file, stored.dataset_id)
        stored.check_count(len(file))
        # By number: HDF5's own order is alphabetical, 10 before 2.
        for number in range(stored.episodes):
            group = f"episode_{number}"
            array = partial(_array, file, stored, group)
            yield build_episode(stored, number, array, partial(_leaf, file, stored, group))


def _limit_metadata_cache(file: h5py.File) -> None:
    """Limit the cache that would otherwise grow by about the size of each episode."""
    config = file.id.get_mdc_config()
    config.min_size = config.max_size = config.initial_size = METADATA_CACHE
    file.id.set_mdc_config(config)


def _leaf(file: h5py.File, stored: StoredDataset, group: str, leaf: Leaf) -> Array:
    """Return one part of the observations [T+1, ...]; JPEG images are decoded."""
    # Minari's names of nested groups: a Dict's keys, _index_0 for a Tuple.
    keys = (key if isinstance(key, str) else f"_index_{key}" for key in leaf.path)
    path = "/".join(["observations", *keys])
    if not stored.is_jpeg(leaf):
        return _array(file, stored, group, path, stored_shape(leaf.space))
    name, identifier = _open(file, stored, f"{group}/{path}")
    dataset = h5py.Dataset(identifier)
    kind = h5py.check_vlen_dtype(dataset.dtype) or dataset.dtype
    if kind != np.uint8:
        raise DataError(f"{name} has dtype {dataset.dtype}, expected JPEG files")
    return decode_images(name, leaf, dataset[()])


def _array(
    file: h5py.File, stored: StoredDataset, group: str, path: str, inner: tuple[int, ...]
) -> Array:
    """Return [T, *inner], read through h5py's low level, which is faster."""
    name, dataset = _open(file, stored, f"{group}/{path}")
    check_array(name, dataset.dtype, dataset.shape, inner)
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    return values.reshape(len(values), *inner)


def _open(file: h5py.File, stored: StoredDataset, path: str) -> tuple[str, h5py.h5d.DatasetID]:
    """Return an HDF5 dataset with its name for messages.

    Raises DataError for external storage and implausible length.
    """
    name, dataset = f"{file.filename}: {path}", h5py.h5d.open(file.id, path.encode())
    layout = dataset.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        raise DataError(f"{name} is stored in another file: refused")
    if dataset.shape and dataset.shape[0] > stored.steps + 1:
        raise DataError(
            f"{name} is {dataset.shape[0]:,} long, metadata.json states {stored.steps:,} steps"
        )
    return name, dataset
