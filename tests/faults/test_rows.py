"""Guarantee: bytes that changed since they were written are never trained on.

Cached rows and their notes, recorded data sets, and the files of others between a run and its
continuation; one flipped bit each, with size and modification time as before.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.config import run_entry_point, settings

from offline_cql.errors import DataError
from offline_cql.io import cache_root, read_json
from offline_cql.readers import load
from offline_cql.readers.checksums import ChunkChecksums, file_checksums, verify
from offline_cql.readers.minari.store import MinariReader, dataset_path
from offline_cql.simulation.collect import record

SMALL = ("env=pendulum", "dataset.size=400")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of a small recorded data set in a store and a cache of their own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    config = settings(*SMALL, entry_point="collect")
    return record(config.env, config.dataset)


def flip(path: Path, position: int, *, keep_time: bool = True) -> None:
    """Flip the lowest bit of one byte; size and modification time stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", ["rows.f32", "ends.i64"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_bit_in_the_cache_is_read_again(
    store: str, capsys: pytest.CaptureFixture[str], name: str, position: int
):
    first = load(MinariReader(store)).rows.copy()
    (path,) = cache_root().glob(f"content/*/{name}")
    flip(path, position)
    assert np.array_equal(load(MinariReader(store)).rows, first)
    assert f"warning: {path} is corrupt" in capsys.readouterr().err
    assert np.array_equal(load(MinariReader(store)).rows, first)
    assert capsys.readouterr().err == ""  # the copy was replaced


@pytest.mark.parametrize(
    "change",
    [
        lambda note: [],
        lambda note: {},
        lambda note: note["metadata"],
        lambda note: note | {"metadata": note["metadata"] | {"size": 3}},
        lambda note: note | {"metadata": note["metadata"] | {"sha256": "../../elsewhere"}},
        lambda note: note | {"metadata": 7, "checksum": None},
    ],
    ids=["list", "empty", "older form", "size", "path", "number"],
)
def test_notes_of_the_cache_with_other_content_are_written_again(
    store: str, capsys: pytest.CaptureFixture[str], change: Any
):
    first = load(MinariReader(store)).rows.copy()
    (note,) = cache_root().glob("metadata/*.json")
    note.write_text(json.dumps(change(read_json(note))))
    assert np.array_equal(load(MinariReader(store)).rows, first)
    assert f"warning: {note} is corrupt" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_flipped_bit_in_a_recorded_data_set_is_refused(store: str, name: str):
    path = dataset_path(store) / "data" / name
    flip(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=rf"{name} is corrupt.*delete .* and record"):
        load(MinariReader(store))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}'])
def test_a_damaged_manifest_is_refused(store: str, text: str):
    (dataset_path(store) / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest.json is (corrupt|not JSON).*: delete"):
        load(MinariReader(store))


def test_a_data_set_without_manifest_is_read(store: str):
    """Data of others have none."""
    (dataset_path(store) / "manifest.json").unlink()
    assert len(load(MinariReader(store))) == 400


@pytest.mark.slow
def test_a_table_that_changed_is_not_continued_with(tmp_path: Path):
    """After 20 updates one reward of the file changes from 0.5 to 0.25 and the cache is lost."""
    table = tmp_path / "log.csv"
    rows = [f"{i % 3},{(i % 5) / 5 - 0.4},0.5,{int(i % 10 == 9)}" for i in range(200)]
    table.write_text("\n".join(["obs_x,action_u,reward,terminated", *rows]))
    data = ("env=logged", "dataset=table", f"dataset.path={table}", "logger=csv")
    run = run_entry_point(
        *("train", *data, "updates=20", "batch_size=8", "checkpoint_every=20", "log_every=20"),
        f"run_dir={tmp_path}/run",
    )
    assert run.returncode == 0, run.stderr
    text = table.read_text()
    table.write_text(text.replace(",0.5,", ",0.25,", 1))
    again = run_entry_point("train", f"resume={tmp_path}/run", "updates=40")
    assert again.returncode == 2
    assert "sha256" in again.stderr


def test_checksums_do_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Chunks of 4 bytes: 10 bytes have 3, in whatever pieces they come."""
    monkeypatch.setattr("offline_cql.readers.checksums.CHUNK_BYTES", 4)
    (tmp_path / "file").write_bytes(bytes(range(10)))
    expected = file_checksums(tmp_path / "file")
    assert len(expected) == 3
    for sizes in ([10], [3, 3, 4], [5, 0, 5], [1] * 10):
        checksums, position = ChunkChecksums(), 0
        for size in sizes:
            checksums.update(memoryview(bytes(range(position, position + size))))
            position += size
        assert checksums.values() == expected
    flip(tmp_path / "file", 6)
    with pytest.raises(DataError, match="the checksum of its bytes from 4 on has changed"):
        verify(tmp_path, {"file": expected}, "remedy")
    (tmp_path / "file").write_bytes(bytes(range(8)))
    with pytest.raises(DataError, match="the checksum of its bytes from 8 on has changed"):
        verify(tmp_path, {"file": expected}, "remedy")


def test_an_empty_file_has_no_checksums(tmp_path: Path):
    (tmp_path / "file").touch()
    assert file_checksums(tmp_path / "file") == []
