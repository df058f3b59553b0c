"""Exact copies of transitions and of whole episodes, found by hashing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import Array

Hashes = npt.NDArray[np.uint64]

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed: 2^64 / golden ratio
SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Duplicates:
    """Counts of exact copies: transitions equal in every number, episodes equal in every step.

    Copies count, their original does not. first: numbers of the first copied episode and of its
    original, None without a copied episode. distinct_observations: of the steps, by their hashes.
    """

    transitions: int
    episodes: int
    transitions_in_copied_episodes: int
    first: list[int] | None
    distinct_observations: int


def find_duplicates(reader: BlockReader) -> Duplicates:
    """Count copies by 64-bit hashes of every row; requires a reader of all rows.

    Two different rows of a billion share a hash with a probability of 3 %. Of images, the pixels
    that the reader reads are compared.
    """
    data = reader.transitions
    hashes, observations = np.empty((2, len(data)), np.uint64)
    for rows in reader.blocks():
        hashes[rows] = _hash(_row_columns(reader, rows))
        observations[rows] = _hash(_bits(reader.observations(rows)))
    starts = data.starts
    step = (np.arange(len(data)) - np.repeat(starts, data.lengths)).astype(np.uint64)
    episodes = np.add.reduceat(_mix(hashes ^ _mix(step)), starts)
    order = np.argsort(episodes, kind="stable")
    repeated = np.flatnonzero(episodes[order][1:] == episodes[order][:-1]) + 1
    copies = np.sort(order[repeated])
    first = None
    if len(copies):
        first = [int(copies[0]), int(np.flatnonzero(episodes == episodes[copies[0]])[0])]
    return Duplicates(
        transitions=len(hashes) - len(np.unique(hashes)),
        episodes=len(copies),
        transitions_in_copied_episodes=int(data.lengths[copies].sum()),
        first=first,
        distinct_observations=len(np.unique(observations)),
    )


def _row_columns(reader: BlockReader, rows: slice) -> list[Array]:
    """Return all columns of packed rows as bits; of images, those that the reader reads too."""
    data = reader.transitions
    columns = _bits(np.asarray(data.rows[rows]))
    if data.images is not None:
        columns += list(reader.observations(rows).T)
        columns += list(reader.next_observations(rows).T)
    return columns


def _bits(values: Array) -> list[Array]:
    """Return the columns of `values` [n, C] as integers that are equal where the numbers are."""
    # Adding 0 makes 0.0 and -0.0 equal.
    return list((values.astype(np.float32) + np.float32(0)).view(np.uint32).T)


def _hash(columns: list[Array]) -> Hashes:
    """Return a hash of each row over `columns`, C arrays [n]."""
    hashes = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        hashes = _mix(hashes ^ column)
    return hashes


def _mix(values: Array) -> Hashes:
    """Return hashes in which every bit of `values` reaches the low bits (Fibonacci hashing)."""
    with np.errstate(over="ignore"):
        mixed: Hashes = values.astype(np.uint64) * FACTOR + FACTOR
    return mixed ^ (mixed >> SHIFT)
