"""Transitions keep their promises: one action map, whole episodes, an identity of the content."""

import dataclasses

import numpy as np
import pytest

from offline_cql.transitions import ActionMap, DataError, Spaces, Transitions, content_sha256

SPACES = Spaces(2, 1, False, (-2.0,), (2.0,))


def transitions(**changes: object) -> Transitions:
    """Two episodes, of two steps and of one."""
    arrays = {
        "observations": np.arange(6, dtype=np.float32).reshape(3, 2),
        "actions": np.zeros((3, 1), np.float32),
        "rewards": np.array([1, 2, 4], np.float32),
        "next_observations": np.zeros((3, 2), np.float32),
        "terminated": np.array([False, True, False]),
        "truncated": np.array([False, False, True]),
        "episodes": np.array([0, 0, 1], np.int32),
    }
    fields = {"spaces": SPACES, "dataset_id": "sim/x/y-v0", "sha256": "0" * 64}
    return Transitions(**{**arrays, **fields, **changes})  # type: ignore[arg-type]


def test_bounds_of_two_are_halved_inside():
    actions = ActionMap((-2.0,), (2.0,))
    np.testing.assert_array_equal(
        actions.to_internal(np.array([[-2.0], [0.0], [1.0], [2.0]])), [[-1], [0], [0.5], [1]]
    )
    np.testing.assert_array_equal(actions.to_environment(np.array([[0.5]])), [[1.0]])


def test_asymmetric_bounds_map_per_dimension():
    """[-1, 3] has its middle at 1, [0, 0.5] at 0.25."""
    actions = ActionMap((-1.0, 0.0), (3.0, 0.5))
    outside = np.array([[-1.0, 0.0], [1.0, 0.25], [3.0, 0.5], [0.0, 0.375]])
    inside = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [-0.5, 0.5]])
    np.testing.assert_allclose(actions.to_internal(outside), inside, atol=1e-15)
    np.testing.assert_allclose(actions.to_environment(inside), outside, atol=1e-15)


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


def test_episode_returns_are_undiscounted_sums():
    returns = transitions().episode_returns()
    assert returns.dtype == np.float64
    assert returns.tolist() == [3.0, 4.0]


def test_length_and_shapes_are_shown():
    assert len(transitions()) == 3
    assert "3 transitions in 2 episodes, observations (3, 2)" in repr(transitions())


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminated", "episodes"])
def test_arrays_of_other_lengths_are_refused(name):
    short = getattr(transitions(), name)[:-1]
    with pytest.raises(DataError, match="shape"):
        transitions(**{name: short})


def test_no_transition_is_refused():
    names = [f.name for f in dataclasses.fields(Transitions)][:7]
    with pytest.raises(DataError, match="no transitions"):
        transitions(**{name: getattr(transitions(), name)[:0] for name in names})


def test_identity_depends_on_values_shapes_and_spaces():
    values = np.arange(6, dtype=np.float32)
    digests = {
        content_sha256(SPACES, values),
        content_sha256(SPACES, values.reshape(2, 3)),
        content_sha256(SPACES, values + 1),
        content_sha256(SPACES, values.astype(np.float64)),
        content_sha256(dataclasses.replace(SPACES, action_high=(3.0,)), values),
    }
    assert len(digests) == 5
    assert content_sha256(SPACES, values) == content_sha256(SPACES, values.copy())
