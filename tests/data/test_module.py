"""Guarantee: batches are the rows of the data with transformed rewards; truncation bootstraps.

Validation rows are never served; n-step targets and images come from the same rows.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from support import builders
from support.builders import LoneTrainer, continuous_data, dataset_of, discrete_data, image_data
from support.config import settings

from offline_cql.commands.fit import create_agent, make_data_module
from offline_cql.config import DatasetConfig
from offline_cql.data import statistics
from offline_cql.data.dataset import TransitionDataset, make_dataset
from offline_cql.data.module import TransitionDataModule
from offline_cql.data.returns import n_step_returns
from offline_cql.data.sampler import block_indices
from offline_cql.data.split import Split, episode_rows, split_episodes
from offline_cql.data.statistics import observation_statistics, reward_scale
from offline_cql.errors import DataError
from offline_cql.transitions import Batch, Transitions

RUN: dict[str, Any] = {
    **{"seed": 3, "updates": 20, "batch_size": 8, "updates_per_step": 6, "boundaries": [10]}
}


def load_blocks(
    data: Transitions | TransitionDataset, *, start: int = 0, rank: int = 0, ranks: int = 1
) -> list[Batch]:
    """Return the blocks that one rank's data loader yields."""
    fetch = data if isinstance(data, TransitionDataset) else dataset_of(data, gamma=0.9)
    module = TransitionDataModule(fetch, start=start, **RUN)
    module.trainer = LoneTrainer(rank=rank, ranks=ranks)
    return list(module.train_dataloader())


def all_transitions(dataset: TransitionDataset) -> Batch:
    """Return all transitions of a dataset, in order."""
    return dataset[torch.arange(len(dataset))]


def dataset(*overrides: str) -> DatasetConfig:
    return settings(*(f"dataset.{override}" for override in overrides)).dataset


def train_on(data: Transitions, *episodes: int) -> Split:
    """Return the split that trains on the given episodes."""
    chosen = np.array(episodes)
    rows = episode_rows(data, chosen)
    return Split(chosen, np.arange(0), rows, len(rows))


def test_rewards_are_scaled_then_shifted():
    """0.5 · r + 2 for r = −2, 0, 3."""
    data = continuous_data(64)
    data.rewards[:3] = [-2.0, 0.0, 3.0]
    batch = all_transitions(dataset_of(data, scale=0.5, shift=2.0))
    assert batch.reward[:3].tolist() == [1.0, 2.0, 3.5]
    assert batch.reward.dtype == torch.float32


def test_discount_is_gamma_and_zero_after_a_terminal_state_alone():
    data = continuous_data(64)  # episodes of 16: terminated, truncated, terminated, truncated
    discount = all_transitions(dataset_of(data, gamma=0.9)).discount
    assert discount.nonzero().numel() == 62
    assert (discount[15], discount[47]) == (0.0, 0.0)
    assert (discount[31], discount[63]) == (pytest.approx(0.9), pytest.approx(0.9))
    assert discount.dtype == torch.float32


@pytest.mark.parametrize("make", [continuous_data, discrete_data])
def test_other_columns_equal_the_data(make: Any):
    data = make(64)
    batch = all_transitions(dataset_of(data))
    assert np.array_equal(batch.observation, data.observations)
    assert np.array_equal(batch.action, data.actions)
    assert np.array_equal(batch.next_observation, data.next_observations)
    assert batch.action.dtype == (torch.int64 if data.spaces.discrete else torch.float32)


@pytest.mark.parametrize("n_step", [1, 3])
def test_transforms_do_not_change_the_data(n_step: int):
    data = continuous_data(64)
    before = data.rows.copy()
    all_transitions(dataset_of(data, gamma=0.9, scale=0.1, shift=5.0, n_step=n_step))
    assert np.array_equal(data.rows, before)


def test_blocks_contain_the_rows_that_the_sampler_returns():
    data = continuous_data(64)
    blocks = load_blocks(data)
    assert [len(block.reward) for block in blocks] == [6, 4, 6, 4]
    first = 0
    for block in blocks:
        count = len(block.reward)
        where = block_indices(3, first, count, batch_size=8, size=64, rank=0, world_size=1)
        assert block.observation.shape == (count, 8, 3)
        assert np.array_equal(block.observation, data.observations[where])
        assert np.array_equal(block.action, data.actions[where])
        assert np.array_equal(block.reward, data.rewards[where])
        assert np.array_equal(block.next_observation, data.next_observations[where])
        assert np.array_equal(block.discount == 0, data.terminated[where])
        first += count


def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one():
    whole, rest = load_blocks(continuous_data(64)), load_blocks(continuous_data(64), start=13)
    for complete, later in zip(concatenate(whole), concatenate(rest), strict=True):
        assert torch.equal(complete[13:], later)


def test_two_ranks_share_the_batch_of_one_process():
    alone, *halves = (
        concatenate(load_blocks(continuous_data(64), rank=rank, ranks=ranks))
        for rank, ranks in ((0, 1), (0, 2), (1, 2))
    )
    for whole, first, second in zip(alone, *halves, strict=True):
        assert first.shape[1] == 4
        assert torch.equal(torch.cat([first, second], dim=1), whole)


def concatenate(blocks: list[Batch]) -> Batch:
    """Return all updates of all blocks, [U, B, …]."""
    return Batch(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def test_the_length_is_the_number_of_blocks():
    module = TransitionDataModule(dataset_of(continuous_data(64)), start=0, **RUN)
    module.trainer = LoneTrainer()
    assert len(module.train_dataloader()) == 4


# --- Validation episodes ------------------------------------------------------------------------


def test_a_validation_row_is_never_served():
    """Of 5,000 sampled rows none is in the 13 validation episodes."""
    data = continuous_data(1_008)
    data.rewards[:] = data.episodes
    split = split_episodes(data, dataset("validation_fraction=0.2"))
    fetch = dataset_of(data, split)
    assert len(split.validation) == 13
    assert fetch.size == 1_008 - 13 * 16
    module = TransitionDataModule(fetch, start=0, **{**RUN, "updates": 625, "boundaries": [1000]})
    module.trainer = LoneTrainer()
    rewards = set(concatenate(list(module.train_dataloader())).reward.flatten().tolist())
    assert rewards == set(split.training.tolist())
    assert not rewards & set(split.validation.tolist())


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("make", ["continuous", "discrete", "images"])
def test_a_split_serves_its_training_rows_and_no_others(make: str, n_step: int):
    """Index k is the k-th training row, equal to the same row without a split."""
    data = {"continuous": continuous_data, "discrete": discrete_data, "images": image_data}[make](
        64
    )
    part = all_transitions(dataset_of(data, train_on(data, 1, 3), n_step=n_step))
    whole = all_transitions(dataset_of(data, n_step=n_step))
    rows = [*range(16, 32), *range(48, 64)]
    for subset, complete in zip(part, whole, strict=True):
        assert torch.equal(subset, complete[rows])


# --- n-step returns -----------------------------------------------------------------------------


def test_three_steps_by_hand():
    """Episodes of 16, discount 1/2. Row 0: r0 + r1/2 + r2/4, then V/8. Row 14, before a terminal
    end: r14 + r15/2, then nothing. Row 30, before a truncation: r30 + r31/2, then V/4."""
    data = continuous_data(64)
    data.rewards[:] = np.arange(64)
    batch = all_transitions(dataset_of(data, gamma=0.5, n_step=3, scale=2.0, shift=1.0))
    r = 2.0 * np.arange(64) + 1.0
    expected = [r[0] + r[1] / 2 + r[2] / 4, r[14] + r[15] / 2, r[30] + r[31] / 2]
    assert batch.reward[[0, 14, 30]].tolist() == expected
    assert batch.discount[[0, 13, 14, 29, 30]].tolist() == [0.125, 0, 0, 0.125, 0.25]
    expected_next = data.next_observations[[2, 15, 31]]
    assert np.array_equal(batch.next_observation[[0, 14, 30]], expected_next)
    assert np.array_equal(batch.observation, data.observations)
    assert np.array_equal(batch.action, data.actions)


def test_one_step_equals_n_step_returns_with_n_1():
    data = continuous_data(64)
    batch = all_transitions(dataset_of(data, gamma=0.9))
    reward, discount, last = n_step_returns(
        data.rewards, data.terminated, data.ends, gamma=0.9, n=1
    )
    assert np.array_equal(batch.reward, reward)
    assert np.array_equal(batch.discount, discount)
    assert last.tolist() == list(range(64))


def test_steps_of_different_times_have_discounts_of_their_own():
    data = replace(continuous_data(64), durations=np.tile(np.float32([1, 2, 3, 4]), 16))
    batch = all_transitions(dataset_of(data, gamma=0.5))
    expected = np.tile([0.5, 0.25, 0.125, 0.0625], 16) * ~data.terminated
    assert batch.discount.tolist() == expected.tolist()
    assert data.elapsed[:3].tolist() == [0, 1, 3]


# --- Images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_step", [1, 2])
def test_images_are_served_as_float32_of_their_bytes(n_step: int):
    data = image_data(64)
    batch = all_transitions(dataset_of(data, n_step=n_step))
    assert batch.observation.dtype == batch.next_observation.dtype == torch.float32
    assert np.array_equal(batch.observation, data.observations)
    last = np.minimum(np.arange(64) + n_step - 1, np.repeat(data.ends - 1, 16))
    assert np.array_equal(batch.next_observation, data.next_observations[last])


@pytest.mark.parametrize("n_step", [1, 2])
def test_images_can_be_trained_on(n_step: int):
    """Eight updates of the discrete agent, normalized by the images' own statistics."""
    data, config = image_data(64), builders.settings("env=cartpole", f"dataset.n_step={n_step}")
    split = split_episodes(data, config.dataset)
    agent = create_agent(config, data, split)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    dataset = make_dataset(data, split, config.dataset, gamma=config.gamma)
    module = make_data_module(config, dataset, start=agent.updates)
    trainer = pl.Trainer(
        **{"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    )
    trainer.fit(agent, module)
    after = agent.state_dict()
    assert agent.updates == 8
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["critic.weights.0"], before["critic.weights.0"])


# --- The scale of rewards -------------------------------------------------------------------------


def test_returns_are_scaled_to_the_requested_range():
    """Episodes return 16, 32, 48 and 64: a span of 48; 1,000 makes 20.83 of each reward."""
    data = continuous_data(64)
    data.rewards[:] = data.episodes + 1
    whole = split_episodes(data, dataset())
    assert reward_scale(data, whole, dataset("return_range=1000")) == pytest.approx(1000 / 48)
    both = dataset("return_range=1000", "reward_scale=0.5")
    assert reward_scale(data, whole, both) == pytest.approx(500 / 48)
    assert reward_scale(data, whole, dataset("reward_scale=0.5")) == 0.5
    batch = all_transitions(make_dataset(data, whole, both, gamma=0.9))
    returns = batch.reward.reshape(4, 16).sum(dim=1)
    assert (returns.max() - returns.min()).item() == pytest.approx(500)


def test_the_range_is_that_of_the_training_episodes():
    data = continuous_data(64)
    data.rewards[:] = data.episodes + 1
    scale = reward_scale(data, train_on(data, 1, 2), dataset("return_range=8"))
    assert scale == pytest.approx(8 / (48 - 32))


def test_equal_returns_have_no_range():
    data = continuous_data(64)
    data.rewards[:] = 0.5
    message = "all 4 episodes have the return 8.0, .* leave dataset.return_range out"
    with pytest.raises(DataError, match=message):
        reward_scale(data, split_episodes(data, dataset()), dataset("return_range=1"))


# --- Statistics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 64, 2**20])
@pytest.mark.parametrize("make", [continuous_data, image_data])
def test_statistics_are_numpys_in_float64(make: Any, chunk: int, monkeypatch: Any):
    """Also far from 0, where a float32 sum of squares would lose the variance."""
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    data = make(64)
    if data.images is None:
        data.observations[:] += 10_000
    mean, std = observation_statistics(data, split_episodes(data, dataset()))
    assert mean.dtype == std.dtype == torch.float64
    exact = data.observations.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, exact.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_flags_are_not_standardized(chunk: int, monkeypatch: Any):
    """A column of 0 and 1 in the training rows; not one that is constant, or has another value."""
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    data = continuous_data(64)
    data.observations[:] = 0.0
    data.observations[5, 0] = 1.0  # a rare flag: 8 standard deviations from its mean
    data.observations[5, 1] = 2.0
    mean, std = observation_statistics(data, split_episodes(data, dataset()))
    assert (mean[0], std[0]) == (0.0, 1.0)
    assert mean[1] == 2 / 64
    assert std[1] == pytest.approx(np.sqrt(4 / 64 - (2 / 64) ** 2))
    assert (mean[2:], std[2:]) == (0.0, 0.0)


def test_statistics_use_the_training_rows_only():
    data = continuous_data(64)
    data.observations[32:] = 1e6
    mean, std = observation_statistics(data, train_on(data, 0, 1))
    exact = data.observations[:32].astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, exact.std(axis=0), rtol=1e-12)
