"""Guarantee: a data set is read once; cached content is complete and matches the files of today.

The data sets are small files with a reader of a few lines; other processes are real processes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.io import cache_root
from offline_cql.readers import Steps, TransitionWriter, load
from offline_cql.readers.writer import file_signature
from offline_cql.transitions import Spaces, Transitions

SPACES = Spaces(2, 1, False, (-1.0,), (1.0,))


class Numbers:
    """Reads a file of float64, one reward per step, in episodes of three; logs each reading."""

    def __init__(self, path: Path, name: str = "test/numbers-v0", pause: float = 0.0):
        self.path, self.dataset_id, self.pause = path, name, pause

    def fingerprint(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise DataError(f"{self.path} is missing")
        return {"file": file_signature(self.path)}

    def spaces(self) -> Spaces:
        return SPACES

    def read(self, writer: TransitionWriter) -> None:
        with self.path.with_suffix(".readings").open("a") as file:
            file.write(f"{os.getpid()}\n")
        rewards = np.fromfile(self.path)
        writer.observation_names = ("x", "v")
        writer.count_repair("repaired", 2)
        for start in range(0, len(rewards), 3):
            episode = rewards[start : start + 3]
            last = np.arange(len(episode)) == 2
            observations = np.stack([episode, -episode], axis=1)
            never = np.zeros(len(episode), bool)
            actions = episode[:, None] / 100
            writer.append(Steps(observations, actions, episode, observations, last, never))
            time.sleep(self.pause)

    def readings(self) -> int:
        path = self.path.with_suffix(".readings")
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    return numbers_in(tmp_path / "one.f64")


def numbers_in(path: Path, *, size: int = 9, first: float = 0.0, **options: Any) -> Numbers:
    (first + np.arange(size, dtype=np.float64)).tofile(path)
    return Numbers(path, **options)


def assert_equal(one: Transitions, other: Transitions) -> None:
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.ends, other.ends)
    for name in ("spaces", "dataset_id", "sha256", "repairs", "observation_names", "action_names"):
        assert getattr(one, name) == getattr(other, name)


def contents(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "content").iterdir())


# --- Reading once ---------------------------------------------------------------------------------


def test_a_data_set_is_read_once(numbers: Numbers):
    first, second = load(numbers), load(numbers)
    assert numbers.readings() == 1
    assert_equal(second, first)
    assert first.rewards.tolist() == list(range(9))
    assert first.ends.tolist() == [3, 6, 9]
    assert (first.repairs, first.observation_names) == ({"repaired": 2}, ("x", "v"))
    assert isinstance(second.rows, np.memmap)


def test_a_cached_data_set_needs_only_the_fingerprint_of_its_reader(numbers: Numbers):
    """The second load reads neither the spaces nor the file."""
    load(numbers)
    again = Numbers(numbers.path)
    again.spaces = again.read = None  # type: ignore[assignment, method-assign]
    assert len(load(again)) == 9


def test_writing_to_loaded_rows_leaves_the_cache_unchanged(numbers: Numbers):
    """The memory map is copied on write: training cannot corrupt the data of other runs."""
    load(numbers).rows[:] = 7.0
    assert load(numbers).rewards.tolist() == list(range(9))


@pytest.mark.parametrize(("size", "first"), [(12, 0.0), (9, 50.0)])
def test_a_file_whose_size_or_time_changed_is_read_again(numbers: Numbers, size: int, first: float):
    before, modified = load(numbers), numbers.path.stat().st_mtime_ns
    numbers_in(numbers.path, size=size, first=first)
    os.utime(numbers.path, ns=(modified, modified + (size == 9)))
    after = load(numbers)
    assert numbers.readings() == 2
    assert after.sha256 != before.sha256
    assert (len(after), after.rewards[0]) == (size, first)
    assert before.rewards.tolist() == list(range(9))  # an open map keeps its content


def test_two_readers_of_one_file_have_their_own_cache_entries(numbers: Numbers):
    """The fingerprint of the file alone would confuse them."""

    class Doubled(Numbers):
        def spaces(self) -> Spaces:
            return Spaces(2, 1, False, (-2.0,), (2.0,))

    assert load(Doubled(numbers.path)).spaces != load(numbers).spaces


def test_equal_content_is_stored_once_under_both_ids(numbers: Numbers, cache: Path):
    other = numbers_in(numbers.path.with_name("two.f64"), name="test/other-v0")
    first, second = load(numbers), load(other)
    assert contents(cache) == [first.sha256] == [second.sha256]
    assert (first.dataset_id, second.dataset_id) == ("test/numbers-v0", "test/other-v0")
    assert load(numbers).dataset_id == "test/numbers-v0"


# --- Several processes ----------------------------------------------------------------------------


def test_two_processes_at_the_same_time_read_once_and_one_waits(numbers: Numbers):
    first = start_loading(numbers, pause=0.5)
    wait_until(lambda: numbers.readings() == 1)
    second = start_loading(numbers, pause=0.5)
    _, error = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert error == "another process is reading test/numbers-v0: waiting for it\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert load(numbers).rewards.tolist() == list(range(9))
    assert numbers.readings() == 1


def test_a_killed_process_leaves_only_temporary_files(numbers: Numbers, cache: Path):
    """Killed between two episodes: no metadata, no content; the next process reads everything."""
    process = start_loading(numbers, pause=60.0)
    wait_until(lambda: numbers.readings() == 1 and list(cache.glob("building/*/rows.f32")))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(cache.glob("building/*"))
    assert not (cache / "content").exists()
    assert not list(cache.glob("metadata/*.json"))
    assert load(numbers).rewards.tolist() == list(range(9))
    assert not list(cache.glob("building/*"))


def test_a_refused_data_set_leaves_no_files(tmp_path: Path, cache: Path):
    bad = numbers_in(tmp_path / "bad.f64", first=np.nan)
    for _ in range(2):
        with pytest.raises(DataError, match="NaN"):
            load(bad)
    assert bad.readings() == 2
    assert not list(cache.glob("building/*"))
    assert not (cache / "content").exists()


def start_loading(numbers: Numbers, *, pause: float) -> "subprocess.Popen[str]":
    """Start a process that loads the file slowly."""
    code = "from pathlib import Path; from test_cache import Numbers, load\n"
    code += f"load(Numbers(Path({str(numbers.path)!r}), pause={pause}))"
    folder, command = Path(__file__).parent, [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Damaged caches -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.f32", "ends.i64"])
@pytest.mark.parametrize("damage", ["truncated", "longer", "deleted"])
def test_damaged_content_is_read_again_with_a_warning(
    numbers: Numbers, cache: Path, capsys: Any, name: str, damage: str
):
    first = load(numbers)
    path = cache / "content" / first.sha256 / name
    whole = path.read_bytes()
    path.unlink()  # a new file takes its place: the map of `first` keeps the old one
    if damage != "deleted":
        path.write_bytes(whole[:-4] if damage == "truncated" else whole + b"1234")
    again = load(numbers)
    printed = capsys.readouterr().err
    assert f"warning: {path} " in printed
    assert printed.count("warning") == 1
    assert printed.endswith("reading the data again\n")
    assert numbers.readings() == 2
    assert_equal(again, first)
    assert path.read_bytes() == whole
    load(numbers)
    assert (numbers.readings(), capsys.readouterr().err) == (2, "")


def test_damaged_content_with_the_same_hash_is_replaced(numbers: Numbers, cache: Path):
    """Content of the same hash exists but is too short: it is not used."""
    first = load(numbers)
    rows = cache / "content" / first.sha256 / "rows.f32"
    rows.unlink()
    rows.write_bytes(b"")
    other = numbers_in(numbers.path.with_name("two.f64"))
    assert load(other).rewards.tolist() == list(range(9))
    assert_equal(load(numbers), first)
    assert numbers.readings() == 1


@pytest.mark.parametrize("text", ["", "{", "not json"])
def test_metadata_that_are_not_json_are_written_again(
    numbers: Numbers, cache: Path, capsys: Any, text: str
):
    first = load(numbers)
    (metadata,) = cache.glob("metadata/*.json")
    metadata.write_text(text)
    assert_equal(load(numbers), first)
    assert f"warning: {metadata} is not JSON (" in capsys.readouterr().err
    assert json.loads(metadata.read_text())["metadata"]["sha256"] == first.sha256


@pytest.mark.parametrize("folder", ["content", "metadata", "."])
def test_any_folder_of_the_cache_can_be_deleted(numbers: Numbers, cache: Path, folder: str):
    first = load(numbers)
    shutil.rmtree(cache / folder)
    assert_equal(load(numbers), first)
    assert first.rewards.tolist() == list(range(9))


# --- Location -------------------------------------------------------------------------------------


def test_the_cache_root_is_configurable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("OFFLINE_CQL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "offline_cql"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "offline_cql"


def test_a_missing_source_is_refused_although_it_was_read_before(numbers: Numbers):
    load(numbers)
    numbers.path.unlink()
    with pytest.raises(DataError, match="is missing"):
        load(numbers)
