"""Batches of validation steps, and the best return of the training data to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import IterableDataset

from offline_cql.data.dataset import TransitionDataset
from offline_cql.data.split import Split, episode_rows
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Batch, Transitions

MAX_STEPS, BATCH_SIZE = 10_000, 1_000  # of one validation


@dataclass(frozen=True, eq=False)
class ValidationSteps(IterableDataset[Batch]):
    """The same validation steps at every evaluation point.

    best_return: the largest discounted return-to-go of the training data, in scaled reward units.
    """

    dataset: TransitionDataset
    best_return: float

    def __len__(self) -> int:
        return -(-len(self.dataset) // BATCH_SIZE)

    def __iter__(self) -> Iterator[Batch]:
        for indices in torch.split(torch.arange(len(self.dataset)), BATCH_SIZE):
            yield self.dataset[indices]


def validation_steps(
    transitions: Transitions, split: Split, training: TransitionDataset, *, seed: int
) -> ValidationSteps | None:
    """Sample up to MAX_STEPS steps of the validation episodes; None when there are none.

    training: the dataset of the training transitions, whose rewards and returns are used.
    """
    if not len(split.validation):
        return None
    rows = episode_rows(transitions, split.validation)
    if len(rows) > MAX_STEPS:
        generator = np.random.default_rng([seed, RandomStream.VALIDATION_SAMPLE])
        rows = np.sort(generator.choice(rows, MAX_STEPS, replace=False))
    returns = training.return_to_go
    best = returns if split.rows is None else returns[torch.from_numpy(split.rows)]
    return ValidationSteps(training.single_steps(rows), float(best.max()))
