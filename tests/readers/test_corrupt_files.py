"""Guarantee: a corrupt file is a DataError of one line, or it loads.

Good Minari and D4RL files are corrupt at random: bytes, arrays, types, lengths, values, metadata.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from offline_cql.errors import DataError
from offline_cql.readers import Reader, load
from offline_cql.readers.d4rl import D4RLReader
from offline_cql.readers.minari.store import MinariReader
from offline_cql.transitions import Transitions

pytestmark = pytest.mark.filterwarnings("ignore")  # Minari misses an author; casts warn of NaN

EPISODES, STEPS = 3, 4
NAME = "test/corrupt-v0"
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Minari store and a D4RL file that load."""
    folder = tmp_path_factory.mktemp("good")
    draw = np.random.default_rng(0)
    last = np.arange(STEPS) == STEPS - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "store"))
        minari.create_dataset_from_buffers(
            NAME,
            [
                EpisodeBuffer(
                    observations=draw.normal(size=(STEPS + 1, 2)),
                    actions=draw.uniform(-1, 1, (STEPS, 1)).astype(np.float32),
                    rewards=draw.normal(size=STEPS),
                    terminations=last,
                    truncations=np.zeros(STEPS, bool),
                    infos={},
                )
                for _ in range(EPISODES)
            ],
            observation_space=gym.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            action_space=gym.spaces.Box(-1.0, 1.0, (1,), np.float32),
            algorithm_name="none",
            author="none",
            author_email="none",
            code_permalink="none",
        )
    size = EPISODES * STEPS
    with h5py.File(folder / "d4rl.hdf5", "w") as file:
        file["observations"] = draw.normal(size=(size, 2))
        file["actions"] = draw.uniform(-1, 1, (size, 1))
        file["rewards"] = draw.normal(size=size)
        file["terminals"] = np.tile(last, EPISODES)
        file["timeouts"] = np.zeros(size, bool)
    return folder


# --- What is done to a file ----------------------------------------------------------------------

Spoil = Callable[[Path, st.DataObject], None]
VALUES = st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, 5.0, -999.0])
TYPES = st.sampled_from(["f8", "f4", "i8", "u1", "bool", "c8", "S4", "f2"])


def bytes_changed(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))


def cut_short(path: Path, data: st.DataObject) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])


def arrays(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(
        lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return sorted(found)


def array_missing(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        del file[data.draw(st.sampled_from(arrays(file)))]


def array_replaced(path: Path, data: st.DataObject) -> None:
    """Another type, another length, or a scalar."""
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(arrays(file)))
        values = file[name][()]
        del file[name]
        shape = data.draw(
            st.sampled_from([values.shape, (0,), (3,), (4, 1), (5, 2), (1, 2, 3), ()])
        )
        file[name] = np.ones(shape).astype(data.draw(TYPES))


def value_changed(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        values = file[data.draw(st.sampled_from(arrays(file)))]
        where = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
        value = data.draw(VALUES)
        if values.dtype.kind != "f":
            value = np.clip(np.nan_to_num(value), 0, 100)
        values[where] = value


def group_in_place(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(arrays(file)))
        del file[name]
        file.create_group(name)


def linked(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(arrays(file)))
        del file[name]
        soft = h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")
        file[name] = data.draw(st.sampled_from(soft))


SPOILS = [
    bytes_changed,
    cut_short,
    array_missing,
    array_replaced,
    value_changed,
    group_in_place,
    linked,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def loads_or_says_why(source: Callable[[], Reader], cache: Path) -> None:
    """Nothing but a DataError of one line may come out; what loads is whole."""
    shutil.rmtree(cache, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFLINE_CQL_CACHE", str(cache))
        try:
            found: Transitions | None = load(source())
        except DataError as error:
            message = str(error)
            found = None
    if found is None:
        assert message.strip()
        assert "\n" not in message.strip()
        return
    assert np.isfinite(found.rows).all()
    assert found.ends[-1] == len(found)


# --- The promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", SPOILS)
@FUZZ
@given(data=st.data())
def test_a_spoilt_minari_file(spoil: Spoil, good: Path, tmp_path: Path, data: st.DataObject):
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(good / "store", store)
    spoil(store / NAME / "data" / "main_data.hdf5", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store))
        loads_or_says_why(lambda: MinariReader(NAME), tmp_path / "cache")


@FUZZ
@given(data=st.data())
def test_spoilt_minari_metadata(good: Path, tmp_path: Path, data: st.DataObject):
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(good / "store", store)
    path = store / NAME / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(metadata)))
    metadata[key] = data.draw(JSON)
    path.write_text(json.dumps(metadata))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store))
        loads_or_says_why(lambda: MinariReader(NAME), tmp_path / "cache")


@pytest.mark.parametrize("spoil", SPOILS)
@FUZZ
@given(data=st.data())
def test_a_spoilt_d4rl_file(spoil: Spoil, good: Path, tmp_path: Path, data: st.DataObject):
    path = tmp_path / "d4rl.hdf5"
    shutil.copy(good / "d4rl.hdf5", path)
    spoil(path, data)
    loads_or_says_why(
        lambda: D4RLReader(path, "corrupt", simulator=None, episode_length=None), tmp_path / "cache"
    )
