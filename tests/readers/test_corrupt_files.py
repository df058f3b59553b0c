"""Guarantee: a corrupt file is a DataError of one line, or it loads.

Valid Minari and D4RL files are corrupted at random: bytes, arrays, types, lengths, values and
metadata.
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

pytestmark = pytest.mark.filterwarnings("ignore")  # Minari asks for an author; casts of NaN warn

EPISODES, STEPS = 3, 4
NAME = "test/corrupt-v0"
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a valid Minari store and a valid D4RL file."""
    folder = tmp_path_factory.mktemp("valid")
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


# --- Corruptions ----------------------------------------------------------------------

Corruption = Callable[[Path, st.DataObject], None]
VALUES = st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, 5.0, -999.0])
TYPES = st.sampled_from(["f8", "f4", "i8", "u1", "bool", "c8", "S4", "f2"])


def change_bytes(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))


def truncate(path: Path, data: st.DataObject) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])


def array_names(file: h5py.File) -> list[str]:
    """Return the paths of all arrays."""
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return sorted(names)


def delete_array(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        del file[data.draw(st.sampled_from(array_names(file)))]


def replace_array(path: Path, data: st.DataObject) -> None:
    """Replace an array by one of another type or length, or by a scalar."""
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(array_names(file)))
        values = file[name][()]
        del file[name]
        shape = data.draw(
            st.sampled_from([values.shape, (0,), (3,), (4, 1), (5, 2), (1, 2, 3), ()])
        )
        file[name] = np.ones(shape).astype(data.draw(TYPES))


def change_value(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        values = file[data.draw(st.sampled_from(array_names(file)))]
        where = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
        value = data.draw(VALUES)
        if values.dtype.kind != "f":
            value = np.clip(np.nan_to_num(value), 0, 100)
        values[where] = value


def replace_by_group(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(array_names(file)))
        del file[name]
        file.create_group(name)


def replace_by_link(path: Path, data: st.DataObject) -> None:
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(array_names(file)))
        del file[name]
        links = h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")
        file[name] = data.draw(st.sampled_from(links))


CORRUPTIONS = [
    change_bytes,
    truncate,
    delete_array,
    replace_array,
    change_value,
    replace_by_group,
    replace_by_link,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def check_loads_or_refuses(make_reader: Callable[[], Reader], cache: Path) -> None:
    """Assert that a reader raises a DataError of one line or loads complete, finite data."""
    shutil.rmtree(cache, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFLINE_CQL_CACHE", str(cache))
        try:
            transitions: Transitions | None = load(make_reader())
        except DataError as error:
            message = str(error)
            transitions = None
    if transitions is None:
        assert message.strip()
        assert "\n" not in message.strip()
        return
    assert np.isfinite(transitions.rows).all()
    assert transitions.ends[-1] == len(transitions)


# --- Guarantees -----------------------------------------------------------------------


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@FUZZ
@given(data=st.data())
def test_a_corrupt_minari_file_loads_or_is_refused(
    corrupt: Corruption, valid_files: Path, tmp_path: Path, data: st.DataObject
):
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(valid_files / "store", store)
    corrupt(store / NAME / "data" / "main_data.hdf5", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store))
        check_loads_or_refuses(lambda: MinariReader(NAME), tmp_path / "cache")


@FUZZ
@given(data=st.data())
def test_corrupt_minari_metadata_load_or_are_refused(
    valid_files: Path, tmp_path: Path, data: st.DataObject
):
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(valid_files / "store", store)
    path = store / NAME / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(metadata)))
    metadata[key] = data.draw(JSON)
    path.write_text(json.dumps(metadata))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(store))
        check_loads_or_refuses(lambda: MinariReader(NAME), tmp_path / "cache")


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@FUZZ
@given(data=st.data())
def test_a_corrupt_d4rl_file_loads_or_is_refused(
    corrupt: Corruption, valid_files: Path, tmp_path: Path, data: st.DataObject
):
    path = tmp_path / "d4rl.hdf5"
    shutil.copy(valid_files / "d4rl.hdf5", path)
    corrupt(path, data)
    check_loads_or_refuses(
        lambda: D4RLReader(path, "corrupt", simulator=None, episode_length=None), tmp_path / "cache"
    )
