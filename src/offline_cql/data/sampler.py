"""Which transitions update k sees: a pure function of (seed, k), with no state to save.

The index sequence is that of the *global* batch. A rank takes its slice of it, so one process with
256 states and two with 128 each see the same transitions in the same order.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SAMPLING_STREAM = 0x5A4D


def batch_indices(seed: int, update: int, *, batch_size: int, size: int) -> NDArray[np.int64]:
    """Indices [batch_size] into `size` transitions, uniform with replacement, of one update.

    Philox is counter-based (Salmon et al. 2011): the update is the counter's highest word, so the
    streams of two updates never overlap and none has to be run through to reach another.
    """
    generator = np.random.Generator(
        np.random.Philox(key=[seed, SAMPLING_STREAM], counter=[0, 0, 0, update])
    )
    return generator.integers(0, size, size=batch_size, dtype=np.int64)


def index_block(
    seed: int, first: int, count: int, *, batch_size: int, size: int, rank: int, ranks: int
) -> NDArray[np.int64]:
    """Indices [count, batch_size / ranks] of updates first … first + count − 1 for one rank."""
    share = batch_size // ranks
    own = slice(rank * share, (rank + 1) * share)
    return np.stack(
        [
            batch_indices(seed, update, batch_size=batch_size, size=size)[own]
            for update in range(first, first + count)
        ]
    )


def blocks(done: int, updates: int, *, most: int, stops: list[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of each block from `done` to `updates`, at most `most` updates long.

    No block crosses a multiple of any of `stops`: there the run logs, evaluates or saves.
    """
    while done < updates:
        ends = [(done // every + 1) * every for every in stops]
        end = min([done + most, updates, *ends])
        yield done, end - done
        done = end
