"""Guarantee: the transitions of update k are a function of (seed, k), for every world size."""

import itertools

import numpy as np
import pytest

from offline_cql.data.sampler import batch_indices, block_indices, plan_blocks

SIZE = 1000


def global_block(seed: int, first: int, count: int, *, rank: int = 0, ranks: int = 1):
    return block_indices(seed, first, count, batch_size=16, size=SIZE, rank=rank, world_size=ranks)


def test_indices_are_a_function_of_seed_and_update():
    """Earlier samples do not matter."""
    first = batch_indices(3, 700, batch_size=16, size=SIZE)
    batch_indices(3, 5, batch_size=999, size=SIZE)
    again = batch_indices(3, 700, batch_size=16, size=SIZE)
    assert np.array_equal(first, again)
    assert first.dtype == np.int64


def test_a_block_is_its_updates_one_after_the_other():
    block = global_block(3, 700, 5)
    assert block.shape == (5, 16)
    for k, row in enumerate(block):
        assert np.array_equal(row, batch_indices(3, 700 + k, batch_size=16, size=SIZE))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_slices_of_all_ranks_are_the_global_batch(ranks: int):
    slices = [global_block(0, 40, 3, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert all(part.shape == (3, 16 // ranks) for part in slices)
    assert np.array_equal(np.concatenate(slices, axis=1), global_block(0, 40, 3))


def test_seeds_and_updates_differ():
    """Also those that differ by one, in a high bit, or are swapped."""
    seeds, updates = (0, 1, 2, 2**31, 2**32 - 1), (0, 1, 2, 10**6, 2**33)
    samples = {
        batch_indices(seed, update, batch_size=16, size=SIZE).tobytes()
        for seed, update in itertools.product(seeds, updates)
    }
    assert len(samples) == len(seeds) * len(updates)


def test_every_transition_is_drawn_equally_often():
    """400 updates of 100 into 50 transitions: chi-square of 49 degrees is 49 ± 10."""
    samples = block_indices(0, 0, 400, batch_size=100, size=50, rank=0, world_size=1)
    counts = np.bincount(samples.ravel(), minlength=50)
    assert counts.shape == (50,)
    chi_square = ((counts - 800.0) ** 2 / 800.0).sum()
    assert 49 - 35 < chi_square < 49 + 45
    columns = [np.bincount(column, minlength=50) for column in samples.T]
    assert len(columns) == 100
    assert max(((c - 8.0) ** 2 / 8.0).sum() for c in columns) < 49 + 55


def test_successive_updates_are_independent():
    """The correlation of 200,000 neighboring pairs is 0 ± 0.0022."""
    samples = block_indices(0, 0, 401, batch_size=500, size=SIZE, rank=0, world_size=1).astype(
        float
    )
    assert abs(np.corrcoef(samples[:-1].ravel(), samples[1:].ravel())[0, 1]) < 0.01


def test_sampling_is_with_replacement_and_takes_a_batch_larger_than_the_data():
    assert set(batch_indices(0, 0, batch_size=100, size=3)) == {0, 1, 2}


# --- Blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_len", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("start", [0, 1, 99, 137])
@pytest.mark.parametrize("boundaries", [[], [10], [25, 10, 60]])
def test_blocks_contain_each_update_once_and_end_at_boundaries(
    max_len: int, start: int, boundaries: list[int]
):
    plan = list(plan_blocks(start, 200, max_len=max_len, boundaries=boundaries))
    updates = [first + k for first, count in plan for k in range(count)]
    assert updates == list(range(start, 200))
    assert all(1 <= count <= max_len for _, count in plan)
    for first, count in plan:
        inside = range(first + 1, first + count)  # numbers of finished updates within the block
        assert not [k for k in inside for every in boundaries if k % every == 0]


def test_blocks_by_hand():
    assert list(plan_blocks(4, 21, max_len=6, boundaries=[10])) == [
        (4, 6),
        (10, 6),
        (16, 4),
        (20, 1),
    ]


def test_no_blocks_remain_after_the_last_update():
    assert list(plan_blocks(200, 200, max_len=5, boundaries=[10])) == []
