"""Validation episodes as batches for the validation loop, and what the best of the data reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from offline_cql.data.module import Fetch
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import Split, rows_of
from offline_cql.transitions import Transitions, ValidationBatch

MOST, BATCH = 10_000, 1_000  # steps: what one evaluation looks at, and in which portions
SAMPLE_STREAM = 0x40


@dataclass(frozen=True, eq=False)
class ValidationSteps(IterableDataset[ValidationBatch]):
    """The same validation steps at every evaluation; best: the training data's largest return."""

    fetch: Fetch
    return_to_go: Tensor  # [M]
    best: float

    def __len__(self) -> int:
        return -(-len(self.return_to_go) // BATCH)

    def __iter__(self) -> Iterator[ValidationBatch]:
        for numbers in torch.split(torch.arange(len(self.return_to_go)), BATCH):
            yield ValidationBatch(self.fetch(numbers), self.return_to_go[numbers])


def validation_steps(
    transitions: Transitions,
    split: Split,
    *,
    gamma: float,
    reward_scale: float,
    reward_shift: float,
    seed: int,
) -> ValidationSteps | None:
    """At most MOST steps of the validation episodes, drawn once; None when nothing is held out."""
    if not len(split.validation):
        return None
    rewards = transitions.rewards * np.float32(reward_scale) + np.float32(reward_shift)
    returns = continued_returns(rewards, transitions.terminated, transitions.ends, gamma=gamma)
    rows = rows_of(transitions, split.validation)
    if len(rows) > MOST:
        draw = np.random.default_rng([seed, SAMPLE_STREAM])
        rows = np.sort(draw.choice(rows, MOST, replace=False))
    own = Split(split.validation, split.validation[:0], rows, len(rows))
    fetch = Fetch(
        transitions,
        own,
        gamma=gamma,
        reward_scale=reward_scale,
        reward_shift=reward_shift,
        n_step=1,
    )
    trained = returns if split.rows is None else returns[split.rows]
    return ValidationSteps(fetch, torch.from_numpy(returns[rows]), float(trained.max()))
