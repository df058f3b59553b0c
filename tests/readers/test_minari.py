"""Guarantee: the same episodes in HDF5, Arrow and Parquet are the same data, refused alike.

Stored steps are read completely and unshifted; a data set cannot run code or show other files.
Which values are refused is tested in test_writer.py.
"""

import functools
import json
import os

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from minari.data_collector import EpisodeBuffer
from support.envs import Nested, nested_row
from support.minari_case import edit_metadata, episode, write_minari

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader, dataset_path

NAME = "sim/tiny/formats-v0"
FORMATS = ("hdf5", "arrow", "parquet")

write = functools.partial(write_minari, NAME)
write_nested = functools.partial(
    write, observation=Nested.observation_space, action=gym.spaces.Discrete(2)
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    return tmp_path


def read(keys=None):
    return load(MinariReader(NAME, observation_keys=keys))


def two_episodes():
    return [episode(0, 3), episode(1, 4)]


def data_file(path, data_format):
    """Return the file that holds episode 1."""
    (file,) = path.glob("*.hdf5" if data_format == "hdf5" else f"1/*.{data_format}")
    return file


# --- Episodes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
def test_rows_stay_in_their_episode_and_step(data_format):
    """Twelve episodes of 1 to 12 steps; by name, number 10 would come before number 2."""
    endings = ["terminations", "truncations", "neither"]
    write([episode(k, k + 1, end=endings[k % 3]) for k in range(12)], data_format)
    data = read()
    times = np.concatenate([np.arange(k + 1) for k in range(12)])
    episodes = np.repeat(np.arange(12), np.arange(1, 13))
    np.testing.assert_array_equal(data.observations, np.stack([episodes, times], 1))
    np.testing.assert_array_equal(data.next_observations, np.stack([episodes, times + 1], 1))
    np.testing.assert_array_equal(data.rewards, 100 * episodes + times)
    np.testing.assert_allclose(data.actions[:, 0], times / 200, atol=1e-6)  # bounds ±2
    np.testing.assert_allclose(data.actions[:, 1], episodes / 50 - 1, atol=1e-6)  # 0 … 1
    last = times == episodes
    np.testing.assert_array_equal(data.terminated, last & (episodes % 3 == 0))
    np.testing.assert_array_equal(data.truncated, last & (episodes % 3 != 0))
    assert data.repairs == {"episodes_without_an_end": 4}


def nested(seed, steps=4):
    env = Nested()
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(0)[0] for _ in range(steps)]
    return EpisodeBuffer(
        observations={
            "mission": [o["mission"] for o in observations],
            "goal": {
                "place": np.stack([o["goal"]["place"] for o in observations]),
                "kind": np.array([o["goal"]["kind"] for o in observations]),
            },
            "body": tuple(np.stack([o["body"][i] for o in observations]) for i in (0, 1)),
        },
        actions=np.arange(steps) % 2,
        rewards=[1.0] * steps,
        terminations=[False] * (steps - 1) + [True],
        truncations=[False] * steps,
        infos={},
    )


@pytest.mark.parametrize("data_format", FORMATS)
def test_nested_observations_are_flattened_in_the_order_of_their_keys(data_format):
    seeds = [3, 41, 7]
    write_nested([nested(seed) for seed in seeds], data_format)
    data = read()
    rows = np.array([[nested_row(seed, time) for time in range(5)] for seed in seeds])
    np.testing.assert_array_equal(data.observations, np.concatenate(rows[:, :-1]))
    np.testing.assert_array_equal(data.next_observations, np.concatenate(rows[:, 1:]))
    assert data.actions.tolist() == [0, 1, 0, 1] * 3
    assert data.repairs == {"steps_without_their_text": 12}
    assert data.observation_names == (
        *(f"body/0.{index}" for index in range(4)),
        *(f"body/1.{index}" for index in range(3)),
        *(f"goal/kind={number}" for number in (5, 6, 7)),
        *("goal/place.0", "goal/place.1"),
    )


@pytest.mark.parametrize("data_format", FORMATS)
def test_observation_keys_select_parts_of_a_dict_in_the_same_order(data_format):
    write_nested([nested(9)], data_format)
    expected = [nested_row(9, time) for time in range(4)]
    np.testing.assert_array_equal(read(["goal"]).observations, [row[7:] for row in expected])
    both = read(["goal", "body"])  # the order of the keys does not matter
    np.testing.assert_array_equal(both.observations, expected)
    assert read(["goal"]).sha256 != both.sha256
    with pytest.raises(DataError, match=r"must be among \['body', 'goal', 'mission'\]"):
        read(["gaol"])
    with pytest.raises(DataError, match="holds no numbers"):
        read(["mission"])


def test_keys_of_a_plain_observation_are_refused():
    write([episode(0, 3)])
    with pytest.raises(DataError, match="needs a Dict"):
        read(["observation"])


@pytest.mark.parametrize("data_format", FORMATS)
def test_discrete_observations_are_one_hot(data_format):
    numbers = episode(0, 3, observations=np.array([2, 0, 3, 1]))
    write([numbers], data_format, observation=gym.spaces.Discrete(4))
    np.testing.assert_array_equal(read().observations, np.eye(4)[[2, 0, 3]])
    np.testing.assert_array_equal(read().next_observations, np.eye(4)[[0, 3, 1]])


@pytest.mark.parametrize("bad", [-1, 4])
def test_a_discrete_observation_that_does_not_exist_is_refused(bad):
    numbers = episode(0, 1, observations=np.array([2, bad]))
    write([numbers], observation=gym.spaces.Discrete(4))
    with pytest.raises(DataError, match=f"has the value {bad}, outside Discrete"):
        read()


# --- Images --------------------------------------------------------------------------------------

PICTURE = gym.spaces.Box(0, 255, (40, 36, 3), np.uint8)


def film():
    """Return five smooth pictures that grow brighter; JPEG changes them by at most 3."""
    ramp = np.linspace(0, 100, 40)[:, None, None] + np.linspace(0, 60, 36)[None, :, None]
    return np.stack([ramp + 10 * time + np.zeros(3) for time in range(5)]).astype(np.uint8)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("encoded", [False, True])
def test_pictures_stay_bytes(data_format, encoded):
    frames = film()
    episodes = [episode(0, 3, observations=frames[:4]), episode(1, 1, observations=frames[3:])]
    write(episodes, data_format, observation=PICTURE, jpeg_encoding=encoded)
    data = read()
    assert data.observations.dtype == np.uint8
    pixels = frames.reshape(5, -1).astype(int)
    tolerance = 6 if encoded else 0  # JPEG is lossy
    assert np.abs(data.observations - pixels[[0, 1, 2, 3]]).max() <= tolerance
    assert np.abs(data.next_observations - pixels[[1, 2, 3, 4]]).max() <= tolerance
    assert data.observation_names == ()


def test_a_picture_of_another_size_is_refused():
    path = write([episode(0, 4, observations=film())], observation=PICTURE)
    space = json.loads(json.loads((path / "metadata.json").read_text())["observation_space"])
    shape = [64, 36, 3]
    bounds = {"low": np.zeros(shape, int).tolist(), "high": np.full(shape, 255).tolist()}
    edit_metadata(path, observation_space=json.dumps(space | {"shape": shape} | bounds))
    with pytest.raises(DataError, match="image of 40 x 36, expected"):
        read()


# --- Invalid episodes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((2, 2), np.float32)}, r"episode 1 of 3 steps has 2 actions"),
        ({"rewards": np.zeros(2)}, r"episode 1 of 2 steps has 4 observations, expected 3"),
        ({"terminations": np.zeros(2, bool)}, r"episode 1 of 3 steps has 2 terminations"),
        ({"observations": np.zeros((3, 2))}, r"has 3 observations, expected 4"),
        ({"observations": np.zeros((4, 5))}, r"has shape \(4, 5\), expected \(4, 2\)"),
        ({"observations": np.full((4, 2), np.nan)}, r"NaN .* at 3 of 6 .* episode 1 at step 0"),
        ({"terminations": np.array([False, True, False])}, "ends at step 1 but continues to st"),
        ({"rewards": ["1.0", "2.0", "3.0"]}, "expected numbers"),
    ],
)
def test_an_invalid_episode_is_refused(changes, message):
    write([episode(0, 3), episode(1, 3, **changes)])
    with pytest.raises(DataError, match=message):
        read()


def rewrite(path, data_format, change):
    """Replace the table of episode 1 by `change` of it."""
    file = data_file(path, data_format)
    if data_format == "parquet":
        pa.parquet.write_table(change(pa.parquet.ParquetFile(file).read()), file)
        return
    with pa.OSFile(str(file)) as source:
        table = change(pa.ipc.open_file(source).read_all())
    with pa.ipc.new_file(str(file), table.schema) as sink:
        sink.write_table(table)


def replace_column(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["rewards"]), "has no rewards"),
        (lambda t: t.slice(0, 3), "holds 5 steps, metadata.json states 7"),
        (lambda t: t.slice(0, 1), "episode 1 is empty"),
        (replace_column("rewards", ["1"] * 5), "expected numbers"),
        (replace_column("rewards", [1.0, None] * 2 + [0.0]), "missing values"),
        (replace_column("terminations", [0.0] * 5), "expected booleans"),
    ],
)
def test_an_invalid_table_is_refused(data_format, change, message):
    path = write(two_episodes(), data_format)
    rewrite(path, data_format, change)
    with pytest.raises(DataError, match=message):
        read()


# --- Invalid files -------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_remedy(data_format, share):
    file = data_file(write([episode(0, 30), episode(1, 30)], data_format), data_format)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"(cannot be read|is empty) .* record it again"):
        read()


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_pointer_of_git_lfs_is_named(data_format):
    file = data_file(write([episode(0, 30), episode(1, 30)], data_format), data_format)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n")
    with pytest.raises(DataError, match=r"is a pointer of Git LFS, not the data: git -C .* pull"):
        read()


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_a_missing_episode_is_refused(data_format):
    path = write(two_episodes(), data_format)
    data_file(path, data_format).parent.rename(path / "elsewhere")
    with pytest.raises(DataError, match=r"has 1 episodes, metadata\.json states 2"):
        read()


def test_more_episodes_than_the_metadata_state_are_refused():
    path = write(two_episodes())
    with h5py.File(path / "main_data.hdf5", "a") as file:
        file.copy("episode_0", "episode_2")
    with pytest.raises(DataError, match=r"has 3 episodes, metadata\.json states 2"):
        read()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "rewards.* doesn.*t exist"),
        ({"shape": (10**12,), "chunks": (1000,)}, "1,000,000,000,000 long, metadata.json states 3"),
        ({"shape": (3,), "external": [("private.bin", 0, 24)]}, "is stored in another file"),
    ],
)
def test_an_absent_a_too_long_and_an_external_array_are_refused_unread(settings, message):
    with h5py.File(write([episode(0, 3)]) / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        if settings:
            file["episode_0"].create_dataset("rewards", dtype="f8", **settings)
    with pytest.raises(DataError, match=message):
        read()


@pytest.mark.parametrize(
    ("data_format", "pattern"),
    [("hdf5", "*.hdf5"), ("arrow", "1/*.arrow"), ("parquet", "1/*.parquet"), ("arrow", "1")],
)
def test_a_link_out_of_the_data_set_is_refused(data_format, pattern, store):
    (path,) = write(two_episodes(), data_format).glob(pattern)
    os.replace(path, store / "private")
    path.symlink_to(store / "private")
    with pytest.raises(DataError, match="is a link out of the data set"):
        read()


def test_a_link_to_a_whole_data_set_is_followed(store):
    path = write([episode(0, 3)], "arrow")
    os.replace(path.parent, store / "disk")
    path.parent.symlink_to(store / "disk")
    assert len(read()) == 3


def test_a_nested_link_in_hdf5_is_refused(store):
    path = write_nested([nested(3)])
    with h5py.File(store / "private.hdf5", "w") as file:
        file["place"] = np.zeros((5, 2))
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/goal/place"]
        link = h5py.ExternalLink(str(store / "private.hdf5"), "place")
        file["episode_0/observations/goal/place"] = link
    with pytest.raises(DataError, match="goal/place is a soft or external link"):
        read()


# --- Ids and metadata ----------------------------------------------------------------------------


def test_the_error_of_an_absent_data_set_names_the_command():
    with pytest.raises(DataError, match=r"sim/hopper/medium-v0 is not in .* python collect\.py"):
        load(MinariReader("sim/hopper/medium-v0"))


@pytest.mark.parametrize(
    "name",
    [
        *("../secret-v0", "sim/../../secret-v0", "/etc/secret-v0", ""),
        *("sim/tiny", "a//b-v0", "a/b-v0\n"),
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
    cartpole = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    spec = gym.spec("CartPole-v1").to_json().replace(cartpole, "evil_module:make")
    assert "evil_module" in spec
    edit_metadata(path, env_spec=spec)
    read()  # with both spaces the program is not imported
    edit_metadata(path, **{missing: None})
    with pytest.raises(DataError, match=f"has no {missing}.* not allowed"):
        read()
    assert not (store / "ran").exists()


@pytest.mark.parametrize("text", ["", "not json", "[]", "null"])
def test_metadata_that_are_not_an_object_are_refused(text):
    (write([episode(0, 3)]) / "metadata.json").write_text(text)
    with pytest.raises(DataError, match="metadata"):
        read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_format": "zarr"}, "'zarr'; supported: hdf5, arrow, parquet"),
        ({"total_steps": 4}, r"holds 3 steps, metadata\.json states 4"),
        ({"total_steps": 2}, r"is 4 long, metadata\.json states 2"),
        ({"total_steps": -1}, r"total_steps in metadata\.json must be an integer, at least 0"),
    ],
)
def test_metadata_that_contradict_the_files_are_refused(changes, message):
    edit_metadata(write([episode(0, 3)]), **changes)
    with pytest.raises(DataError, match=message):
        read()
