"""Guarantee: the behavior policy's action probabilities are recovered from the data alone."""

import numpy as np
import pytest
from support.builders import continuous_data
from support.tables import log_episodes, random_process

from offline_cql.errors import DataError
from offline_cql.ope.behavior import fit_behavior_probabilities


def test_the_probabilities_of_a_synthetic_behavior_are_recovered():
    """Ten states, three actions, 4,000 steps: within 0.06 of the truth on average."""
    data, truth = log_episodes(random_process(0), seed=0, episodes=200)
    probabilities = fit_behavior_probabilities(data, seed=0, updates=600)
    assert np.abs(probabilities - truth).mean() < 0.06
    assert probabilities.min() > 0
    assert probabilities.max() <= 1


def test_continuous_actions_are_rejected():
    with pytest.raises(DataError, match="discrete"):
        fit_behavior_probabilities(continuous_data(64), seed=0)
