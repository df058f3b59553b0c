"""Guarantee: a data set is read once; cached content is complete and matches the files of today.

The sources here are real files read by a source of three lines; other processes are processes.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.readers import Steps, TransitionWriter, load
from offline_cql.readers.cache import cache_root
from offline_cql.readers.writer import file_signature
from offline_cql.transitions import Spaces, Transitions

SPACES = Spaces(2, 1, False, (-1.0,), (1.0,))


class Numbers:
    """A file of float64, one reward per step, in episodes of three steps; it notes each reading."""

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
            own = rewards[start : start + 3]
            last = np.arange(len(own)) == 2
            observations = np.stack([own, -own], axis=1)
            never = np.zeros(len(own), bool)
            writer.append(Steps(observations, own[:, None] / 100, own, observations, last, never))
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


# --- Once -----------------------------------------------------------------------------------------


def test_the_second_time_nothing_is_read(numbers: Numbers):
    first, second = load(numbers), load(numbers)
    assert numbers.readings() == 1
    assert_equal(second, first)
    assert first.rewards.tolist() == list(range(9))
    assert first.ends.tolist() == [3, 6, 9]
    assert (first.repairs, first.observation_names) == ({"repaired": 2}, ("x", "v"))
    assert isinstance(second.rows, np.memmap)


def test_the_cache_needs_no_more_of_the_source_than_its_fingerprint(numbers: Numbers):
    """The second time neither the spaces nor the file are asked for."""
    load(numbers)
    again = Numbers(numbers.path)
    again.spaces = again.read = None  # type: ignore[assignment, method-assign]
    assert len(load(again)) == 9


def test_a_map_changes_nothing_in_the_cache(numbers: Numbers):
    """It is copied on writing: training could not spoil the data for others."""
    load(numbers).rows[:] = 7.0
    assert load(numbers).rewards.tolist() == list(range(9))


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_read_again(numbers: Numbers, change: str):
    before = load(numbers)
    if change == "size":
        numbers_in(numbers.path, size=12)
    else:
        found = numbers.path.stat()
        numbers_in(numbers.path, first=50.0)
        os.utime(numbers.path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    after = load(numbers)
    assert numbers.readings() == 2
    assert after.sha256 != before.sha256
    assert len(after) == (12 if change == "size" else 9)
    assert after.rewards[0] == (0 if change == "size" else 50)
    assert before.rewards.tolist() == list(range(9))  # whoever has it open keeps it


def test_two_kinds_of_source_are_two(numbers: Numbers):
    """The same file read in two ways: the fingerprint alone would confuse them."""

    class Doubled(Numbers):
        def spaces(self) -> Spaces:
            return Spaces(2, 1, False, (-2.0,), (2.0,))

    assert load(Doubled(numbers.path)).spaces != load(numbers).spaces


def test_the_same_content_is_stored_once_and_keeps_its_names(numbers: Numbers, cache: Path):
    other = numbers_in(numbers.path.with_name("two.f64"), name="test/other-v0")
    first, second = load(numbers), load(other)
    assert contents(cache) == [first.sha256] == [second.sha256]
    assert (first.dataset_id, second.dataset_id) == ("test/numbers-v0", "test/other-v0")
    assert load(numbers).dataset_id == "test/numbers-v0"


# --- Several processes ----------------------------------------------------------------------------


def load_and_tell(path: Path, answers: Any) -> None:
    answers.put((os.getpid(), load(Numbers(path, pause=0.2)).sha256))


def test_two_processes_at_once_read_once(numbers: Numbers):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    made = [spawn.Process(target=load_and_tell, args=(numbers.path, answers)) for _ in range(2)]
    for process in made:
        process.start()
    found = dict(answers.get(timeout=60) for _ in made)
    for process in made:
        process.join(timeout=60)
    assert numbers.readings() == 1
    assert set(found) == {process.pid for process in made}
    assert set(found.values()) == {load(numbers).sha256}


def test_a_process_that_waits_says_so(numbers: Numbers):
    first = started(numbers, pause=0.5)
    wait_until(lambda: numbers.readings() == 1)
    second = started(numbers, pause=0.5)
    _, error = second.communicate(timeout=60)
    first.communicate(timeout=60)
    assert error == "another process is reading test/numbers-v0: waiting for it\n"
    assert (first.returncode, second.returncode, numbers.readings()) == (0, 0, 1)


def test_a_killed_process_leaves_nothing_that_is_used(numbers: Numbers, cache: Path):
    """Killed between two episodes: no note, no content; the next one reads it all."""
    process = started(numbers, pause=60.0)
    wait_until(lambda: numbers.readings() == 1 and list(cache.glob("building/*/rows.f32")))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(cache.glob("building/*"))
    assert not (cache / "content").exists()
    assert not list(cache.glob("metadata/*.json"))
    assert load(numbers).rewards.tolist() == list(range(9))
    assert not list(cache.glob("building/*"))


def test_a_source_that_is_refused_leaves_nothing(tmp_path: Path, cache: Path):
    bad = numbers_in(tmp_path / "bad.f64", first=np.nan)
    for _ in range(2):
        with pytest.raises(DataError, match="NaN"):
            load(bad)
    assert bad.readings() == 2
    assert not list(cache.glob("building/*"))
    assert not (cache / "content").exists()


def started(numbers: Numbers, *, pause: float) -> "subprocess.Popen[str]":
    """A process that loads the file, slowly."""
    code = (
        "import sys; sys.path[:0] = ['tests/readers', 'tests']; from pathlib import Path\n"
        "from test_cache import Numbers, load\n"
        f"load(Numbers(Path({str(numbers.path)!r}), pause={pause}))"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)


def wait_until(there: Any) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.f32", "ends.i64"])
@pytest.mark.parametrize("damage", ["truncated", "longer", "deleted"])
def test_damaged_content_is_read_again_and_said(
    numbers: Numbers, cache: Path, capsys: Any, name: str, damage: str
):
    first = load(numbers)
    path = cache / "content" / first.sha256 / name
    whole = path.read_bytes()
    path.unlink()  # another file is put there: `first` keeps its own
    if damage != "deleted":
        path.write_bytes(whole[:-4] if damage == "truncated" else whole + b"1234")
    again = load(numbers)
    shown = capsys.readouterr().err
    assert f"warning: {path} " in shown
    assert shown.count("warning") == 1
    assert shown.endswith("reading the data again\n")
    assert numbers.readings() == 2
    assert_equal(again, first)
    assert path.read_bytes() == whole
    load(numbers)
    assert (numbers.readings(), capsys.readouterr().err) == (2, "")


def test_a_content_folder_that_was_deleted_is_made_again(
    numbers: Numbers, cache: Path, capsys: Any
):
    first = load(numbers)
    folder = cache / "content" / first.sha256
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert_equal(load(numbers), first)
    assert "is missing" in capsys.readouterr().err


def test_damaged_content_of_another_source_is_replaced(numbers: Numbers, cache: Path):
    """Content of the same hash is there but short: it is not taken for the right one."""
    first = load(numbers)
    rows = cache / "content" / first.sha256 / "rows.f32"
    rows.unlink()
    rows.write_bytes(b"")
    other = numbers_in(numbers.path.with_name("two.f64"))
    assert load(other).rewards.tolist() == list(range(9))
    assert_equal(load(numbers), first)
    assert numbers.readings() == 1


@pytest.mark.parametrize("text", ["", "{", "not json"])
def test_a_note_that_is_no_json_is_made_again(
    numbers: Numbers, cache: Path, capsys: Any, text: str
):
    first = load(numbers)
    (note,) = cache.glob("metadata/*.json")
    note.write_text(text)
    assert_equal(load(numbers), first)
    assert f"warning: {note} is not JSON; reading the data again" in capsys.readouterr().err
    assert json.loads(note.read_text())["sha256"] == first.sha256


def test_everything_may_be_deleted_at_any_time(numbers: Numbers, cache: Path):
    first = load(numbers)
    shutil.rmtree(cache)
    assert_equal(load(numbers), first)
    assert first.rewards.tolist() == list(range(9))


# --- Where it is ----------------------------------------------------------------------------------


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
