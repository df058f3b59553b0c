"""Batches of validation steps, and the best return of the training data to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from offline_cql.data.dataset import TransitionDataset
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import Split, episode_rows
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Transitions, ValidationBatch

MAX_STEPS, BATCH_SIZE = 10_000, 1_000  # of one validation


@dataclass(frozen=True, eq=False)
class ValidationSteps(IterableDataset[ValidationBatch]):
    """The same validation steps at every evaluation point.

    return_to_go [M]: discounted return from each step; best_return: the largest discounted
    return-to-go of the training data; both in scaled reward units.
    """

    dataset: TransitionDataset
    return_to_go: Tensor
    best_return: float

    def __len__(self) -> int:
        return -(-len(self.return_to_go) // BATCH_SIZE)

    def __iter__(self) -> Iterator[ValidationBatch]:
        for indices in torch.split(torch.arange(len(self.return_to_go)), BATCH_SIZE):
            yield ValidationBatch(self.dataset[indices], self.return_to_go[indices])


def validation_steps(
    transitions: Transitions,
    split: Split,
    *,
    gamma: float,
    reward_scale: float,
    reward_shift: float,
    seed: int,
) -> ValidationSteps | None:
    """Sample up to MAX_STEPS steps of the validation episodes; None when there are none."""
    if not len(split.validation):
        return None
    rewards = transitions.rewards * np.float32(reward_scale) + np.float32(reward_shift)
    returns = continued_returns(rewards, transitions.terminated, transitions.ends, gamma=gamma)
    rows = episode_rows(transitions, split.validation)
    if len(rows) > MAX_STEPS:
        generator = np.random.default_rng([seed, RandomStream.VALIDATION_SAMPLE])
        rows = np.sort(generator.choice(rows, MAX_STEPS, replace=False))
    dataset = TransitionDataset(
        transitions,
        Split(split.validation, split.validation[:0], rows, len(rows)),
        gamma=gamma,
        reward_scale=reward_scale,
        reward_shift=reward_shift,
        n_step=1,
    )
    training_returns = returns if split.rows is None else returns[split.rows]
    best_return = float(training_returns.max())
    return ValidationSteps(dataset, torch.from_numpy(returns[rows]), best_return)
