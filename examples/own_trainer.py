"""Train an agent with a Trainer and a DataModule of one's own: python examples/own_trainer.py

The data are 2,000 steps of a made-up task: the reward is larger the closer the action is to the
first number of the observation.
"""

from collections.abc import Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from offline_cql import Dataset, make_agent
from offline_cql.transitions import Batch

STEPS, UPDATES, BLOCK, BATCH, GAMMA = 2_000, 400, 20, 64, 0.5


def made_up_data() -> Dataset:
    """Return the steps of a policy that acts at random, in episodes of 20."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(STEPS, 2)).clip(-1, 1)
    actions = rng.uniform(-1, 1, (STEPS, 1))
    rewards = -((actions[:, 0] - observations[:, 0]) ** 2)
    return Dataset.from_arrays(observations, actions, rewards, np.arange(STEPS) % 20 == 19)


class Blocks(IterableDataset):
    """Blocks of BLOCK random batches: every tensor is [K, B, …]."""

    def __init__(self, dataset: Dataset) -> None:
        data = dataset.transitions
        returns = np.zeros(len(data), np.float32)  # of the rewards that follow
        following, last = 0.0, set((data.ends - 1).tolist())
        for row in reversed(range(len(data))):
            following = data.rewards[row] + GAMMA * (0.0 if row in last else following)
            returns[row] = following
        discount = GAMMA * (1 - data.terminated.astype(np.float32))
        arrays = (data.observations, data.actions, data.rewards, discount, data.next_observations)
        self.tensors = [torch.tensor(array) for array in (*arrays, returns, np.ones_like(returns))]

    def __iter__(self) -> Iterator[Batch]:
        draw = torch.Generator().manual_seed(0)
        for _ in range(UPDATES // BLOCK):
            rows = torch.randint(len(self.tensors[0]), (BLOCK, BATCH), generator=draw)
            yield Batch(*(tensor[rows] for tensor in self.tensors))


class DataModule(pl.LightningDataModule):
    """Gives the blocks as they are: batch_size=None keeps the loader from stacking them."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.dataset = dataset

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Blocks(self.dataset), batch_size=None)


class PrintMetrics(pl.Callback):
    """Prints the TD loss of the agent's logging points."""

    def on_train_batch_end(self, trainer: pl.Trainer, agent: pl.LightningModule, *_args) -> None:
        if agent.last_metrics:
            print(f"update {agent.updates}: TD loss {agent.last_metrics['critic/td_loss']:.4f}")
            agent.last_metrics = {}


def main() -> None:
    dataset = made_up_data()
    settings = [f"gamma={GAMMA}", "cql=plain", "network=small", "cql.alpha=0.1"]
    settings += ["cql.bc_updates=0", "network.policy_ema=null"]  # short: no warm-up, no average
    settings += ["cql.actor_learning_rate=3e-3", "cql.critic_learning_rate=3e-3"]
    agent = make_agent(dataset, [*settings, f"updates={UPDATES}", "log_every=100"])
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[PrintMetrics()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(agent, DataModule(dataset))
    for first in (-0.8, 0.0, 0.8):
        action = agent.act(torch.tensor([[first, 0.0]])).item()
        print(f"observation {first:+.1f}: action {action:+.2f}")


if __name__ == "__main__":
    main()
