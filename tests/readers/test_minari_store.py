"""Guarantee: stored steps are read completely and unshifted; a data set cannot run code."""

import json
import warnings

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from offline_cql.errors import DataError
from offline_cql.readers import load as load_source
from offline_cql.readers.minari.store import MinariReader, dataset_path
from offline_cql.transitions import Transitions

BOX = gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 1]), dtype=np.float32)
NAME = "sim/tiny/logged-v0"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def load_transitions(name, **keys) -> Transitions:
    return load_source(MinariReader(name, **keys))


def episode(number, steps, *, end="terminal", **changes):
    """Return an episode of observations (number, step), actions (step, number)/100 and rewards.

    The reward is 100 * number + step.
    """
    times = np.arange(steps)
    flags = {"terminal": (1, 0), "truncated": (0, 1), "both": (1, 1), "none": (0, 0)}[end]
    last = times == steps - 1
    arrays = {
        "observations": np.stack([np.full(steps + 1, number), np.arange(steps + 1)], 1).astype(
            np.float64
        ),
        "actions": np.stack([times / 100, np.full(steps, number / 100)], 1).astype(np.float32),
        "rewards": 100.0 * number + times,
        "terminations": last & bool(flags[0]),
        "truncations": last & bool(flags[1]),
    }
    return EpisodeBuffer(infos={}, **{**arrays, **changes})


def write(episodes, action_space=BOX, observation_space=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            NAME,
            episodes,
            observation_space=observation_space or gym.spaces.Box(-np.inf, np.inf, (2,)),
            action_space=action_space,
        )
    return dataset_path(NAME) / "data"


def load(*episodes, **spaces):
    write(list(episodes), **spaces)
    return load_transitions(NAME)


def edit_metadata(path, **changes):
    metadata = json.loads((path / "metadata.json").read_text()) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    (path / "metadata.json").write_text(json.dumps(metadata))


def test_nothing_is_shifted_and_nothing_crosses_an_episode():
    """Twelve episodes of 1 to 12 steps; by name, number 10 would come before number 2."""
    data = load(*(episode(k, k + 1) for k in range(12)))
    np.testing.assert_array_equal(data.episodes, np.repeat(np.arange(12), np.arange(1, 13)))
    np.testing.assert_array_equal(data.observations[:, 0], data.episodes)
    np.testing.assert_array_equal(data.next_observations[:, 0], data.episodes)
    times = np.concatenate([np.arange(k + 1) for k in range(12)])
    np.testing.assert_array_equal(data.observations[:, 1], times)
    np.testing.assert_array_equal(data.next_observations[:, 1], times + 1)
    np.testing.assert_array_equal(data.rewards, 100 * data.episodes + times)
    np.testing.assert_allclose(data.actions[:, 0], times / 200, atol=1e-6)  # bounds ±2
    np.testing.assert_allclose(data.actions[:, 1], data.episodes / 50 - 1, atol=1e-6)  # 0 … 1
    np.testing.assert_array_equal(data.terminated, times == data.episodes)


def test_arrays_are_float32_int32_and_bool():
    data = load(episode(0, 3))
    types = {n: getattr(data, n).dtype for n in ("observations", "actions", "rewards", "episodes")}
    assert types == {
        "observations": np.float32,
        "actions": np.float32,
        "rewards": np.float32,
        "episodes": np.int32,
    }
    assert data.terminated.dtype == data.truncated.dtype == np.bool_


def test_returns_include_the_reward_of_the_last_step():
    """The reward of a terminal step counts: 0+1+2, then 100+101."""
    assert load(episode(0, 3), episode(1, 2)).episode_returns().tolist() == [3, 201]


def test_truncations_are_not_terminal():
    data = load(episode(0, 2, end="truncated"), episode(1, 2))
    assert data.terminated.tolist() == [False, False, False, True]
    assert data.truncated.tolist() == [False, True, False, False]


def test_terminal_wins_over_truncated():
    data = load(episode(0, 2, end="both"))
    assert data.terminated.tolist() == [False, True]
    assert not data.truncated.any()


def test_a_trailing_part_of_an_episode_is_kept_as_truncated():
    data = load(episode(0, 1, end="truncated"), episode(1, 2, end="none"))
    assert len(data) == 3
    assert data.truncated.tolist() == [True, False, True]


def test_discrete_actions_stay_integers():
    actions = np.array([0, 2, 1])
    data = load(episode(0, 3, actions=actions), action_space=gym.spaces.Discrete(3))
    assert data.actions.dtype == np.int64
    assert data.actions.tolist() == [0, 2, 1]
    assert data.spaces.discrete


def test_the_hash_depends_on_the_content_alone(store, monkeypatch):
    first = load(episode(0, 3), episode(1, 2)).sha256
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(store / "second"))
    assert load(episode(0, 3), episode(1, 2)).sha256 == first
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(store / "third"))
    assert load(episode(0, 3), episode(1, 2, rewards=np.array([100, 102.0]))).sha256 != first


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize(
    ("name", "array", "step"),
    [
        ("observations", "observations", 1),
        ("rewards", "rewards", 1),
        ("observations", "next observations", 3),  # the last one is only a next observation
    ],
)
def test_values_that_are_not_finite_float32_are_refused_with_their_position(bad, name, array, step):
    values = getattr(episode(1, 3), name).copy()
    values[step] = bad
    row = min(step, 2)
    fault = "are too large for float32" if bad == 1e39 else "contain NaN or infinity"
    message = f"{array} {fault} at 1 of 5 steps, first in episode 1 at step {row}"
    with pytest.raises(DataError, match=message):
        load(episode(0, 2), episode(1, 3, **{name: values}))


def test_actions_that_are_nan_are_refused():
    actions = np.array([[0, 0], [0, np.nan]], np.float32)
    with pytest.raises(DataError, match=r"actions contain NaN .* episode 0 at step 1"):
        load(episode(0, 2, actions=actions))


@pytest.mark.parametrize("action", [[2.01, 0.5], [0.0, -0.001]])
def test_actions_beyond_their_bounds_are_refused(action):
    with pytest.raises(DataError, match=r"actions are outside .* first in episode 0 at step 0"):
        load(episode(0, 1, actions=np.array([action], np.float32)))


def test_actions_beyond_their_bounds_by_a_rounding_error_are_clipped():
    action = np.array([[2 + 1e-6, 1 + 1e-7]])
    assert load(episode(0, 1, actions=action)).actions.tolist() == [[1, 1]]


@pytest.mark.parametrize("action", [-1, 3])
def test_discrete_actions_that_do_not_exist_are_refused(action):
    with pytest.raises(DataError, match=r"not among 0 … 2"):
        load(episode(0, 1, actions=np.array([action])), action_space=gym.spaces.Discrete(3))


def test_infinite_action_bounds_are_refused():
    with pytest.raises(DataError, match="must be finite"):
        load(episode(0, 1), action_space=gym.spaces.Box(-np.inf, np.inf, (2,)))


@pytest.mark.parametrize("name", ["actions", "rewards", "terminations", "observations"])
def test_arrays_of_different_lengths_are_refused(name):
    whole = getattr(episode(1, 3), name)
    with pytest.raises(DataError, match=r"episode 1 of \d steps has"):
        load(episode(0, 3), episode(1, 3, **{name: whole[:-1]}))


def test_observations_of_another_width_are_refused():
    with pytest.raises(DataError, match=r"observations has shape \(4, 5\), expected \(4, 2\)"):
        load(episode(0, 3, observations=np.zeros((4, 5))))


def test_an_end_inside_an_episode_is_refused():
    with pytest.raises(DataError, match="ends at step 1 but continues to step 2"):
        load(episode(0, 3, terminations=np.array([False, True, False])))


def test_the_error_of_an_absent_data_set_names_the_command():
    with pytest.raises(DataError, match=r"sim/hopper/medium-v0 is not in .* python collect\.py"):
        load_transitions("sim/hopper/medium-v0")


@pytest.mark.parametrize(
    "name",
    [
        "../secret-v0",
        "sim/../../secret-v0",
        "/etc/secret-v0",
        "",
        "sim/tiny",
        "a//b-v0",
        "a/b-v0\n",
    ],
)
def test_an_id_cannot_leave_the_store(name):
    with pytest.raises(DataError, match="must look like"):
        dataset_path(name)


@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
def test_metadata_that_name_a_program_do_not_run_it(store, missing, monkeypatch):
    """Without a space, Minari itself would create the environment that the metadata name."""
    path = write([episode(0, 3)])
    (store / "evil_module.py").write_text(f"open({str(store / 'ran')!r}, 'w')\nmake = None\n")
    monkeypatch.syspath_prepend(str(store))
    spec = (
        gym.spec("CartPole-v1")
        .to_json()
        .replace("gymnasium.envs.classic_control.cartpole:CartPoleEnv", "evil_module:make")
    )
    assert "evil_module" in spec
    edit_metadata(path, env_spec=spec, **{missing: None})
    with pytest.raises(DataError, match=f"has no {missing}.* not allowed"):
        load_transitions(NAME)
    edit_metadata(path, **json.loads((write_again(store) / "metadata.json").read_text()))
    edit_metadata(path, env_spec=spec)
    load_transitions(NAME)  # with both spaces the program is not imported
    assert not (store / "ran").exists()


def write_again(store):
    """Write the same data set to another store and return its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store / "other"))
        return write([episode(0, 3)])


@pytest.mark.parametrize("text", ["", "not json", "[]", "null"])
def test_metadata_that_are_not_an_object_are_refused(text):
    path = write([episode(0, 3)])
    (path / "metadata.json").write_text(text)
    with pytest.raises(DataError, match="metadata"):
        load_transitions(NAME)


def test_an_unknown_format_is_refused():
    edit_metadata(write([episode(0, 3)]), data_format="zarr")
    with pytest.raises(DataError, match="'zarr'; supported: hdf5, arrow, parquet"):
        load_transitions(NAME)


@pytest.mark.parametrize("steps", [4, 2])
def test_a_wrong_number_of_steps_is_refused(steps):
    edit_metadata(write([episode(0, 3)]), total_steps=steps)
    fault = "holds 3 steps" if steps > 3 else "is 4 long"
    with pytest.raises(DataError, match=rf"{fault}, metadata\.json states {steps}"):
        load_transitions(NAME)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_remedy(share):
    file = write([episode(k, 9) for k in range(5)]) / "main_data.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cannot be read .* record or download it again"):
        load_transitions(NAME)


def test_a_missing_array_is_refused():
    with h5py.File(write([episode(0, 3)]) / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
    with pytest.raises(DataError, match="rewards"):
        load_transitions(NAME)


def test_a_link_to_another_file_is_refused(store):
    path = write([episode(0, 3)])
    with h5py.File(store / "private.hdf5", "w") as file:
        file["rewards"] = np.arange(3.0)
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = h5py.ExternalLink(str(store / "private.hdf5"), "rewards")
    with pytest.raises(DataError, match="episode_0/rewards is a soft or external link"):
        load_transitions(NAME)


def test_values_stored_in_another_file_are_refused(store):
    path = write([episode(0, 3)])
    (store / "private.bin").write_bytes(np.arange(3.0).tobytes())
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        file["episode_0"].create_dataset(
            "rewards", (3,), "f8", external=[(str(store / "private.bin"), 0, 24)]
        )
    with pytest.raises(DataError, match="episode_0/rewards is stored in another file"):
        load_transitions(NAME)


def test_text_in_place_of_numbers_is_refused():
    with pytest.raises(DataError, match="expected numbers"):
        load(episode(0, 2, rewards=["1.0", "2.0"]))
