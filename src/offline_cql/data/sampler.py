"""The transitions of update k, as a pure function of (seed, k): there is no state to save.

The indices are drawn for the *global* batch and a rank takes its slice, so that one process with
256 states and two with 128 each see the same transitions in the same order.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from offline_cql.random_streams import RandomStream


def batch_indices(seed: int, update: int, *, batch_size: int, size: int) -> NDArray[np.int64]:
    """Sample the indices [batch_size] of one update, uniformly with replacement from `size`.

    Philox is counter-based (Salmon et al. 2011): the update is the counter's highest word, so the
    streams of two updates never overlap and none has to be generated to reach another.
    """
    generator = np.random.Generator(
        np.random.Philox(key=[seed, RandomStream.SAMPLING], counter=[0, 0, 0, update])
    )
    return generator.integers(0, size, size=batch_size, dtype=np.int64)


def block_indices(
    seed: int, first: int, count: int, *, batch_size: int, size: int, rank: int, world_size: int
) -> NDArray[np.int64]:
    """Return one rank's indices [count, batch_size / world_size] of `count` updates from `first`.

    batch_size is the global one.
    """
    rank_size = batch_size // world_size
    rank_slice = slice(rank * rank_size, (rank + 1) * rank_size)
    return np.stack(
        [
            batch_indices(seed, update, batch_size=batch_size, size=size)[rank_slice]
            for update in range(first, first + count)
        ]
    )


def plan_blocks(
    start: int, updates: int, *, max_len: int, boundaries: list[int]
) -> Iterator[tuple[int, int]]:
    """Yield (first update, count) of each block from `start` to `updates`.

    No block is longer than max_len or crosses a multiple of any of the `boundaries`, where the
    run logs, evaluates or saves.
    """
    while start < updates:
        ends = [(start // every + 1) * every for every in boundaries]
        end = min([start + max_len, updates, *ends])
        yield start, end - start
        start = end
