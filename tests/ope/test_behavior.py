"""Guarantee: the behavior policy's action probabilities are recovered from the data alone."""

import numpy as np
import pytest
import torch
from support.builders import continuous_data
from support.tables import log_episodes, random_process

from offline_cql.errors import DataError
from offline_cql.ope.behavior import fit_behavior_probabilities, fit_support
from offline_cql.transitions import Spaces, Transitions


def test_the_probabilities_of_a_synthetic_behavior_are_recovered():
    """Ten states, three actions, 4,000 steps: within 0.06 of the truth on average."""
    data, truth = log_episodes(random_process(0), seed=0, episodes=200)
    probabilities = fit_behavior_probabilities(data, seed=0, updates=600)
    assert np.abs(probabilities - truth).mean() < 0.06
    assert probabilities.min() > 0
    assert probabilities.max() <= 1


def test_the_support_of_discrete_actions_is_their_probability():
    data, truth = log_episodes(random_process(0), seed=0, episodes=200)
    support = fit_support(data, seed=0, updates=600)
    observations = torch.from_numpy(data.observations[:].copy())
    every = torch.stack([support(observations, torch.full((len(data),), a)) for a in range(3)])
    np.testing.assert_allclose(every.sum(dim=0), 1.0, atol=1e-5)
    logged = support(observations, torch.from_numpy(data.actions)).numpy()
    assert np.abs(logged - truth).mean() < 0.06


def test_the_support_of_continuous_actions_is_their_rank_among_the_logged_ones():
    """Actions are normal around 2·s with standard deviation 0.2, in bounds of ±4.

    Logged actions rank uniformly; the mean is above nearly all, three deviations off below most.
    """
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (4_000, 1))
    actions = 2 * states + rng.normal(0, 0.2, (4_000, 1))
    data = Transitions.pack(
        observations=states,
        actions=actions / 4,
        rewards=np.zeros(4_000),
        next_observations=states,
        terminated=np.zeros(4_000, bool),
        episodes=np.arange(4_000) // 40,
        spaces=Spaces(1, 1, False, (-4.0,), (4.0,)),
        dataset_id="x",
    )
    support = fit_support(data, seed=0, updates=1_000)
    observations = torch.from_numpy(states).float()

    def mean_of(offset: float) -> float:
        return float(support(observations, 2 * observations + offset).mean())

    logged = support(observations, torch.from_numpy(actions).float()).numpy()
    np.testing.assert_allclose(np.quantile(logged, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.07)
    assert mean_of(0.0) > 0.85
    assert 0.2 < mean_of(0.2) < 0.45  # P(|z| > 1) = 0.32
    assert mean_of(0.8) < 0.01


def test_continuous_actions_are_rejected():
    with pytest.raises(DataError, match="discrete"):
        fit_behavior_probabilities(continuous_data(64), seed=0)
