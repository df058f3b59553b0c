"""Transitions and episodes that occur more than once. Pure functions over Transitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.audit.block_reader import Array, Reading

Hashes = npt.NDArray[np.uint64]

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits well mixed: 2^64 / golden ratio
SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Duplicates:
    """Exact copies: every number of a step is the same, or every step of an episode.

    Each copy counts, its original does not. first: (copy, original), numbers of episodes.
    """

    transitions: int
    episodes: int
    transitions_of_episodes: int  # in copied episodes
    first: list[int] | None


def duplicates(reading: Reading) -> Duplicates:
    """Of all rows, whatever the reading samples. By hashes of 64 bits: two different ones of a
    billion would share one with a probability of 3 %. Of images, the looked-at pixels count."""
    data = reading.transitions
    hashes = np.empty(len(data), np.uint64)
    for rows in reading.blocks():
        hashes[rows] = _row_hashes(reading, rows)
    starts = data.starts
    step = (np.arange(len(data)) - np.repeat(starts, data.lengths)).astype(np.uint64)
    episodes = np.add.reduceat(_mixed(hashes ^ _mixed(step)), starts)
    order = np.argsort(episodes, kind="stable")
    again = np.flatnonzero(episodes[order][1:] == episodes[order][:-1]) + 1
    copies = np.sort(order[again])
    first = None
    if len(copies):
        first = [int(copies[0]), int(np.flatnonzero(episodes == episodes[copies[0]])[0])]
    return Duplicates(
        transitions=len(hashes) - len(np.unique(hashes)),
        episodes=len(copies),
        transitions_of_episodes=int(data.lengths[copies].sum()),
        first=first,
    )


def _row_hashes(reading: Reading, rows: slice) -> Hashes:
    data = reading.transitions
    # Adding 0 makes one zero of the two that floats have.
    bits = (np.asarray(data.rows[rows]) + np.float32(0)).view(np.uint32)
    columns = [bits[:, k] for k in range(bits.shape[1])]
    if data.images is not None:
        for following in (False, True):
            columns += list(reading.observations(rows, following=following).T)
    hashes = np.zeros(len(bits), np.uint64)
    for column in columns:
        hashes = _mixed(hashes ^ column)
    return hashes


def _mixed(values: Array) -> Hashes:
    with np.errstate(over="ignore"):
        mixed: Hashes = values.astype(np.uint64) * FACTOR + FACTOR
    return mixed ^ (mixed >> SHIFT)
