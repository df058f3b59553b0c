"""Promise: batches are the data's rows, rewards scaled; only a true end stops the value."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import LoneTrainer, continuous_data, discrete_data

from offline_cql.data.module import TransitionsModule, training_tensors
from offline_cql.data.sampler import index_block
from offline_cql.transitions import Batch

UNSCALED = {"gamma": 0.9, "reward_scale": 1.0, "reward_shift": 0.0}
RUN = {"seed": 3, "updates": 20, "batch_size": 8, "updates_per_step": 6, "stops": [10]}


def served(data, *, done: int = 0, rank: int = 0, ranks: int = 1) -> list[Batch]:
    """The blocks that one rank's data loader yields."""
    module = TransitionsModule(data, done=done, **RUN, **UNSCALED)
    module.trainer = LoneTrainer(rank=rank, ranks=ranks)
    return list(module.train_dataloader())


def test_rewards_are_scaled_then_shifted():
    """0.5 · r + 2 for r = −2, 0, 3."""
    data = replace(continuous_data(64), rewards=np.array([-2.0, 0.0, 3.0] + [1.0] * 61, np.float32))
    tensors = training_tensors(data, gamma=0.9, reward_scale=0.5, reward_shift=2.0)
    assert tensors.reward[:3].tolist() == [1.0, 2.0, 3.5]
    assert tensors.reward.dtype == torch.float32


def test_discount_is_gamma_and_zero_after_a_terminal_state_alone():
    data = continuous_data(64)  # episodes of 16: terminated, truncated, terminated, truncated
    discount = training_tensors(data, **UNSCALED).discount
    assert discount.nonzero().numel() == 62
    assert (discount[15], discount[47]) == (0.0, 0.0)
    assert (discount[31], discount[63]) == (pytest.approx(0.9), pytest.approx(0.9))
    assert discount.dtype == torch.float32


@pytest.mark.parametrize("make", [continuous_data, discrete_data])
def test_other_columns_are_the_datas(make):
    data = make(64)
    tensors = training_tensors(data, **UNSCALED)
    assert np.array_equal(tensors.observation, data.observations)
    assert np.array_equal(tensors.action, data.actions)
    assert np.array_equal(tensors.next_observation, data.next_observations)
    assert tensors.action.dtype == (torch.int64 if data.spaces.discrete else torch.float32)


def test_the_data_are_left_as_they_are():
    data = continuous_data(64)
    before = data.rewards.copy()
    training_tensors(data, gamma=0.9, reward_scale=0.1, reward_shift=5.0)
    assert np.array_equal(data.rewards, before)


def test_blocks_hold_the_rows_that_the_sampler_names():
    data = continuous_data(64)
    blocks = served(data)
    assert [len(block.reward) for block in blocks] == [6, 4, 6, 4]
    first = 0
    for block in blocks:
        count = len(block.reward)
        where = index_block(3, first, count, batch_size=8, size=64, rank=0, ranks=1)
        assert block.observation.shape == (count, 8, 3)
        assert np.array_equal(block.observation, data.observations[where])
        assert np.array_equal(block.action, data.actions[where])
        assert np.array_equal(block.reward, data.rewards[where])
        assert np.array_equal(block.next_observation, data.next_observations[where])
        assert np.array_equal(block.discount == 0, data.terminated[where])
        first += count


def test_a_continued_run_sees_what_the_whole_run_would_have_seen():
    whole, rest = served(continuous_data(64)), served(continuous_data(64), done=13)
    for everything, later in zip(joined(whole), joined(rest), strict=True):
        assert torch.equal(everything[13:], later)


def test_two_ranks_share_the_batch_of_one_process():
    alone, *halves = (
        joined(served(continuous_data(64), rank=rank, ranks=ranks))
        for rank, ranks in ((0, 1), (0, 2), (1, 2))
    )
    for whole, left, right in zip(alone, *halves, strict=True):
        assert left.shape[1] == 4
        assert torch.equal(torch.cat([left, right], dim=1), whole)


def joined(blocks: list[Batch]) -> Batch:
    """All updates of all blocks, [U, B, …]."""
    return Batch(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def test_the_number_of_blocks_is_known():
    module = TransitionsModule(continuous_data(64), done=0, **RUN, **UNSCALED)
    module.trainer = LoneTrainer()
    assert len(module.train_dataloader()) == 4
