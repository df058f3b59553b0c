"""The DataModule: transitions served to Lightning as blocks of batches.

It makes `discount = gamma · (1 − terminated)` and the reward's scale and shift, once. It knows
nothing about networks or losses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from offline_cql.config import DatasetConfig
from offline_cql.data.returns import n_step_returns
from offline_cql.data.sampler import blocks, index_block
from offline_cql.data.split import Split
from offline_cql.errors import DataError
from offline_cql.transitions import Batch, Transitions, ValidationBatch

CHUNK = 2**20  # numbers summed at a time: their copy in float64 stays small


class Fetch:
    """Batches by number: 0 … size − 1 are the training transitions, whatever was kept out."""

    def __init__(
        self,
        transitions: Transitions,
        split: Split,
        *,
        gamma: float,
        reward_scale: float,
        reward_shift: float,
        n_step: int,
    ) -> None:
        self.spaces, self.columns = transitions.spaces, transitions.columns
        self.size, self.gamma = split.size, gamma
        self.scale, self.shift = reward_scale, reward_shift
        self.packed = torch.from_numpy(transitions.rows)
        images, rows = transitions.images, split.rows
        self.images = None if images is None else torch.from_numpy(images)
        self.rows = None if rows is None else torch.from_numpy(rows)
        self.n_step: tuple[Tensor, Tensor, Tensor] | None = None
        if n_step > 1:
            reward, discount, last = n_step_returns(
                transitions.rewards * np.float32(reward_scale) + np.float32(reward_shift),
                transitions.terminated,
                transitions.ends,
                gamma=gamma,
                n=n_step,
            )
            self.n_step = tuple(map(torch.from_numpy, (reward, discount, last)))  # type: ignore[assignment]

    def on(self, device: torch.device) -> Fetch:
        """The same with all transitions in that device's memory; nothing is copied within it."""
        moved = copy.copy(self)
        moved.packed = self.packed.to(device)
        moved.images = None if self.images is None else self.images.to(device)
        moved.rows = None if self.rows is None else self.rows.to(device)
        if self.n_step is not None:
            reward, discount, last = self.n_step
            moved.n_step = reward.to(device), discount.to(device), last.to(device)
        return moved

    def __call__(self, numbers: Tensor) -> Batch:
        """numbers [...] int64 to tensors [..., D], [..., A] or [...] int64, [...], [...]."""
        rows = numbers if self.rows is None else self.rows[numbers]
        packed = self.packed[rows]  # the one gather
        observation = self._observation(packed, rows, following=False)
        action = packed[..., self.columns.action]
        if self.spaces.discrete:
            action = action[..., 0].long()
        if self.n_step is None:
            reward = packed[..., self.columns.reward] * self.scale + self.shift
            discount = self.gamma * (1.0 - packed[..., self.columns.terminated])
            following = self._observation(packed, rows, following=True)
        else:
            reward, discount, rows = (tensor[rows] for tensor in self.n_step)
            following = self._observation(self.packed[rows], rows, following=True)
        return Batch(observation, action, reward, discount, following)

    def _observation(self, packed: Tensor, rows: Tensor, *, following: bool) -> Tensor:
        if self.images is not None:
            return self.images[rows, int(following)].float()
        place = self.columns.next_observation if following else self.columns.observation
        return packed[..., place]


class UpdateBlocks(IterableDataset[Batch]):
    """The batches of updates `done` + 1 … `updates`, gathered a whole block at a time.

    Each item is a Batch whose tensors lead with [U, B]: U updates, B states of this rank.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        seed: int,
        done: int,
        updates: int,
        batch_size: int,
        updates_per_step: int,
        stops: list[int],
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.fetch = fetch
        self.seed, self.batch_size = seed, batch_size
        self.rank, self.ranks = rank, ranks
        self.plan = list(blocks(done, updates, most=updates_per_step, stops=stops))

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        for first, count in self.plan:
            numbers = index_block(
                self.seed,
                first,
                count,
                batch_size=self.batch_size,
                size=self.fetch.size,
                rank=self.rank,
                ranks=self.ranks,
            )
            drawn = torch.from_numpy(numbers)
            if self.fetch.packed.is_cuda:  # only the numbers travel, and the host does not wait
                drawn = drawn.pin_memory().to(self.fetch.packed.device, non_blocking=True)
            yield self.fetch(drawn)


class TransitionsModule(pl.LightningDataModule):
    """Serves D4RL-style transitions; `done` updates are already behind this run."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        seed: int,
        done: int,
        updates: int,
        batch_size: int,
        updates_per_step: int,
        stops: list[int],
        validation: IterableDataset[ValidationBatch] | None = None,
    ) -> None:
        super().__init__()
        self.fetch, self.validation = fetch, validation
        self.seed, self.done, self.updates = seed, done, updates
        self.batch_size, self.updates_per_step, self.stops = batch_size, updates_per_step, stops

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        dataset = UpdateBlocks(
            self.fetch.on(trainer.strategy.root_device),
            seed=self.seed,
            done=self.done,
            updates=self.updates,
            batch_size=self.batch_size,
            updates_per_step=self.updates_per_step,
            stops=self.stops,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )
        return DataLoader(dataset, batch_size=None)

    def val_dataloader(self) -> list[DataLoader[ValidationBatch]]:
        """The same validation steps on every rank; nothing when nothing is held out."""
        return [] if self.validation is None else [DataLoader(self.validation, batch_size=None)]


def make_fetch(
    transitions: Transitions, split: Split, dataset: DatasetConfig, *, gamma: float
) -> Fetch:
    """Fetch with the transforms of the settings."""
    return Fetch(
        transitions,
        split,
        gamma=gamma,
        reward_scale=reward_scale(transitions, split, dataset),
        reward_shift=dataset.reward_shift,
        n_step=dataset.n_step,
    )


def reward_scale(transitions: Transitions, split: Split, dataset: DatasetConfig) -> float:
    """dataset.reward_scale, after returns were stretched to span dataset.return_range, if set.

    The span is the training episodes' largest undiscounted return minus the smallest. Raises
    DataError when it is 0.
    """
    if dataset.return_range is None:
        return dataset.reward_scale
    returns = transitions.episode_returns()[split.training]
    span = float(returns.max() - returns.min())
    if span == 0:
        raise DataError(
            f"{transitions.dataset_id}: all {len(returns)} episodes have the return {returns[0]}, "
            "so their range cannot be scaled: leave dataset.return_range out"
        )
    return dataset.reward_scale * dataset.return_range / span


def observation_statistics(transitions: Transitions, split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D], float64, of the training observations."""
    observations = transitions.observations
    rows, size = split.rows, split.size
    each = max(1, CHUNK // observations.shape[1])

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, size, each):
            part = slice(start, start + each)
            yield observations[part if rows is None else rows[part]].astype(np.float64)

    mean = sum(chunk.sum(axis=0) for chunk in chunks()) / size
    variance = sum(((chunk - mean) ** 2).sum(axis=0) for chunk in chunks()) / size
    return torch.from_numpy(mean), torch.from_numpy(np.sqrt(variance))
