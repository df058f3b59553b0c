"""A check that every HDF5 reader makes before it reads: a file shows only its own data."""

from typing import Any

import h5py

from offline_cql.errors import DataError


def refuse_foreign_links(file: h5py.File, name: object) -> None:
    """Raise DataError for a soft or external link, which could expose another file as data."""

    def is_foreign(link: bytes, info: Any) -> str | None:  # a name ends the visit
        return None if info.type == h5py.h5l.TYPE_HARD else link.decode()

    if link := file.id.links.visit(is_foreign, info=True):
        raise DataError(f"{name}: {link} is a soft or external link: copy the data into the file")
