"""Guarantee: a legacy file is read as D4RL's own transitions; a broken one is a one-line error."""

import itertools
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from offline_cql.errors import DataError
from offline_cql.readers import d4rl, load
from offline_cql.readers.d4rl import D4RLReader, ensure_task_file, task_path, tasks
from offline_cql.readers.download import file_sha256
from offline_cql.transitions import Spaces, Transitions

NUMBERS = itertools.count()  # names of files: the cache knows a file by name, size and time
WIDE = Spaces(2, 1, False, (-2.0,), (2.0,))


@pytest.fixture(autouse=True)
def data_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "d4rl").mkdir()


def arrays(size: int, *, ends=(), limits=(), **changes: Any) -> dict[str, Any]:
    """Return arrays of observations (i, -i), actions (i mod 1000)/1000 and rewards i of row i.

    ends: terminal rows; limits: rows with a timeout; changes: other arrays, None removes one.
    """
    rows = np.arange(size)
    content = {
        "observations": np.stack([rows, -rows], 1).astype(np.float32),
        "actions": (rows % 1000 / 1000).astype(np.float32)[:, None],
        "rewards": rows.astype(np.float32),
        "terminals": np.isin(rows, ends),
        "timeouts": np.isin(rows, limits),
    }
    return {name: array for name, array in (content | changes).items() if array is not None}


def write(path: Path, content: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in content.items():
            file[name] = array
    return path


def read(
    path: Path, *, simulator: Spaces | None = None, episode_length: int | None = None
) -> Transitions:
    return load(D4RLReader(path, "tiny", simulator=simulator, episode_length=episode_length))


# --- Transitions -----------------------------------------------------------------------


def reference(content: dict[str, Any], episode_length: int | None) -> dict[str, list[Any]]:
    """Return the rows that D4RL's qlearning_dataset keeps and the ends of episodes, row by row."""
    rows: dict[str, list[Any]] = {name: [] for name in ("row", "terminated", "ended")}
    step = 0
    for row in range(len(content["rewards"]) - 1):
        terminal = bool(content["terminals"].reshape(-1)[row])
        if "timeouts" in content:
            timeout = bool(content["timeouts"].reshape(-1)[row])
        else:
            timeout = step == episode_length - 1
        step += 1
        if terminal or timeout:
            step = 0
        if timeout:
            if rows["ended"]:
                rows["ended"][-1] = True
            continue
        rows["row"].append(row)
        rows["terminated"].append(terminal)
        rows["ended"].append(terminal)
    if rows["ended"]:
        rows["ended"][-1] = True  # nothing follows
    return rows


@st.composite
def files(draw: st.DrawFn) -> tuple[dict[str, Any], int, bool]:
    """Draw contents with overlapping ends, one-step and unfinished episodes; a length; a chunk."""
    size = draw(st.integers(2, 40))
    flags = st.lists(st.sampled_from([0, 0, 0, 1]), min_size=size, max_size=size)
    as_column = st.sampled_from([(size,), (size, 1)])
    dtype = st.sampled_from([np.bool_, np.uint8, np.float32])
    content = arrays(
        size,
        ends=np.flatnonzero(draw(flags)),
        limits=np.flatnonzero(draw(flags)),
        next_observations=np.full((size, 2), 1e6),  # has no effect
    )
    for name in ("terminals", "timeouts"):
        content[name] = content[name].reshape(draw(as_column)).astype(draw(dtype))
    content["rewards"] = content["rewards"].reshape(draw(as_column))
    if draw(st.booleans()):
        del content["timeouts"]
    return content, draw(st.integers(1, 10)), draw(st.sampled_from([1, 2, 5, 65_536]))


@hypothesis_settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(files())
def test_transitions_equal_those_of_the_reference(tmp_path, monkeypatch, drawn):
    content, length, chunk = drawn
    monkeypatch.setattr(d4rl, "CHUNK", chunk)
    path = write(tmp_path / f"{next(NUMBERS)}.hdf5", content)
    expected = reference(content, length)
    size = len(content["rewards"]) - 1
    dropped = size - len(expected["row"])
    if not expected["row"] or dropped > max(1, 0.5 * (size + 1)):
        with pytest.raises(DataError, match=r"holds no transitions|would be dropped"):
            read(path, episode_length=length)
        return
    data = read(path, episode_length=length)
    rows = np.array(expected["row"])
    assert data.observations[:, 0].tolist() == rows.tolist()
    assert data.next_observations[:, 1].tolist() == (-(rows + 1)).tolist()
    assert data.rewards.tolist() == rows.tolist()
    assert data.actions[:, 0] == pytest.approx(rows / 1000)
    assert data.terminated.tolist() == expected["terminated"]
    assert (data.ends - 1).tolist() == np.flatnonzero(expected["ended"]).tolist()


def test_transitions_of_a_file_worked_by_hand(tmp_path):
    """Episodes 0–2 (terminal), 3 (timeout), 4–5 (timeout), 6 (timeout and terminal), 7–8."""
    content = arrays(9, ends=[2, 6], limits=[3, 5, 6])
    data = read(write(tmp_path / "f.hdf5", content))
    assert data.observations[:, 0].tolist() == [0, 1, 2, 4, 7]
    assert data.next_observations[:, 0].tolist() == [1, 2, 3, 5, 8]
    assert data.terminated.tolist() == [False, False, True, False, False]
    assert data.truncated.tolist() == [False, False, False, True, True]
    assert data.lengths.tolist() == [3, 1, 1]
    assert data.repairs == {
        "steps_dropped_at_timeouts": 3,
        "terminals_dropped_at_timeouts": 1,
        "last_step_dropped": 1,
        "unfinished_last_episode": 1,
    }


def test_without_timeouts_steps_are_counted_from_the_last_terminal_step(tmp_path):
    """Episodes have 4 steps: rows 0–1 (terminal), 2–5, 6–9, 10."""
    content = arrays(11, ends=[1], timeouts=None)
    data = read(write(tmp_path / "f.hdf5", content), episode_length=4)
    assert data.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert data.lengths.tolist() == [2, 3, 3]


def test_only_a_few_chunks_are_in_memory_at_a_time(tmp_path, monkeypatch):
    size, chunk = 200_000, 8_192
    content = arrays(size, limits=np.arange(999, size, 1000))
    content["observations"] = np.zeros((size, 50), np.float32)
    path = write(tmp_path / "f.hdf5", content)
    monkeypatch.setattr(d4rl, "CHUNK", chunk)
    tracemalloc.start()
    data = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == size - size // 1000
    assert peak < 8 * chunk * 50 * 4, f"{peak / 1e6:.0f} MB for observations of 40 MB"


# --- Spaces ----------------------------------------------------------------------------


def test_without_a_simulator_sizes_are_the_files_and_bounds_are_d4rls(tmp_path):
    path = write(tmp_path / "f.hdf5", arrays(5, actions=np.full((5, 3), 0.5)))
    assert read(path).spaces == Spaces(2, 3, False, (-1.0,) * 3, (1.0,) * 3)
    beyond = write(tmp_path / "g.hdf5", arrays(5, actions=np.full((5, 1), 1.5)))
    with pytest.raises(DataError, match=r"actions are outside \(-1.0,.*4 of 4 steps"):
        read(beyond)
    assert read(beyond, simulator=WIDE).actions.tolist() == [[0.75]] * 4
    for other in (replace(WIDE, observation_dim=3), Spaces(2, 1, True, (), ())):
        with pytest.raises(DataError, match=r"observations of 2 and actions of 1 .* env=logged"):
            read(beyond, simulator=other)


# --- Invalid files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, r"has no rewards; the file has actions, obs"),
        ({"timeouts": None}, r"has no timeouts and there is no simulator with a time limit"),
        ({"terminals": np.zeros(5, bool)}, r"arrays differ in length: .*'terminals': 5"),
        ({"actions": np.zeros(6)}, r"actions has shape \(6,\), expected \[N, D\]"),
        ({"rewards": np.zeros((6, 2))}, r"rewards has shape \(6, 2\), expected \[N\]"),
        ({"rewards": np.float32(1)}, r"rewards has shape \(\), expected \[N\]"),
        ({"observations": np.zeros((6, 0))}, r"observations has shape \(6, 0\)"),
        ({"rewards": ["a"] * 6}, r"rewards has dtype object, expected numbers"),
        ({"rewards": np.zeros(6, complex)}, r"rewards has dtype complex128, expected numbers"),
        ({"terminals": np.full(6, 2)}, r"terminals at row 0 is 2, expected 0 or 1"),
        ({"terminals": np.full(6, np.nan)}, r"terminals at row 0 is nan, expected 0 or 1"),
        ({"rewards": np.full(6, np.nan)}, r"rewards contain NaN or infinity at 5 of 5 steps"),
        ({"rewards": h5py.SoftLink("/actions")}, r"rewards is a soft or external link"),
        ({"x": h5py.ExternalLink("/etc/x", "/a")}, r"x is a soft or external link"),
    ],
)
def test_a_file_that_is_not_in_the_layout_is_refused(tmp_path, changes, message):
    path = write(tmp_path / "f.hdf5", arrays(6, **changes))
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("size", [0, 1])
def test_a_file_without_a_transition_is_refused(tmp_path, size):
    with pytest.raises(DataError, match="tiny holds no transitions"):
        read(write(tmp_path / "f.hdf5", arrays(size)))


def add_virtual(file):
    layout = h5py.VirtualLayout((6,), float)
    layout[:] = h5py.VirtualSource("other.hdf5", "rewards", (6,))
    file.create_virtual_dataset("rewards", layout)


def add_external(file):
    file.create_dataset("rewards", (6,), float, external=[("other.bin", 0, 48)])


def add_with_an_unknown_filter(file):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((6,))
    settings.set_filter(32_999, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((6,))
    h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_FLOAT, space, settings)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda file: file.create_group("rewards"), "rewards is not an array"),
        (add_virtual, "rewards is stored in another file"),
        (add_external, "rewards is stored in another file"),
        (add_with_an_unknown_filter, r"rewards is compressed by filter 32999 .*h5repack"),
    ],
)
def test_rewards_that_h5py_would_read_elsewhere_or_not_at_all_are_refused(tmp_path, add, message):
    path = write(tmp_path / "f.hdf5", arrays(6, rewards=None))
    with h5py.File(path, "a") as file:
        add(file)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_a_remedy(tmp_path, share):
    path = write(tmp_path / "f.hdf5", arrays(5_000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"f\.hdf5 (cannot be read|is empty) \(.*: put an"):
        read(path)


def test_a_flipped_byte_is_detected_by_the_hash_of_the_download(tmp_path):
    path = write(tmp_path / "f.hdf5", arrays(5_000))
    good = file_sha256(path)
    path.with_name("f.hdf5.sha256").write_text(f"{good}  f.hdf5\n")
    assert len(read(path)) == 4_999
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"is not the file that .*expected {good[:12]}….*rm"):
        read(path)


def test_a_header_that_declares_more_than_the_disk_holds_is_refused_unread(tmp_path):
    path = tmp_path / "f.hdf5"
    with h5py.File(path, "w") as file:
        for name, shape in (("observations", (2,)), ("actions", (1,)), ("rewards", ())):
            file.create_dataset(name, (10**12, *shape), np.float32, chunks=(1000, *shape))
        for name in ("terminals", "timeouts"):
            file.create_dataset(name, (10**12,), bool, chunks=(1000,))
    with pytest.raises(DataError, match=r"has 999,999,999,999 steps, .* GB are free"):
        read(path)


def test_a_missing_file_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match=r"none\.hdf5 is not a file: set dataset\.path or"):
        read(tmp_path / "none.hdf5")


# --- Names and locations ---------------------------------------------------------------


def test_every_task_has_an_address_and_both_references_or_neither():
    assert len(tasks()) == 155
    for name, task in tasks().items():
        assert set(task) == {"url", "ref_min", "ref_max"}, name
        assert task["url"].startswith("http://rail.eecs.berkeley.edu/datasets/offline_rl/")
        assert task["url"].endswith(".hdf5")
        assert (task["ref_min"] is None) == (task["ref_max"] is None)
    assert tasks()["hopper-medium-v2"]["ref_max"] == 3234.3


def test_an_unknown_task_is_refused_with_similar_names():
    with pytest.raises(DataError, match=r"hoper-medium-v2 is not a task .* did you mean hopper"):
        task_path("hoper-medium-v2")
    with pytest.raises(DataError, match=r"\?\? is not a task of D4RL; example: hopper-me"):
        task_path("??")


def test_the_path_of_a_task(tmp_path, monkeypatch):
    name = "hopper_medium_replay-v2.hdf5"
    assert task_path("hopper-medium-replay-v2") == tmp_path / "d4rl" / name
    monkeypatch.delenv("D4RL_DATASET_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert task_path("hopper-medium-replay-v2") == tmp_path / ".d4rl" / "datasets" / name


def test_an_existing_file_opens_no_connection(tmp_path, monkeypatch):
    path = write(task_path("hopper-medium-v2"), arrays(6))
    monkeypatch.setattr(d4rl, "download", None)
    assert ensure_task_file("hopper-medium-v2") == path


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    path = write(tmp_path / "f.hdf5", arrays(6))
    reader = D4RLReader(path, "tiny", simulator=None, episode_length=None)
    first = load(reader)
    metadata = list((tmp_path / "cache" / "metadata").iterdir())
    assert load(reader).sha256 == first.sha256
    assert list((tmp_path / "cache" / "metadata").iterdir()) == metadata
    other = D4RLReader(path, "tiny", simulator=WIDE, episode_length=None)
    assert (load(other).actions == first.actions / 2).all()
    write(path, arrays(9))
    assert len(load(reader)) == 8
