"""Batches of transitions by index, with rewards transformed and discounts computed, once."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from offline_cql.config import DatasetConfig
from offline_cql.data.returns import (
    continued_returns,
    episode_weights,
    lambda_steps,
    n_step_returns,
    value_range,
)
from offline_cql.data.split import Split
from offline_cql.data.statistics import reward_scale
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Batch, Transitions


class TransitionDataset:
    """The training transitions, indexed by 0 … size − 1, as batches of tensors.

    reward = reward_scale · r + reward_shift, summed over n_step steps, one number for all or one
    per transition; discount is gamma ** n · (1 − terminated), so that a truncated episode
    bootstraps; where steps take different times, gamma ** time. With a cloning_share cloning
    weighs the training episodes by their return (`episode_weights`).
    """

    def __init__(
        self,
        transitions: Transitions,
        split: Split,
        *,
        gamma: float,
        reward_scale: float,
        reward_shift: float,
        n_step: int | npt.NDArray[np.int64],
        cloning_share: float | None = None,
    ) -> None:
        self.spaces, self.columns = transitions.spaces, transitions.columns
        self.size, self.gamma = split.size, gamma
        self.reward_scale, self.reward_shift = reward_scale, reward_shift
        self.rows = torch.from_numpy(transitions.rows)
        images, training_rows = transitions.images, split.rows
        self.images = None if images is None else torch.from_numpy(images)
        self.training_rows = None if training_rows is None else torch.from_numpy(training_rows)
        self.n_step: tuple[Tensor, Tensor, Tensor] | None = None
        rewards = transitions.rewards * np.float32(reward_scale) + np.float32(reward_shift)
        terminated, ends = transitions.terminated, transitions.ends
        step_gamma = transitions.discounts(gamma)
        self.step_gamma = None if isinstance(step_gamma, float) else torch.from_numpy(step_gamma)
        returns = continued_returns(rewards, terminated, ends, gamma=step_gamma)
        self.return_to_go = torch.from_numpy(returns)  # [N] float64
        self.cloning_weight = torch.ones(len(rewards))
        if cloning_share is not None:
            episodes = split.training
            weights = np.zeros(len(ends))
            weights[episodes] = episode_weights(
                transitions.episode_returns()[episodes],
                transitions.lengths[episodes],
                share=cloning_share,
            )
            self.cloning_weight = torch.from_numpy(weights[transitions.episodes]).float()
        discounts = step_gamma * (1.0 - terminated)
        if np.max(n_step) > 1:
            rewards, discounts, last = n_step_returns(
                rewards, terminated, ends, gamma=step_gamma, n=n_step
            )
            self.n_step = tuple(map(torch.from_numpy, (rewards, discounts, last)))  # type: ignore[assignment]
        self.value_range = value_range(rewards, discounts)

    def single_steps(self, rows: npt.NDArray[np.int64]) -> TransitionDataset:
        """Return the dataset of other rows of the same transitions, with one-step rewards."""
        other = copy.copy(self)
        other.size, other.training_rows, other.n_step = len(rows), torch.from_numpy(rows), None
        return other

    def to(self, device: torch.device) -> TransitionDataset:
        """Return the same dataset with all transitions in the memory of `device`."""
        on_device = copy.copy(self)
        on_device.rows = self.rows.to(device)
        on_device.return_to_go = self.return_to_go.to(device)
        on_device.cloning_weight = self.cloning_weight.to(device)
        on_device.images = None if self.images is None else self.images.to(device)
        on_device.training_rows = (
            None if self.training_rows is None else self.training_rows.to(device)
        )
        if self.step_gamma is not None:
            on_device.step_gamma = self.step_gamma.to(device)
        if self.n_step is not None:
            reward, discount, last = self.n_step
            on_device.n_step = reward.to(device), discount.to(device), last.to(device)
        return on_device

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, indices: Tensor) -> Batch:
        """Return the transitions `indices` [...] int64 as tensors [..., D], [..., A], [...]."""
        index = indices if self.training_rows is None else self.training_rows[indices]
        row = self.rows[index]  # one gather for all columns
        observation = self._observation(row, index, next=False)
        action = row[..., self.columns.action]
        if self.spaces.discrete:
            action = action[..., 0].long()
        if self.n_step is None:
            reward = row[..., self.columns.reward] * self.reward_scale + self.reward_shift
            gamma = self.gamma if self.step_gamma is None else self.step_gamma[index]
            discount = gamma * (1.0 - row[..., self.columns.terminated])
            next_observation = self._observation(row, index, next=True)
        else:
            reward, discount, last = (tensor[index] for tensor in self.n_step)
            next_observation = self._observation(self.rows[last], last, next=True)
        returns = self.return_to_go[index].float()
        weight = self.cloning_weight[index]
        return Batch(observation, action, reward, discount, next_observation, returns, weight)

    def _observation(self, row: Tensor, index: Tensor, *, next: bool) -> Tensor:
        if self.images is not None:
            return self.images[index, int(next)].float()
        columns = self.columns.next_observation if next else self.columns.observation
        return row[..., columns]


def make_dataset(
    transitions: Transitions,
    split: Split,
    dataset: DatasetConfig,
    *,
    gamma: float,
    scale: float = 1.0,
    cloning_share: float | None = None,
) -> TransitionDataset:
    """Build the training dataset with the transforms of the section `dataset`.

    scale: a further factor on rewards, before the shift.
    """
    steps: int | npt.NDArray[np.int64] = dataset.n_step
    if dataset.td_lambda is not None:
        generator = np.random.default_rng([dataset.split_seed, RandomStream.TARGET_STEPS])
        steps = lambda_steps(
            len(transitions), n=dataset.n_step, td_lambda=dataset.td_lambda, generator=generator
        )
    return TransitionDataset(
        transitions,
        split,
        gamma=gamma,
        reward_scale=scale * reward_scale(transitions, split, dataset),
        reward_shift=dataset.reward_shift,
        n_step=steps,
        cloning_share=cloning_share,
    )
