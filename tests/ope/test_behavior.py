"""Promise: probabilities of the logged actions are recovered from the data alone."""

import numpy as np
import pytest
from support.builders import continuous_data
from support.tables import logged, random_process

from offline_cql.errors import DataError
from offline_cql.ope.behavior import fitted_propensities


def test_a_known_behavior_is_recovered():
    """Ten states, three actions, 4,000 steps: within 0.06 of the truth on average."""
    data, truth = logged(random_process(0), seed=0, episodes=200)
    found = fitted_propensities(data, seed=0, updates=600)
    assert np.abs(found - truth).mean() < 0.06
    assert found.min() > 0
    assert found.max() <= 1


def test_continuous_actions_are_refused():
    with pytest.raises(DataError, match="discrete"):
        fitted_propensities(continuous_data(64), seed=0)
