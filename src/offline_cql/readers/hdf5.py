"""A check that every HDF5 reader makes before it reads: a file shows only its own data."""

from typing import Any

import h5py


def find_foreign_link(file: h5py.File) -> str | None:
    """Return the name of the first soft or external link in the file, or None.

    Such a link could expose another file of this machine as data.
    """
    name: str | None = file.id.links.visit(_soft_or_external, info=True)
    return name


def _soft_or_external(name: bytes, info: Any) -> str | None:
    """Return the name of a link that is not a hard one, which ends the visit."""
    return None if info.type == h5py.h5l.TYPE_HARD else name.decode()
