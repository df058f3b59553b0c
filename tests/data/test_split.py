"""Guarantee: whole episodes are for training or for validation, the same ones for every seed."""

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


def split_by(*overrides: str, data: Transitions = DATA) -> Split:
    return split_episodes(data, dataset(*overrides))


def uneven(*lengths: int, returns: Any = None) -> Transitions:
    """Build episodes of the given lengths and returns; all steps have equal rewards."""
    episodes = np.repeat(np.arange(len(lengths)), lengths)
    rewards = np.zeros(len(lengths)) if returns is None else np.array(returns) / np.array(lengths)
    size = len(episodes)
    return Transitions.pack(
        observations=np.zeros((size, 1)),
        actions=np.zeros((size, 1)),
        rewards=rewards[episodes],
        next_observations=np.zeros((size, 1)),
        terminated=np.zeros(size, bool),
        episodes=episodes,
        spaces=DATA.spaces.__class__(1, 1, False, (-1.0,), (1.0,)),
        dataset_id="test/uneven-v0",
    )


def test_by_default_every_episode_is_for_training():
    split = split_by()
    assert split.training.tolist() == list(range(100))
    assert split.validation.tolist() == []
    assert (split.rows, split.size) == (None, 1_600)


def test_a_tenth_of_the_episodes_is_for_validation():
    split = split_by("validation_fraction=0.1")
    assert (len(split.training), len(split.validation)) == (90, 10)
    assert sorted([*split.training, *split.validation]) == list(range(100))
    assert split.rows is not None
    assert set(DATA.episodes[split.rows]) == set(split.training)
    assert split.size == len(split.rows) == len(set(split.rows.tolist())) == 90 * 16


def test_other_runs_share_the_split_and_another_split_seed_does_not():
    def validation(*overrides: str) -> list[int]:
        return split_episodes(
            DATA, settings("dataset.validation_fraction=0.1", *overrides).dataset
        ).validation.tolist()

    assert validation("seed=1") == validation("seed=2") == validation("updates=3")
    assert validation() != validation("dataset.split_seed=1")


def test_validation_episodes_are_sampled_not_the_last_ones():
    assert split_by("validation_fraction=0.1").validation.tolist() != list(range(90, 100))


def test_a_fraction_is_drawn_before_anything_is_validation():
    """Half of 100 episodes, a fifth of those: 40 and 10, and 50 that are on neither side."""
    split = split_by("fraction=0.5", "validation_fraction=0.2")
    assert (len(split.training), len(split.validation)) == (40, 10)
    assert not set(split.training) & set(split.validation)
    assert split.size == 40 * 16


def test_top_fraction_keeps_the_highest_returns():
    """Returns 3, 9, 1, 7 of 4, 1, 2 and 8 steps: the better half is 1 and 3."""
    data = uneven(4, 1, 2, 8, returns=[3, 9, 1, 7])
    split = split_by("top_fraction=0.5", data=data)
    assert split.training.tolist() == [1, 3]
    assert split.rows is not None
    assert split.rows.tolist() == [4, 7, 8, 9, 10, 11, 12, 13, 14]
    assert split_by("top_fraction=0.01", data=data).training.tolist() == [1]


def test_top_fraction_applies_to_the_training_episodes():
    """The validation episodes do not depend on top_fraction."""
    plain, best = (
        split_by("validation_fraction=0.3"),
        split_by("validation_fraction=0.3", "top_fraction=0.1"),
    )
    assert best.validation.tolist() == plain.validation.tolist()
    returns = DATA.episode_returns()
    ranked = plain.training[np.argsort(-returns[plain.training])]
    assert best.training.tolist() == sorted(ranked[:7].tolist())


@pytest.mark.parametrize(
    "overrides", [("validation_fraction=0.3",), ("fraction=0.1", "validation_fraction=0.99")]
)
def test_an_empty_part_is_an_error(overrides: tuple[str, ...]):
    """A third of one episode is none; 0.99 of ten is all ten."""
    data = uneven(5) if len(overrides) == 1 else DATA
    with pytest.raises(
        DataError, match=r"dataset.fraction=.* and dataset.validation_fraction=.* leave"
    ):
        split_by(*overrides, data=data)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.floats(0.01, 1),
    st.floats(0, 0.99),
    st.floats(0.01, 1),
    st.integers(0, 9),
)
def test_no_row_is_in_both_parts(
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
        split = split_episodes(data, config)
    except DataError:
        return
    training = np.arange(len(data)) if split.rows is None else split.rows
    validation = episode_rows(data, split.validation)
    assert not set(training) & set(validation)
    assert set(data.episodes[training]) == set(split.training)
    assert len(training) == split.size == data.lengths[split.training].sum()
    assert len(validation) == data.lengths[split.validation].sum()
