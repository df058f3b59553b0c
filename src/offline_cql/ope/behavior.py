"""The behavior policy: its value, and its action probabilities where they were not logged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from offline_cql import losses
from offline_cql.data.returns import continued_returns, returns_to_go
from offline_cql.data.statistics import sample_statistics
from offline_cql.errors import DataError
from offline_cql.networks import StackedMLP
from offline_cql.ope.estimate import Estimate, bootstrap_counts, bootstrap_interval
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Transitions

N_REPLICATES = 100
CONTINUED = "truncated episodes would have continued at their mean reward"
HIDDEN, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = [64, 64], 512, 1e-3, 1e-4
MIN_PROBABILITY = 1e-3  # a logged action did happen; bounds the importance ratios by 1,000


def discounted_returns(transitions: Transitions, *, gamma: float) -> npt.NDArray[np.float64]:
    """Return the discounted return of each logged episode [E].

    A truncated episode is continued at its mean reward, because FQE bootstraps there too.
    """
    returns = continued_returns(
        transitions.rewards,
        transitions.terminated,
        transitions.ends,
        gamma=transitions.discounts(gamma),
    )
    first: npt.NDArray[np.float64] = returns[transitions.starts]
    return first


def behavior_value(transitions: Transitions, *, gamma: float, seed: int) -> Estimate:
    """Return the mean of the logged episodes' discounted returns, with a bootstrap interval."""
    returns = discounted_returns(transitions, gamma=gamma)
    discounts = transitions.discounts(gamma)
    logged = returns_to_go(transitions.rewards, transitions.ends, gamma=discounts)
    observed = logged[transitions.starts].mean()
    rng = np.random.default_rng([seed, RandomStream.LOGGED_RETURNS])
    counts = bootstrap_counts(len(returns), N_REPLICATES, rng)
    _, low, high = bootstrap_interval(counts @ returns / len(returns))
    return Estimate(
        method="logged returns",
        value=float(returns.mean()),
        low=low,
        high=high,
        assumptions=(CONTINUED,) if transitions.truncated.any() else (),
        extrapolated=float(returns.mean() - observed),
    )


def fit_behavior_probabilities(
    transitions: Transitions, *, seed: int, updates: int = 3_000
) -> npt.NDArray[np.float64]:
    """Return the probability of each logged discrete action under a fitted classifier, [N].

    Cross-fitted: the episodes are split into two folds, and each fold is scored by the classifier
    of the other one, because a classifier overrates actions that it was fitted to. Raises
    DataError for continuous actions.
    """
    spaces = transitions.spaces
    if not spaces.discrete:
        raise DataError("behavior probabilities can be fitted for discrete actions only")
    rng = np.random.default_rng([seed, RandomStream.FITTED_BEHAVIOR])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    n_episodes = len(transitions.ends)
    folds = torch.from_numpy(rng.permutation(n_episodes) % 2)
    row_folds = folds[torch.from_numpy(transitions.episodes).long()]
    observations = torch.from_numpy(np.array(transitions.observations, np.float32))
    mean, std = sample_statistics(observations)
    observations = (observations - mean) / std
    actions = torch.from_numpy(transitions.actions)
    probabilities = torch.empty(len(actions), dtype=torch.float64)
    for fold in (0, 1):
        train = test = torch.arange(len(actions))
        if n_episodes > 1:  # a single episode cannot be split
            train, test = (torch.nonzero(row_folds == k).squeeze(1) for k in (fold, 1 - fold))
        data = (observations[train], actions[train], spaces.action_dim)
        classifier = _fit(*data, updates=updates, generator=generator)
        with torch.no_grad():
            action_probabilities = classifier(observations[test])[0].double().softmax(dim=1)
        probabilities[test] = losses.action_value(action_probabilities, actions[test])
    return probabilities.clamp(min=MIN_PROBABILITY).numpy()


def _fit(
    observations: Tensor,
    actions: Tensor,
    n_actions: int,
    *,
    updates: int,
    generator: torch.Generator,
) -> StackedMLP:
    """Return a classifier of the logged actions with a small cross-entropy."""
    with torch.random.fork_rng(devices=[]):  # leaves torch's global generator untouched
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        sizes = (observations.shape[1], HIDDEN, n_actions)
        classifier = StackedMLP(1, *sizes, orthogonal=False, bf16=False)
    parameters = classifier.parameters()
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(updates):
        rows = torch.randint(len(actions), (BATCH_SIZE,), generator=generator)
        loss = functional.cross_entropy(classifier(observations[rows])[0], actions[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier
