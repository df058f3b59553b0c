"""Promise: whole episodes are trained on or held out, the same ones whatever the run's seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import continuous_data
from support.config import settings

from offline_cql.config import DatasetConfig
from offline_cql.data.split import Split, episode_rows, split_episodes
from offline_cql.errors import DataError
from offline_cql.transitions import Transitions

DATA = continuous_data(1_600)  # 100 episodes of 16


def dataset(*overrides: str) -> DatasetConfig:
    return settings(*(f"dataset.{override}" for override in overrides)).dataset


def chosen(*overrides: str, data: Transitions = DATA) -> Split:
    return split_episodes(data, dataset(*overrides))


def uneven(*lengths: int, returns: Any = None) -> Transitions:
    """Episodes of these lengths and returns; each step earns an equal part."""
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    each = np.zeros(len(lengths)) if returns is None else np.array(returns) / np.array(lengths)
    size = len(episodes)
    return Transitions.pack(
        observations=np.zeros((size, 1)),
        actions=np.zeros((size, 1)),
        rewards=each[episodes],
        next_observations=np.zeros((size, 1)),
        terminated=np.zeros(size, bool),
        episodes=episodes,
        spaces=DATA.spaces.__class__(1, 1, False, (-1.0,), (1.0,)),
        dataset_id="test/uneven-v0",
    )


def test_by_default_everything_is_trained_on():
    found = chosen()
    assert found.training.tolist() == list(range(100))
    assert found.validation.tolist() == []
    assert (found.rows, found.size) == (None, 1_600)


def test_a_tenth_of_the_episodes_is_validation_whole():
    found = chosen("validation_fraction=0.1")
    assert (len(found.training), len(found.validation)) == (90, 10)
    assert sorted([*found.training, *found.validation]) == list(range(100))
    assert found.rows is not None
    assert set(DATA.episodes[found.rows]) == set(found.training)
    assert found.size == len(found.rows) == len(set(found.rows.tolist())) == 90 * 16


def test_other_runs_share_the_split_and_another_split_seed_does_not():
    def split(*overrides: str) -> list[int]:
        return split_episodes(
            DATA, settings("dataset.validation_fraction=0.1", *overrides).dataset
        ).validation.tolist()

    assert split("seed=1") == split("seed=2") == split("updates=3")
    assert split() != split("dataset.split_seed=1")


def test_what_is_validation_is_drawn_not_the_end_of_the_log():
    assert chosen("validation_fraction=0.1").validation.tolist() != list(range(90, 100))


def test_a_fraction_is_drawn_before_anything_is_validation():
    """Half of 100 episodes, a fifth of those: 40 and 10, and 50 that are on neither side."""
    found = chosen("fraction=0.5", "validation_fraction=0.2")
    assert (len(found.training), len(found.validation)) == (40, 10)
    assert not set(found.training) & set(found.validation)
    assert found.size == 40 * 16


def test_the_best_are_the_ones_with_the_highest_return():
    """Returns 3, 9, 1, 7 of 4, 1, 2 and 8 steps: the better half is 1 and 3."""
    data = uneven(4, 1, 2, 8, returns=[3, 9, 1, 7])
    found = chosen("top_fraction=0.5", data=data)
    assert found.training.tolist() == [1, 3]
    assert found.rows is not None
    assert found.rows.tolist() == [4, 7, 8, 9, 10, 11, 12, 13, 14]
    assert chosen("top_fraction=0.01", data=data).training.tolist() == [1]


def test_the_best_are_sought_in_the_training_part():
    """With all other episodes in place, keeping the best moves nothing into or out of the rest."""
    plain, best = (
        chosen("validation_fraction=0.3"),
        chosen("validation_fraction=0.3", "top_fraction=0.1"),
    )
    assert best.validation.tolist() == plain.validation.tolist()
    returns = DATA.episode_returns()
    ranked = plain.training[np.argsort(-returns[plain.training])]
    assert best.training.tolist() == sorted(ranked[:7].tolist())


@pytest.mark.parametrize(
    "overrides", [("validation_fraction=0.3",), ("fraction=0.1", "validation_fraction=0.99")]
)
def test_a_side_that_was_asked_for_and_has_no_episode_is_refused(overrides: tuple[str, ...]):
    """A third of one episode is none; 0.99 of ten is all ten."""
    data = uneven(5) if len(overrides) == 1 else DATA
    with pytest.raises(
        DataError, match=r"dataset.fraction=.* and dataset.validation_fraction=.* leave"
    ):
        chosen(*overrides, data=data)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.floats(0, 0.99),
    st.floats(0.01, 1),
    st.integers(0, 9),
)
def test_no_row_is_on_both_sides(
    lengths: list[int], fraction: float, validation_fraction: float, best: float, seed: int
):
    data = uneven(*lengths)
    config = dataset()
    config.fraction, config.validation_fraction, config.top_fraction, config.split_seed = (
        fraction,
        validation_fraction,
        best,
        seed,
    )
    try:
        found = split_episodes(data, config)
    except DataError:
        return
    training = np.arange(len(data)) if found.rows is None else found.rows
    validation = episode_rows(data, found.validation)
    assert not set(training) & set(validation)
    assert set(data.episodes[training]) == set(found.training)
    assert len(training) == found.size == data.lengths[found.training].sum()
    assert len(validation) == data.lengths[found.validation].sum()
