"""Whether the arrays of a data set fit each other step by step. Pure functions over Transitions.

In an episode the next observation of a step is the observation of the step after it. Arrays that
were joined with a shift, or rows in a wrong order, break that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import Array, Reading

RELATIVE, ABSOLUTE = 1e-5, 1e-6  # differences below are rounding, not another observation


@dataclass(frozen=True)
class Alignment:
    """Pairs of consecutive steps of an episode; how many of them are `next = following`.

    own, second: where next_observation[t] equals observation[t], observation[t + 2] instead, of
    the pairs that differ. first: episode and step of the first difference, of those looked at.
    """

    pairs: int
    equal: int
    own: int
    second: int
    episodes: int  # with a difference
    first: list[int] | None


def alignment(reading: Reading) -> Alignment:
    """Of the steps looked at; up to rounding."""
    data = reading.transitions
    pairs = equal = own = second = 0
    wrong: list[Array] = []
    for block in reading.blocks():
        rows = reading.and_one(block)
        inside = reading.inside(rows)
        observations = reading.observations(rows)
        following = reading.observations(rows, following=True)
        differs = inside & np.asarray((following[:-1] != observations[1:]).any(axis=1))
        at = np.flatnonzero(differs)
        at = at[~_same(following[at], observations[at + 1])]
        pairs, equal = pairs + int(inside.sum()), equal + int(inside.sum()) - len(at)
        own += int(_same(following[at], observations[at]).sum())
        further = at[at + 2 < len(observations)]
        further = further[inside[further + 1]]
        second += int(_same(following[further], observations[further + 2]).sum())
        wrong.append(at + rows.start)
    found = np.concatenate(wrong) if wrong else np.empty(0, int)
    episodes = np.searchsorted(data.ends, found, side="right")
    first = None
    if len(found):
        start = int(data.ends[episodes[0]] - data.lengths[episodes[0]])
        first = [int(episodes[0]), int(found[0]) - start]
    return Alignment(pairs, equal, own, second, len(np.unique(episodes)), first)


def _same(one: Array, other: Array) -> Array:
    left, right = one.astype(np.float64), other.astype(np.float64)
    near: Array = np.abs(left - right) <= ABSOLUTE + RELATIVE * np.abs(right)
    return np.asarray(near.all(axis=1))
