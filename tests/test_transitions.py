"""Guarantee: actions map to [-1, 1] and back; episodes are complete; sha256 is the content's."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.transitions import ActionMap, Spaces, Transitions, columns

SPACES = Spaces(2, 1, False, (-2.0,), (2.0,))


ARRAYS = {
    "observations": np.arange(6).reshape(3, 2),
    "actions": np.array([[0.5], [-1.0], [1.0]]),
    "rewards": np.array([1, 2, 4]),
    "next_observations": np.arange(10, 16).reshape(3, 2),
    "terminated": np.array([False, True, False]),
    "episodes": np.array([7, 7, 3]),
}


def transitions(**changes: Any) -> Transitions:
    """Return two episodes: of two steps, terminal; of one, truncated."""
    return Transitions.pack(**{**ARRAYS, "spaces": SPACES, "dataset_id": "sim/x/y-v0", **changes})


def test_actions_within_two_are_halved():
    actions = ActionMap((-2.0,), (2.0,))
    np.testing.assert_array_equal(
        actions.to_internal(np.array([[-2.0], [0.0], [1.0], [2.0]])), [[-1], [0], [0.5], [1]]
    )
    np.testing.assert_array_equal(actions.to_environment(np.array([[0.5]])), [[1.0]])


def test_asymmetric_bounds_map_per_dimension():
    """[-1, 3] has its middle at 1, [0, 0.5] at 0.25."""
    actions = ActionMap((-1.0, 0.0), (3.0, 0.5))
    in_environment = np.array([[-1.0, 0.0], [1.0, 0.25], [3.0, 0.5], [0.0, 0.375]])
    internal = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-0.5, 0.5]])
    np.testing.assert_allclose(actions.to_internal(in_environment), internal, atol=1e-15)
    np.testing.assert_allclose(actions.to_environment(internal), in_environment, atol=1e-15)


def test_the_map_keeps_float32_and_its_ends():
    low, high = float(np.float32(-0.1)), float(np.float32(0.7))
    ends = ActionMap((low,), (high,)).to_environment(np.array([[-1.0], [1.0]], np.float32))
    assert ends.dtype == np.float32
    assert ends.ravel().tolist() == [low, high]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((-np.inf,), (1.0,)),
        ((0.0,), (np.nan,)),
        ((1.0,), (1.0,)),
        ((2.0,), (1.0,)),
        ((), ()),
        ((0.0, 0.0), (1.0,)),
    ],
)
def test_bounds_that_span_no_finite_interval_are_refused(low, high):
    with pytest.raises(DataError, match="bounds"):
        ActionMap(low, high)


# --- Rows -----------------------------------------------------------------------------------------


def test_a_row_is_observation_action_reward_terminated_next_observation():
    data = transitions()
    expected = [[0, 1, 0.5, 1, 0, 10, 11], [2, 3, -1, 2, 1, 12, 13], [4, 5, 1, 4, 0, 14, 15]]
    assert data.rows.dtype == np.float32
    assert data.rows.tolist() == expected
    assert columns(SPACES) == (slice(0, 2), slice(2, 3), 3, 4, slice(5, 7), 7)


def test_packed_arrays_are_read_back():
    data = transitions()
    for name, array in ARRAYS.items():
        if name != "episodes":
            np.testing.assert_array_equal(getattr(data, name), array)
    assert (data.terminated.dtype, data.episodes.dtype) == (np.bool_, np.int32)


def test_a_discrete_action_is_an_index():
    spaces = Spaces(2, 5, True, (), ())
    data = transitions(actions=np.array([4, 0, 2]), spaces=spaces)
    assert data.columns.width == 7
    assert data.actions.dtype == np.int64
    assert data.actions.tolist() == [4, 0, 2]


def test_images_are_stored_beside_the_rows():
    """A row keeps action, reward and terminated; observations are bytes."""
    rows = np.array([[0.5, 1, 0], [0.25, 2, 1]], np.float32)
    images = np.array([[[1, 2], [3, 4]], [[3, 4], [255, 0]]], np.uint8)
    data = Transitions(rows, np.array([2]), SPACES, "sim/x/y-v0", "0" * 64, images=images)
    assert data.observations.dtype == data.next_observations.dtype == np.uint8
    assert data.observations.tolist() == [[1, 2], [3, 4]]
    assert data.next_observations.tolist() == [[3, 4], [255, 0]]
    assert (data.rewards.tolist(), data.terminated.tolist()) == ([1, 2], [False, True])
    assert data.actions.tolist() == [[0.5], [0.25]]


def test_episodes_are_numbered_in_their_order_whatever_their_names():
    data = transitions()
    assert data.episodes.tolist() == [0, 0, 1]
    assert data.ends.tolist() == [2, 3]
    assert data.lengths.tolist() == [2, 1]


def test_the_last_step_of_an_episode_is_terminal_or_truncated():
    data = transitions()
    assert data.terminated.tolist() == [False, True, False]
    assert data.truncated.tolist() == [False, False, True]


def test_episode_returns_are_undiscounted_sums():
    returns = transitions().episode_returns()
    assert returns.dtype == np.float64
    assert returns.tolist() == [3.0, 4.0]


def test_repr_shows_length_and_shapes():
    assert len(transitions()) == 3
    assert "3 transitions in 2 episodes, observations (3, 2)" in repr(transitions())


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_arrays_of_other_lengths_are_refused(name: str):
    # One more, for `rewards` decides the number of steps: one less would blame another array.
    longer = np.concatenate([ARRAYS[name], ARRAYS[name][-1:]])
    with pytest.raises(DataError, match="shape"):
        transitions(**{name: longer})


def test_data_without_transitions_are_refused():
    with pytest.raises(DataError, match="no transitions"):
        transitions(**{name: array[:0] for name, array in ARRAYS.items()})


@pytest.mark.parametrize("ends", [[], [2], [2, 2, 3], [3, 2], [0, 3], [4]])
def test_episodes_that_do_not_cover_the_rows_in_order_are_refused(ends: list[int]):
    with pytest.raises(DataError, match="episodes must end in order, the last at 3"):
        Transitions(transitions().rows, np.array(ends, np.int64), SPACES, "sim/x/y-v0", "")


def test_rows_of_another_width_are_refused():
    with pytest.raises(DataError, match=r"rows has shape \(3, 6\), expected \(3, 7\)"):
        Transitions(transitions().rows[:, :6], np.array([3]), SPACES, "sim/x/y-v0", "")


# --- Identity -------------------------------------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    name: {name: array + 1 if array.dtype != bool else ~array}
    for name, array in ARRAYS.items()
    if name != "episodes"
} | {
    "episodes": {"episodes": np.array([0, 1, 2])},
    "spaces": {"spaces": dataclasses.replace(SPACES, action_high=(3.0,))},
}


@pytest.mark.parametrize("changed", sorted(CHANGES))
def test_identity_depends_on_every_array_and_the_spaces(changed: str):
    assert transitions(**CHANGES[changed]).sha256 != transitions().sha256


def test_identity_depends_on_nothing_else():
    """Not on the name, not on the type of the numbers, not on the episodes' numbering."""
    types = {k: v.astype(np.float64) for k, v in ARRAYS.items() if v.dtype != bool}
    same = transitions(**types | {"episodes": np.array([0, 0, 9])}, dataset_id="other/name-v0")
    assert same.sha256 == transitions().sha256
