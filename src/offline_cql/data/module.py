"""The DataModule: transitions in memory, served as blocks of batches to Lightning.

It makes `discount = gamma · (1 − terminated)` and the reward's scale and shift, once. It knows
nothing about networks or losses.
"""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from offline_cql.data.sampler import blocks, index_block
from offline_cql.transitions import Batch, Transitions


class UpdateBlocks(IterableDataset[Batch]):
    """The batches of updates `done` + 1 … `updates`, gathered a whole block at a time.

    Each item is a Batch whose tensors lead with [U, B]: U updates, B states of this rank.
    """

    def __init__(
        self,
        tensors: Batch,
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
        self.tensors = tensors
        self.seed, self.batch_size = seed, batch_size
        self.rank, self.ranks = rank, ranks
        self.plan = list(blocks(done, updates, most=updates_per_step, stops=stops))

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        size = len(self.tensors.reward)
        for first, count in self.plan:
            indices = index_block(
                self.seed,
                first,
                count,
                batch_size=self.batch_size,
                size=size,
                rank=self.rank,
                ranks=self.ranks,
            )
            where = torch.from_numpy(indices)
            yield Batch(*(tensor[where] for tensor in self.tensors))


class TransitionsModule(pl.LightningDataModule):
    """Serves D4RL-style transitions; `done` updates are already behind this run."""

    def __init__(
        self,
        transitions: Transitions,
        *,
        seed: int,
        done: int,
        updates: int,
        batch_size: int,
        updates_per_step: int,
        stops: list[int],
        gamma: float,
        reward_scale: float,
        reward_shift: float,
    ) -> None:
        super().__init__()
        self.tensors = training_tensors(
            transitions, gamma=gamma, reward_scale=reward_scale, reward_shift=reward_shift
        )
        self.seed, self.done, self.updates = seed, done, updates
        self.batch_size, self.updates_per_step, self.stops = batch_size, updates_per_step, stops

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        dataset = UpdateBlocks(
            self.tensors,
            seed=self.seed,
            done=self.done,
            updates=self.updates,
            batch_size=self.batch_size,
            updates_per_step=self.updates_per_step,
            stops=self.stops,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
        )
        pinned = trainer.strategy.root_device.type == "cuda"
        return DataLoader(dataset, batch_size=None, pin_memory=pinned)


def training_tensors(
    transitions: Transitions, *, gamma: float, reward_scale: float, reward_shift: float
) -> Batch:
    """All transitions as the tensors that the losses see, each [N, …].

    reward = scale · r + shift; discount = gamma · (1 − terminated): truncation bootstraps.
    """
    terminated = torch.from_numpy(transitions.terminated)
    reward: Tensor = torch.from_numpy(transitions.rewards) * reward_scale + reward_shift
    return Batch(
        observation=torch.from_numpy(transitions.observations),
        action=torch.from_numpy(transitions.actions),
        reward=reward,
        discount=gamma * (1.0 - terminated.float()),
        next_observation=torch.from_numpy(transitions.next_observations),
    )
