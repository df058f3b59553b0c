"""The LightningDataModule: the batches of a block of updates per training step."""

from __future__ import annotations

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from offline_cql.data.dataset import TransitionDataset
from offline_cql.data.sampler import block_indices, plan_blocks
from offline_cql.transitions import Batch


class BlockDataset(IterableDataset[Batch]):
    """The batches of updates `start` + 1 … `updates`, a block of them per item.

    The tensors of an item lead with [K, B]: K updates, B states of this rank.
    """

    def __init__(
        self,
        dataset: TransitionDataset,
        *,
        seed: int,
        start: int,
        updates: int,
        batch_size: int,
        updates_per_step: int,
        boundaries: list[int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.seed, self.batch_size = seed, batch_size
        self.rank, self.world_size = rank, world_size
        self.blocks = list(
            plan_blocks(start, updates, max_len=updates_per_step, boundaries=boundaries)
        )

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Batch]:
        for first, count in self.blocks:
            indices = torch.from_numpy(
                block_indices(
                    self.seed,
                    first,
                    count,
                    batch_size=self.batch_size,
                    size=len(self.dataset),
                    rank=self.rank,
                    world_size=self.world_size,
                )
            )
            if self.dataset.rows.is_cuda:  # only the indices are copied, without a wait
                device = self.dataset.rows.device
                indices = indices.pin_memory().to(device, non_blocking=True)
            yield self.dataset[indices]


class TransitionDataModule(pl.LightningDataModule):
    """The training batches from update `start` on; a resumed run starts at its checkpoint."""

    def __init__(
        self,
        dataset: TransitionDataset,
        *,
        seed: int,
        start: int,
        updates: int,
        batch_size: int,
        updates_per_step: int,
        boundaries: list[int],
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.seed, self.start, self.updates = seed, start, updates
        self.batch_size, self.updates_per_step = batch_size, updates_per_step
        self.boundaries = boundaries

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        blocks = BlockDataset(
            self.dataset.to(trainer.strategy.root_device),
            seed=self.seed,
            start=self.start,
            updates=self.updates,
            batch_size=self.batch_size,
            updates_per_step=self.updates_per_step,
            boundaries=self.boundaries,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(blocks, batch_size=None)
