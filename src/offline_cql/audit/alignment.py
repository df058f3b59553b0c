"""Check that the next observation of each step equals the observation of the following step.

Arrays that were joined with a shift, and rows in the wrong order, break this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import Array

RELATIVE, ABSOLUTE = 1e-5, 1e-6  # smaller differences are rounding


@dataclass(frozen=True)
class Alignment:
    """Counts of pairs of consecutive steps t, t + 1 of an episode, and how many of them match.

    A pair matches when next_observation[t] equals observation[t + 1] up to rounding. Of the others,
    equal_to_current counts where it equals observation[t], equal_to_second_next where it equals
    observation[t + 2]. first_mismatch: episode and step of the first pair that does not match.
    """

    pairs: int
    matching: int
    equal_to_current: int
    equal_to_second_next: int
    episodes_with_mismatch: int
    first_mismatch: list[int] | None


def compute_alignment(reader: BlockReader) -> Alignment:
    """Compare the next observations of the rows that the reader reads with the following rows."""
    data = reader.transitions
    pairs = matching = equal_to_current = equal_to_second_next = 0
    mismatches: list[Array] = []
    for block in reader.blocks():
        rows = reader.with_next_row(block)
        consecutive = reader.consecutive(rows)
        observations = reader.observations(rows)
        next_observations = reader.next_observations(rows)
        # Exact comparison first: almost every pair passes it, and it is the cheap one.
        differs = consecutive & np.asarray((next_observations[:-1] != observations[1:]).any(axis=1))
        steps = np.flatnonzero(differs)
        steps = steps[~_close(next_observations[steps], observations[steps + 1])]
        pairs += int(consecutive.sum())
        matching += int(consecutive.sum()) - len(steps)
        equal_to_current += int(_close(next_observations[steps], observations[steps]).sum())
        inner = steps[steps + 2 < len(observations)]
        inner = inner[consecutive[inner + 1]]
        equal_to_second_next += int(_close(next_observations[inner], observations[inner + 2]).sum())
        mismatches.append(steps + rows.start)
    rows_of_mismatch = np.concatenate(mismatches) if mismatches else np.empty(0, int)
    episodes = np.searchsorted(data.ends, rows_of_mismatch, side="right")
    first_mismatch = None
    if len(rows_of_mismatch):
        start = int(data.ends[episodes[0]] - data.lengths[episodes[0]])
        first_mismatch = [int(episodes[0]), int(rows_of_mismatch[0]) - start]
    return Alignment(
        pairs=pairs,
        matching=matching,
        equal_to_current=equal_to_current,
        equal_to_second_next=equal_to_second_next,
        episodes_with_mismatch=len(np.unique(episodes)),
        first_mismatch=first_mismatch,
    )


def _close(values: Array, reference: Array) -> Array:
    """Return a mask [n] of the rows of `values` [n, C] that equal `reference` up to rounding."""
    values, reference = values.astype(np.float64), reference.astype(np.float64)
    close: Array = np.abs(values - reference) <= ABSOLUTE + RELATIVE * np.abs(reference)
    return np.asarray(close.all(axis=1))
