"""Statistics of the training transitions that the transforms use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from offline_cql.config import DatasetConfig
from offline_cql.data.returns import continued_returns
from offline_cql.data.split import Split
from offline_cql.errors import DataError
from offline_cql.transitions import Transitions

RETURN_SPREAD = 100.0  # of the returns, in the units of Q with cql.alpha_unit=return
ROUNDING = 1e-9  # of a spread, relative to the returns
CHUNK = 2**20  # values summed at a time: their float64 copy stays small


def return_scale(transitions: Transitions, split: Split, *, gamma: float) -> float:
    """Return the factor that gives the discounted returns a standard deviation of RETURN_SPREAD.

    The returns-to-go of all training transitions; truncated episodes continue at their mean
    reward. Raises DataError when all are equal.
    """
    returns = continued_returns(
        transitions.rewards,
        transitions.terminated,
        transitions.ends,
        gamma=transitions.discounts(gamma),
    )
    training = returns if split.rows is None else returns[split.rows]
    spread = float(training.std())
    if spread <= ROUNDING * float(np.abs(training).max()):
        raise DataError(
            f"{transitions.dataset_id}: all discounted returns are equal, so their spread cannot "
            "be a unit: set cql.alpha_unit=reward"
        )
    return RETURN_SPREAD / spread


def reward_scale(transitions: Transitions, split: Split, dataset: DatasetConfig) -> float:
    """Return the factor that rewards are multiplied by.

    It is dataset.reward_scale; with dataset.return_range, times the factor that stretches the
    training episodes' undiscounted returns to that range (max − min). Raises DataError when all
    returns are equal.
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
    """Return mean and standard deviation [D], float64, of the training observations.

    0 and 1 for a column of 0 and 1 alone, a flag or one of a one-hot code, which then stays as it
    is: a rare flag would be many standard deviations from its mean.
    """
    observations, rows = transitions.observations, split.rows
    chunk_len = max(1, CHUNK // observations.shape[1])

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, split.size, chunk_len):
            part = slice(start, start + chunk_len)
            yield observations[part if rows is None else rows[part]].astype(np.float64)

    total, binary = np.zeros(observations.shape[1]), np.ones(observations.shape[1], dtype=bool)
    for chunk in chunks():
        total += chunk.sum(axis=0)
        binary &= ((chunk == 0) | (chunk == 1)).all(axis=0)
    mean = total / split.size
    variance = sum(((chunk - mean) ** 2).sum(axis=0) for chunk in chunks()) / split.size
    binary &= variance > 0  # constant columns are left to the network
    mean, std = np.where(binary, 0.0, mean), np.where(binary, 1.0, np.sqrt(variance))
    return torch.from_numpy(mean), torch.from_numpy(std)


def sample_statistics(observations: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation [D] of a sample [N, D], flags left as they are, too.

    The deviation is at least 0.001, for columns that hardly change.
    """
    binary = ((observations == 0) | (observations == 1)).all(dim=0)
    mean, std = observations.mean(dim=0), observations.std(dim=0).clamp(min=1e-3)
    return mean.masked_fill(binary, 0.0), std.masked_fill(binary, 1.0)
