"""Guarantee: the same episodes in HDF5, Arrow and Parquet are the same data, refused alike."""

import json
import os

import gymnasium as gym
import h5py
import minari
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from minari.data_collector import EpisodeBuffer
from support.envs import Nested, nested_row

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader, dataset_path

NAME = "sim/tiny/formats-v0"
FORMATS = ("hdf5", "arrow", "parquet")
BOX = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
ACTIONS = gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 1]), dtype=np.float32)

pytestmark = pytest.mark.filterwarnings("ignore")  # Minari asks for an author


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    return tmp_path


def write(episodes, data_format, *, observation=BOX, action=ACTIONS, **options):
    minari.create_dataset_from_buffers(
        NAME,
        episodes,
        observation_space=observation,
        action_space=action,
        data_format=data_format,
        **options,
    )
    return dataset_path(NAME) / "data"


def read(keys=None):
    return load(MinariReader(NAME, observation_keys=keys))


def plain(number, steps, *, last="terminations"):
    times = np.arange(steps)
    flags = {
        name: list((times == steps - 1) & (name == last))
        for name in ("terminations", "truncations")
    }
    return EpisodeBuffer(
        observations=np.stack([np.full(steps + 1, number), np.arange(steps + 1)], 1).astype(float),
        actions=np.stack([times / 100, np.full(steps, number / 100)], 1).astype(np.float32),
        rewards=list(100.0 * number + times),
        infos={},
        **flags,
    )


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
def test_rows_stay_in_their_episode_and_step(data_format):
    """Twelve episodes of 1 to 12 steps; by name, number 10 would come before number 2."""
    endings = ["terminations", "truncations", "neither"]
    write([plain(k, k + 1, last=endings[k % 3]) for k in range(12)], data_format)
    data = read()
    times = np.concatenate([np.arange(k + 1) for k in range(12)])
    episodes = np.repeat(np.arange(12), np.arange(1, 13))
    np.testing.assert_array_equal(data.observations, np.stack([episodes, times], 1))
    np.testing.assert_array_equal(data.next_observations, np.stack([episodes, times + 1], 1))
    np.testing.assert_array_equal(data.rewards, 100 * episodes + times)
    np.testing.assert_allclose(data.actions[:, 0], times / 200, atol=1e-6)
    np.testing.assert_allclose(data.actions[:, 1], episodes / 50 - 1, atol=1e-6)
    last = times == episodes
    np.testing.assert_array_equal(data.terminated, last & (episodes % 3 == 0))
    np.testing.assert_array_equal(data.truncated, last & (episodes % 3 != 0))
    assert data.repairs == {"episodes_without_an_end": 4}


@pytest.mark.parametrize("data_format", FORMATS)
def test_nested_observations_are_flattened_in_the_order_of_their_keys(data_format):
    seeds = [3, 41, 7]
    write(
        [nested(seed) for seed in seeds],
        data_format,
        observation=Nested.observation_space,
        action=gym.spaces.Discrete(2),
    )
    data = read()
    expected = [[nested_row(seed, time) for time in range(5)] for seed in seeds]
    np.testing.assert_array_equal(
        data.observations, np.concatenate([rows[:-1] for rows in expected])
    )
    np.testing.assert_array_equal(
        data.next_observations, np.concatenate([rows[1:] for rows in expected])
    )
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
    write(
        [nested(9)],
        data_format,
        observation=Nested.observation_space,
        action=gym.spaces.Discrete(2),
    )
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
    write([plain(0, 3)], "hdf5")
    with pytest.raises(DataError, match="needs a Dict"):
        read(["observation"])


@pytest.mark.parametrize("data_format", FORMATS)
def test_discrete_observations_are_one_hot(data_format):
    episode = plain(0, 3)
    numbers = EpisodeBuffer(**{**vars(episode), "observations": np.array([2, 0, 3, 1])})
    write([numbers], data_format, observation=gym.spaces.Discrete(4))
    np.testing.assert_array_equal(read().observations, np.eye(4)[[2, 0, 3]])
    np.testing.assert_array_equal(read().next_observations, np.eye(4)[[0, 3, 1]])


@pytest.mark.parametrize("bad", [-1, 4])
def test_a_discrete_observation_that_does_not_exist_is_refused(bad):
    numbers = EpisodeBuffer(**{**vars(plain(0, 1)), "observations": np.array([2, bad])})
    write([numbers], "hdf5", observation=gym.spaces.Discrete(4))
    with pytest.raises(DataError, match=f"has the value {bad}, outside Discrete"):
        read()


PICTURE = gym.spaces.Box(0, 255, (40, 36, 3), np.uint8)


def film():
    """Return two episodes of a smooth picture that grows brighter; JPEG changes it by at most 3."""
    ramp = np.linspace(0, 100, 40)[:, None, None] + np.linspace(0, 60, 36)[None, :, None]
    frames = [(ramp + 10 * time + np.zeros(3)).astype(np.uint8) for time in range(5)]
    episodes = [plain(0, 3), plain(1, 1)]
    frames = [np.stack(frames[:4]), np.stack(frames[3:])]
    return [
        EpisodeBuffer(**{**vars(e), "observations": f})
        for e, f in zip(episodes, frames, strict=True)
    ], frames


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("encoded", [False, True])
def test_pictures_stay_bytes(data_format, encoded):
    episodes, frames = film()
    write(episodes, data_format, observation=PICTURE, jpeg_encoding=encoded)
    data = read()
    assert data.observations.dtype == np.uint8
    stored = np.concatenate([part[:-1] for part in frames]).reshape(4, -1).astype(int)
    following = np.concatenate([part[1:] for part in frames]).reshape(4, -1).astype(int)
    tolerance = 6 if encoded else 0  # JPEG is lossy
    assert np.abs(data.observations - stored).max() <= tolerance
    assert np.abs(data.next_observations - following).max() <= tolerance
    assert data.observation_names == ()


def test_a_picture_of_another_size_is_refused():
    episodes, _ = film()
    path = write(episodes, "hdf5", observation=PICTURE)
    edit(path, observation_space=edit_shape(path, [64, 36, 3]))
    with pytest.raises(DataError, match="image of 40 x 36, expected"):
        read()


def edit_shape(path, shape):
    space = json.loads(json.loads((path / "metadata.json").read_text())["observation_space"])
    low, high = np.zeros(shape, int).tolist(), np.full(shape, 255).tolist()
    return json.dumps(space | {"shape": shape, "low": low, "high": high})


def edit(path, **changes):
    metadata = json.loads((path / "metadata.json").read_text()) | changes
    (path / "metadata.json").write_text(json.dumps(metadata))


# --- Arrow and Parquet: invalid files ------------------------------------------------------------


def rewrite(path, data_format, change):
    """Replace the table of episode 1 by `change` of it."""
    (file,) = (path / "1").glob(f"*.{data_format}")
    if data_format == "parquet":
        pa.parquet.write_table(change(pa.parquet.ParquetFile(file).read()), file)
        return
    with pa.OSFile(str(file)) as source:
        table = change(pa.ipc.open_file(source).read_all())
    with pa.ipc.new_file(str(file), table.schema) as sink:
        sink.write_table(table)


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["rewards"]), "has no rewards"),
        (lambda t: t.slice(0, 3), "holds 5 steps, metadata.json states 7"),
        (lambda t: t.slice(0, 1), "episode 1 is empty"),
        (
            lambda t: t.set_column(t.column_names.index("rewards"), "rewards", pa.array(["1"] * 5)),
            "expected numbers",
        ),
        (
            lambda t: t.set_column(
                t.column_names.index("rewards"), "rewards", pa.array([1.0, None] * 2 + [0.0])
            ),
            "missing values",
        ),
        (
            lambda t: t.set_column(
                t.column_names.index("terminations"), "terminations", pa.array([0.0] * 5)
            ),
            "expected booleans",
        ),
    ],
)
def test_an_invalid_table_is_refused(data_format, change, message):
    path = write([plain(0, 3), plain(1, 4)], data_format)
    rewrite(path, data_format, change)
    with pytest.raises(DataError, match=message):
        read()


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_remedy(data_format, share):
    path = write([plain(0, 30), plain(1, 30)], data_format)
    pattern = "*.hdf5" if data_format == "hdf5" else f"1/*.{data_format}"
    (file,) = path.glob(pattern)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cannot be read .* record or download it again"):
        read()


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_a_missing_episode_is_refused(data_format):
    path = write([plain(0, 3), plain(1, 4)], data_format)
    for file in (path / "1").iterdir():
        file.unlink()
    (path / "1").rmdir()
    with pytest.raises(DataError, match=r"has 1 episodes, metadata\.json states 2"):
        read()


def test_more_episodes_than_the_metadata_state_are_refused():
    path = write([plain(0, 3), plain(1, 4)], "hdf5")
    with h5py.File(path / "main_data.hdf5", "a") as file:
        file.copy("episode_0", "episode_2")
    with pytest.raises(DataError, match=r"has 3 episodes, metadata\.json states 2"):
        read()


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_link_out_of_the_data_set_is_refused(data_format, store):
    path = write([plain(0, 3), plain(1, 4)], data_format)
    (file,) = path.glob("*.hdf5" if data_format == "hdf5" else f"1/*.{data_format}")
    os.replace(file, store / "private")
    file.symlink_to(store / "private")
    with pytest.raises(DataError, match="is a link out of the data set"):
        read()


def test_a_linked_folder_out_of_the_data_set_is_refused(store):
    path = write([plain(0, 3), plain(1, 4)], "arrow")
    os.replace(path / "1", store / "private")
    (path / "1").symlink_to(store / "private")
    with pytest.raises(DataError, match="is a link out of the data set"):
        read()


def test_a_link_to_a_whole_data_set_is_followed(store):
    path = write([plain(0, 3)], "arrow")
    os.replace(path.parent, store / "disk")
    path.parent.symlink_to(store / "disk")
    assert len(read()) == 3


def test_a_nested_link_in_hdf5_is_refused(store):
    write([nested(3)], "hdf5", observation=Nested.observation_space, action=gym.spaces.Discrete(2))
    with h5py.File(store / "private.hdf5", "w") as file:
        file["place"] = np.zeros((5, 2))
    with h5py.File(dataset_path(NAME) / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/observations/goal/place"]
        file["episode_0/observations/goal/place"] = h5py.ExternalLink(
            str(store / "private.hdf5"), "place"
        )
    with pytest.raises(DataError, match="goal/place is a soft or external link"):
        read()


def test_an_array_longer_than_the_data_set_is_refused_unread():
    path = write([plain(0, 3)], "hdf5")
    with h5py.File(path / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
        file["episode_0"].create_dataset("rewards", (10**12,), "f8", chunks=(1000,))
    with pytest.raises(DataError, match=r"1,000,000,000,000 long, metadata.json states 3 steps"):
        read()
