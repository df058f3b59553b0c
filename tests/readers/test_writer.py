"""Guarantee: invalid steps are refused with their position; harmless faults are repaired.

The result does not depend on the boundaries of chunks.
"""

import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from offline_cql.errors import DataError
from offline_cql.readers.writer import Steps, TransitionWriter, take
from offline_cql.transitions import Spaces, Transitions

BOX = Spaces(2, 2, False, (-2.0, -1.0), (2.0, 3.0))
CHOICE = Spaces(2, 3, True, (), ())
ENDS = (2, 5, 6)  # episodes of two, three and one step


def logged(spaces: Spaces = BOX, **changes: Any) -> Steps:
    """Return six steps of observations (episode, step); the first of three episodes terminates."""
    markers = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0]], np.float64)
    arrays = {
        "observations": markers,
        "actions": np.arange(6) % 3 if spaces.discrete else markers / 10,
        "rewards": np.arange(6.0),
        "next_observations": markers + np.array([0, 1]),
        "terminated": np.array([0, 1, 0, 0, 0, 0], bool),
        "truncated": np.array([0, 0, 0, 0, 1, 1], bool),
    }
    return Steps(**{**arrays, **changes})


def write_steps(
    steps: Steps, folder: Path, *, spaces: Spaces = BOX, cuts: tuple[int, ...] = ()
) -> Transitions:
    """Return what the writer stores of steps appended in chunks."""
    with TransitionWriter("test/logs-v0", spaces, folder) as writer:
        for start, end in zip((0, *cuts), (*cuts, None), strict=True):
            writer.append(take(steps, slice(start, end)) if cuts else steps)
        return writer.finish()


def changed(name: str, where: Any, value: Any, spaces: Spaces = BOX) -> Steps:
    """Return the six steps with one number replaced."""
    array = np.array(getattr(logged(spaces), name), np.float64 if not spaces.discrete else None)
    array[where] = value
    return logged(spaces, **{name: array})


def refusal(steps: Steps, folder: Path, *, spaces: Spaces = BOX, cuts: tuple[int, ...] = ()) -> str:
    """Return the message with which the writer refuses steps."""
    with pytest.raises(DataError) as error:
        write_steps(steps, folder, spaces=spaces, cuts=cuts)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- Valid steps ----------------------------------------------------------------------------------


def test_steps_are_stored_with_scaled_actions(tmp_path: Path):
    """Bounds -2 … 2 and -1 … 3 become -1 … 1: a/2 and (a - 1)/2."""
    steps = logged()
    data = write_steps(steps, tmp_path)
    np.testing.assert_array_equal(data.observations, steps.observations)
    np.testing.assert_array_equal(data.next_observations, steps.next_observations)
    np.testing.assert_array_equal(data.rewards, steps.rewards)
    np.testing.assert_allclose(data.actions, (steps.actions - [0, 1]) / 2, atol=1e-7)
    assert data.terminated.tolist() == steps.terminated.tolist()
    assert data.truncated.tolist() == steps.truncated.tolist()
    assert data.ends.tolist() == list(ENDS)
    assert (data.dataset_id, data.repairs) == ("test/logs-v0", {})


def test_the_writer_and_packing_in_memory_agree(tmp_path: Path):
    data = write_steps(logged(), tmp_path)
    names = ("observations", "actions", "rewards", "next_observations", "terminated", "episodes")
    arrays = {name: getattr(data, name) for name in names}
    packed = Transitions.pack(**arrays, spaces=BOX, dataset_id="another")
    assert np.array_equal(packed.rows, data.rows)
    assert packed.sha256 == data.sha256


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_numbers_of_any_type_become_float32(tmp_path: Path, dtype: Any):
    whole = {name: np.zeros((6, 2), dtype) for name in ("observations", "next_observations")}
    actions = np.array([[0, -1], [1, 0], [2, 1], [-2, 2], [-1, 3], [0, 0]], dtype)
    rewards = np.arange(6).astype(dtype)
    data = write_steps(logged(**whole, actions=actions, rewards=rewards), tmp_path)
    assert data.rows.dtype == np.float32
    expected = [[0, -1], [0.5, -0.5], [1, 0], [-1, 0.5], [-0.5, 1], [0, -0.5]]
    assert data.actions.tolist() == expected
    assert data.rewards.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_discrete_actions_of_any_integer_type_are_stored(tmp_path: Path, dtype: Any):
    actions = np.array([0, 1, 1, 0, 1, 0]).astype(dtype)
    data = write_steps(logged(CHOICE, actions=actions), tmp_path, spaces=CHOICE)
    assert data.actions.tolist() == [0, 1, 1, 0, 1, 0]


def test_the_memory_map_can_be_read_by_torch(tmp_path: Path):
    import torch

    rows = write_steps(logged(), tmp_path).rows
    assert isinstance(rows, np.memmap)
    assert torch.from_numpy(rows).shape == (6, 8)


@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (2, 5), (1, 1, 4), (1, 2, 3, 4, 5)])
def test_the_boundaries_of_chunks_do_not_matter(tmp_path: Path, cuts: tuple[int, ...]):
    """Chunks may end inside an episode and may be empty."""
    steps = logged(propensities=np.linspace(0.1, 0.6, 6))
    (tmp_path / "cut").mkdir()
    whole, cut = write_steps(steps, tmp_path), write_steps(steps, tmp_path / "cut", cuts=cuts)
    assert np.array_equal(cut.rows, whole.rows)
    assert np.array_equal(cut.ends, whole.ends)
    assert np.array_equal(cut.propensities, whole.propensities)
    assert cut.sha256 == whole.sha256


DIFFERENT = {
    "observations": {"observations": logged().observations + np.array([0.0, 1e-6])},
    "actions": {"actions": logged().actions + 1e-6},
    "rewards": {"rewards": np.array([0, 1, 2, 3, 4, 5 + 1e-6])},
    "next_observations": {"next_observations": logged().next_observations + 1},
    "terminated": {"terminated": np.zeros(6, bool), "truncated": np.arange(6) % 3 > 0},
    "ends": {"truncated": np.array([0, 0, 1, 0, 1, 1], bool)},
    "propensities": {"propensities": np.full(6, 0.5)},
}


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_the_hash_depends_on_every_array(tmp_path: Path, name: str):
    (tmp_path / "other").mkdir()
    other = write_steps(logged(**DIFFERENT[name]), tmp_path / "other")
    assert other.sha256 != write_steps(logged(), tmp_path).sha256


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "next_observations", "actions"])
@pytest.mark.parametrize("cuts", [(), (3,), (4,)])
def test_nan_is_refused_with_array_count_and_position(
    tmp_path: Path, name: str, bad: float, cuts: tuple[int, ...]
):
    steps = changed(name, (4, 1), bad)
    getattr(steps, name)[5, 0] = bad
    message = "contain NaN or infinity at 2 of 6 steps, first in episode 1 at step 2, column 1"
    shown = name.replace("_", " ")
    assert refusal(steps, tmp_path, cuts=cuts) == f"test/logs-v0: {shown} {message}"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["rewards", "propensities"])
def test_a_reward_or_propensity_that_is_nan_is_refused(tmp_path: Path, name: str, bad: float):
    message = "contain NaN or infinity at 1 of 6 steps, first in episode 2 at step 0"
    steps = logged(**{name: np.array([0.5] * 5 + [bad])})
    assert refusal(steps, tmp_path) == f"test/logs-v0: {name} {message}"


@pytest.mark.parametrize(
    ("name", "where", "value", "position"),
    [
        ("observations", (1, 0), -1e39, "episode 0 at step 1, column 0"),
        ("next_observations", (1, 1), 1e39, "episode 0 at step 1, column 1"),
        ("rewards", 0, 1e300, "episode 0 at step 0"),
        ("actions", (3, 0), 1e300, "episode 1 at step 1"),
    ],
)
def test_numbers_beyond_float32_are_refused(
    tmp_path: Path, name: str, where: Any, value: float, position: str
):
    shown = name.replace("_", " ")
    message = f"{shown} are too large for float32 at 1 of 6 steps, first in {position}"
    assert message in refusal(changed(name, where, value), tmp_path)
    if name != "actions":
        write_steps(changed(name, where, 3.4e38), tmp_path)


def test_the_fault_of_the_first_chunk_is_reported(tmp_path: Path):
    steps = changed("rewards", 0, np.nan)
    steps.observations[5, 0] = np.nan
    assert "rewards contain NaN or infinity at 1 of 6" in refusal(steps, tmp_path, cuts=(3,))


# --- Types and shapes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "dtypes", "expected"),
    [
        (
            ["observations", "next_observations", "actions", "rewards"],
            [object, "U3", "S3", np.complex64, "datetime64[s]"],
            "numbers",
        ),
        (["terminated", "truncated"], [object, float, "U5"], "booleans"),
    ],
)
def test_arrays_of_another_type_are_refused(
    tmp_path: Path, names: list[str], dtypes: list[Any], expected: str
):
    for name, dtype in product(names, dtypes):
        values = np.zeros(getattr(logged(), name).shape).astype(int).astype(dtype)
        message = f"{name} has dtype {values.dtype}, expected {expected}"
        assert message in refusal(logged(**{name: values}), tmp_path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("observations", (5, 2)), ("observations", (6, 3)), ("observations", (6,))),
        *(("next_observations", (5, 2)), ("next_observations", (6, 2, 1))),
        *(("actions", (5, 2)), ("actions", (6,)), ("actions", (6, 1))),
        *(("rewards", (6, 1)), ("rewards", ()), ("propensities", (5,))),
        *(("terminated", (5,)), ("terminated", (6, 1)), ("truncated", (5,))),
    ],
)
def test_arrays_of_another_length_or_shape_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
):
    whole = logged(propensities=np.full(6, 0.5))
    array = np.zeros(shape, getattr(whole, name).dtype)
    named = name if shape else "observations"  # all others are longer than a reward without shape
    assert f"{named} has shape" in refusal(replace(whole, **{name: array}), tmp_path)


def test_continuous_actions_for_a_discrete_space_are_refused_and_the_reverse(tmp_path: Path):
    assert "actions has shape (6, 2), expected (6,)" in refusal(logged(), tmp_path, spaces=CHOICE)
    assert "actions has shape (6,), expected (6, 2)" in refusal(logged(CHOICE), tmp_path)


def test_no_steps_are_refused(tmp_path: Path):
    assert "holds no transitions" in refusal(take(logged(), slice(0, 0)), tmp_path)
    with (
        TransitionWriter("test/logs-v0", BOX, tmp_path) as writer,
        pytest.raises(DataError, match="holds no"),
    ):
        writer.finish()


# --- Actions --------------------------------------------------------------------------------------

LOW, HIGH = (-2.0, -1.0), (2.0, 3.0)


@pytest.mark.parametrize(
    ("action", "column"),
    [((2.1, 0), 0), ((-2.00001, 0), 0), ((0, 3.00001), 1), ((0, -1.1), 1), ((0, 1e30), 1)],
)
def test_actions_beyond_their_bounds_are_refused(
    tmp_path: Path, action: tuple[float, float], column: int
):
    message = refusal(changed("actions", 3, action), tmp_path)
    where = f"at 1 of 6 steps, first in episode 1 at step 1, column {column}"
    assert message == f"test/logs-v0: actions are outside {LOW} … {HIGH} {where}"


def test_actions_beyond_their_bounds_by_a_rounding_error_are_clipped_and_counted(tmp_path: Path):
    """Both spans are 4, so 4e-6 is a millionth of them."""
    steps = changed("actions", 0, (2 + 3e-6, -1 - 3e-6))
    steps.actions[5] = (-2 - 3.9e-6, 3)
    data = write_steps(steps, tmp_path)
    assert data.actions[[0, 5]].tolist() == [[1, -1], [-1, 1]]
    assert data.repairs == {"clipped_actions": 2}


def test_actions_at_their_bounds_are_not_counted(tmp_path: Path):
    """float32(0.7) and float32(-0.1) map to one only after rounding."""
    low, high = float(np.float32(-0.1)), float(np.float32(0.7))
    spaces = replace(BOX, action_low=(low, low), action_high=(high, high))
    actions = np.array([[low, high]] * 6, np.float32)
    data = write_steps(logged(actions=actions), tmp_path, spaces=spaces)
    assert data.actions.tolist() == [[-1, 1]] * 6
    assert data.repairs == {}


@pytest.mark.parametrize(
    ("low", "high"), [((-np.inf, -1), (2, 3)), ((-2, -1), (2, np.inf)), ((-2, 3), (2, 3))]
)
def test_bounds_that_are_infinite_or_empty_are_refused_before_anything_is_read(
    tmp_path: Path, low: Any, high: Any
):
    with pytest.raises(DataError, match="must be finite and span an interval"):
        TransitionWriter("test/logs-v0", replace(BOX, action_low=low, action_high=high), tmp_path)


@pytest.mark.parametrize("action", [-1, 3, 2**40])
def test_discrete_actions_that_do_not_exist_are_refused(tmp_path: Path, action: int):
    steps = changed("actions", 2, action, CHOICE)
    message = "actions are not among 0 … 2 at 1 of 6 steps, first in episode 1 at step 0"
    assert refusal(steps, tmp_path, spaces=CHOICE) == f"test/logs-v0: {message}"


def test_discrete_actions_beyond_the_integers_of_float32_are_refused(tmp_path: Path):
    """2^24 + 1 is the first whole number that float32 cannot represent."""
    many = replace(CHOICE, action_dim=2**25)
    data = write_steps(changed("actions", 2, 2**24, CHOICE), tmp_path, spaces=many)
    assert data.actions[2] == 2**24
    refusal(changed("actions", 2, 2**24 + 1, CHOICE), tmp_path, spaces=many)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_discrete_actions_of_float_type_are_refused(tmp_path: Path, dtype: Any):
    steps = logged(CHOICE, actions=np.zeros(6, dtype))
    message = f"actions have dtype {np.dtype(dtype)}, expected integers"
    assert message in refusal(steps, tmp_path, spaces=CHOICE)


# --- Ends -----------------------------------------------------------------------------------------


def test_terminated_wins_over_truncated_and_is_counted(tmp_path: Path):
    data = write_steps(logged(truncated=np.array([0, 1, 0, 0, 1, 1], bool)), tmp_path)
    assert data.terminated.tolist() == [False, True, False, False, False, False]
    assert data.truncated.tolist() == [False, False, False, False, True, True]
    assert data.repairs == {"terminal_and_truncated": 1}


@pytest.mark.parametrize("cuts", [(), (5,)])
def test_a_last_episode_without_an_end_is_kept_as_truncated(tmp_path: Path, cuts: tuple[int, ...]):
    data = write_steps(logged(truncated=np.array([0, 0, 0, 0, 1, 0], bool)), tmp_path, cuts=cuts)
    assert data.ends.tolist() == list(ENDS)
    assert data.truncated.tolist() == [False, False, False, False, True, True]
    assert data.repairs == {"unfinished_last_episode": 1}


@pytest.mark.parametrize(("truncated", "ends"), [(False, [6]), (True, [1, 2, 3, 4, 5, 6])])
def test_an_episode_may_have_all_steps_or_one(tmp_path: Path, truncated: bool, ends: list[int]):
    steps = logged(terminated=np.zeros(6, bool), truncated=np.full(6, truncated))
    data = write_steps(steps, tmp_path, cuts=(1, 4))
    assert data.ends.tolist() == ends
    assert data.repairs == ({} if truncated else {"unfinished_last_episode": 1})


def test_repairs_of_the_reader_are_kept(tmp_path: Path):
    with TransitionWriter("test/logs-v0", BOX, tmp_path) as writer:
        writer.count_repair("episodes_without_an_end", 2)
        writer.count_repair("episodes_without_an_end")
        writer.count_repair("nothing", 0)
        writer.observation_names, writer.action_names = ("x", "v"), ("push", "turn")
        writer.append(logged())
        data = writer.finish()
    assert data.repairs == {"episodes_without_an_end": 3}
    assert (data.observation_names, data.action_names) == (("x", "v"), ("push", "turn"))


# --- Images ---------------------------------------------------------------------------------------


def pictures(**changes: Any) -> Steps:
    first = np.arange(12, dtype=np.uint8).reshape(6, 2) * 20
    return logged(**{"observations": first, "next_observations": 255 - first, **changes})


def test_images_stay_bytes(tmp_path: Path):
    steps = pictures()
    data = write_steps(steps, tmp_path, cuts=(2, 3))
    assert data.observations.dtype == data.next_observations.dtype == np.uint8
    np.testing.assert_array_equal(data.observations, steps.observations)
    np.testing.assert_array_equal(data.next_observations, steps.next_observations)
    assert data.rows.shape == (6, 4)  # two numbers of the action, reward, terminated
    assert data.rewards.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_change_from_images_to_numbers_is_refused(tmp_path: Path):
    with TransitionWriter("test/logs-v0", BOX, tmp_path) as writer:
        writer.append(take(pictures(), slice(0, 3)))
        with pytest.raises(DataError, match="change to float64 in episode 1 at step 1"):
            writer.append(take(logged(), slice(3, 6)))


def test_images_with_next_observations_of_numbers_are_refused(tmp_path: Path):
    steps = pictures(next_observations=np.zeros((6, 2), np.float32))
    message = "observations are uint8, next observations float32: images must be uint8 in both"
    assert message in refusal(steps, tmp_path)


# --- Propensities ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spaces", [BOX, CHOICE])
def test_propensities_are_kept(tmp_path: Path, spaces: Spaces):
    propensities = np.array([0.1, 0.5, 1.0, 1e-30, 0.2, 0.3])
    steps = logged(spaces, propensities=propensities)
    data = write_steps(steps, tmp_path, spaces=spaces, cuts=(3,))
    assert data.propensities is not None
    assert data.propensities.dtype == np.float32
    np.testing.assert_array_equal(data.propensities, propensities.astype(np.float32))


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.01, 1e-60])
def test_propensities_that_are_not_probabilities_are_refused(tmp_path: Path, bad: float):
    values = np.full(6, 0.5)
    values[4] = bad
    message = "propensities are not within (0, 1] at 1 of 6 steps, first in episode 1 at step 2"
    steps = logged(CHOICE, propensities=values)
    assert refusal(steps, tmp_path, spaces=CHOICE) == f"test/logs-v0: {message}"


def test_densities_may_be_larger_than_one_but_not_zero(tmp_path: Path):
    data = write_steps(logged(propensities=np.full(6, 40.0)), tmp_path)
    assert data.propensities is not None
    assert data.propensities.tolist() == [40.0] * 6
    assert "not within (0, ∞)" in refusal(logged(propensities=np.zeros(6)), tmp_path)


@pytest.mark.parametrize("first", [True, False])
def test_propensities_of_only_some_steps_are_refused(tmp_path: Path, first: bool):
    with_, without = logged(propensities=np.full(6, 0.5)), logged()
    one, other = (with_, without) if first else (without, with_)
    with TransitionWriter("test/logs-v0", BOX, tmp_path) as writer:
        writer.append(take(one, slice(0, 4)))
        with pytest.raises(DataError, match=r"propensities .* episode 1 at step 2"):
            writer.append(take(other, slice(4, 6)))


# --- Disk space -----------------------------------------------------------------------------------


def test_more_data_than_the_disk_holds_are_refused_before_reading(tmp_path: Path):
    with TransitionWriter("test/logs-v0", BOX, tmp_path) as writer:
        writer.check_disk_space(6)
        message = r"has 1,000,000,000,000 steps, which need 32,000 GB .* set OFFLINE_CQL_CACHE"
        with pytest.raises(DataError, match=message):
            writer.check_disk_space(10**12)
        with pytest.raises(DataError, match=r"20,000 GB"):
            writer.check_disk_space(10**12, images=True)


# --- Any input ------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.floats(-2, 2), st.integers(-3, 4).map(float), st.floats(width=64))
DTYPES = st.sampled_from([np.float32, np.int64, np.uint8, np.bool_, np.dtype(object)])


@st.composite
def anything(draw: Any) -> tuple[Steps, tuple[int, ...]]:
    """Draw six steps, sometimes with odd numbers, another type or another shape, and cuts."""

    def array(*shape: int, kind: Any = np.float64) -> NDArray[Any]:
        odd = draw(st.integers(0, 29))
        if odd == 0:
            shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3)))
        count = int(np.prod(shape))
        elements = NUMBERS if odd == 1 else st.floats(-1, 1)
        values = draw(st.lists(elements, min_size=count, max_size=count))
        with np.errstate(all="ignore"):
            numbers = np.array(values, np.float64).reshape(shape)
            return numbers.astype(draw(DTYPES) if odd == 2 else kind)

    flags = [array(6, kind=bool) for _ in range(2)]
    propensities = [array(6)] if draw(st.booleans()) else []
    steps = Steps(array(6, 2), array(6, 2), array(6), array(6, 2), *flags, *propensities)
    return steps, tuple(sorted(draw(st.lists(st.integers(0, 6), max_size=2))))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(anything())
def test_any_steps_are_stored_or_refused_in_one_line(tmp_path: Path, case: Any):
    steps, cuts = case
    try:
        data = write_steps(steps, tmp_path, cuts=cuts)
    except DataError as error:
        refused = str(error)
    else:
        assert np.isfinite(data.rows).all()
        assert np.abs(data.actions).max() <= 1
        assert len(data) == 6
        return
    assert "\n" not in refused


def test_refusals_do_not_depend_on_assertions():
    """python -O removes the assertions of the package; the tests above still see every refusal."""
    command = [sys.executable, "-O", "-m", "pytest", "-q", __file__, "-k", "refused"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout
