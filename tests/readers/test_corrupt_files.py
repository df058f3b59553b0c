"""Guarantee: a corrupt file is a DataError of one line, or it loads.

Valid Minari and D4RL files are corrupted at random: bytes, arrays, types, lengths, values and
metadata.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.minari_case import episode, write_minari

from offline_cql.errors import DataError
from offline_cql.readers import Reader, load
from offline_cql.readers.d4rl import D4RLReader
from offline_cql.readers.minari.store import MinariReader

pytestmark = pytest.mark.filterwarnings("ignore")  # casts of NaN warn

EPISODES, STEPS = 3, 4
NAME = "test/corrupt-v0"
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a valid Minari store and a valid D4RL file."""
    folder = tmp_path_factory.mktemp("valid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "store"))
        write_minari(NAME, [episode(number, STEPS) for number in range(EPISODES)])
    draw = np.random.default_rng(0)
    size = EPISODES * STEPS
    with h5py.File(folder / "d4rl.hdf5", "w") as file:
        file["observations"] = draw.normal(size=(size, 2))
        file["actions"] = draw.uniform(-1, 1, (size, 1))
        file["rewards"] = draw.normal(size=size)
        file["terminals"] = np.arange(size) % STEPS == STEPS - 1
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
    """Delete an array, or put a group or a link in its place."""
    with h5py.File(path, "a") as file:
        name = data.draw(st.sampled_from(array_names(file)))
        del file[name]
        links = h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x")
        replacement = data.draw(st.sampled_from([None, "group", *links]))
        if replacement == "group":
            file.create_group(name)
        elif replacement is not None:
            file[name] = replacement


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


CORRUPTIONS = [change_bytes, truncate, delete_array, replace_array, change_value]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def check_loads_or_refuses(make_reader: Callable[[], Reader], folder: Path) -> None:
    """Assert that a reader raises a DataError of one line or loads complete, finite data."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFLINE_CQL_CACHE", str(folder / "cache"))
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "store"))
        try:
            transitions = load(make_reader())
        except DataError as error:
            message = str(error).strip()
        else:
            assert np.isfinite(transitions.rows).all()
            assert transitions.ends[-1] == len(transitions)
            return
    assert message
    assert "\n" not in message


def copy_store(valid_files: Path, folder: Path) -> Path:
    """Copy the valid store into a folder; return the folder of the data set's files."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    shutil.copytree(valid_files / "store", folder / "store")
    return folder / "store" / NAME / "data"


# --- Guarantees -----------------------------------------------------------------------


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@FUZZ
@given(data=st.data())
def test_a_corrupt_minari_file_loads_or_is_refused(
    corrupt: Corruption, valid_files: Path, tmp_path: Path, data: st.DataObject
):
    corrupt(copy_store(valid_files, tmp_path) / "main_data.hdf5", data)
    check_loads_or_refuses(lambda: MinariReader(NAME), tmp_path)


@FUZZ
@given(data=st.data())
def test_corrupt_minari_metadata_load_or_are_refused(
    valid_files: Path, tmp_path: Path, data: st.DataObject
):
    path = copy_store(valid_files, tmp_path) / "metadata.json"
    metadata = json.loads(path.read_text())
    key = data.draw(st.sampled_from(sorted(metadata)))
    path.write_text(json.dumps(metadata | {key: data.draw(JSON)}))
    check_loads_or_refuses(lambda: MinariReader(NAME), tmp_path)


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
@FUZZ
@given(data=st.data())
def test_a_corrupt_d4rl_file_loads_or_is_refused(
    corrupt: Corruption, valid_files: Path, tmp_path: Path, data: st.DataObject
):
    path = tmp_path / "d4rl.hdf5"
    shutil.copy(valid_files / "d4rl.hdf5", path)
    corrupt(path, data)
    reader = D4RLReader(path, "corrupt", simulator=None, episode_length=None)
    check_loads_or_refuses(lambda: reader, tmp_path)
