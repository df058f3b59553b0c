"""Guarantee: a remote data set is downloaded once, whole or not at all.

A local server speaks as much of the Hugging Face Hub's protocol as Minari's client needs.
"""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.minari import download as minari_download
from offline_cql.readers.minari.download import catalog, ensure_stored
from offline_cql.readers.minari.store import MinariReader, dataset_path, is_stored

NAME = "D4RL/door/human-v2"
REPOSITORY = "farama-minari/D4RL"
COMMIT = "a" * 40
INSTEAD = "env=hopper dataset=simulated"


class Remote(http.server.ThreadingHTTPServer):
    """files: path in the repository to content. fault: what goes wrong with the HDF5 file."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files, self.fault, self.asked = files, None, []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Remote

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        if self.server.fault == "silent":
            time.sleep(5)
        if self.server.fault == "500":
            self.send_error(500)
        elif path == "/api/datasets":
            self.json([{"id": REPOSITORY, "sha": COMMIT}])
        elif path.startswith(f"/api/datasets/{REPOSITORY}/tree/"):
            self.json([self.entry(name) for name in self.server.files])
        elif path.startswith(f"/api/datasets/{REPOSITORY}"):
            self.json({"id": REPOSITORY, "sha": COMMIT, "siblings": []})
        else:
            name = path.partition("/resolve/")[2].partition("/")[2]
            self.file(name) if name in self.server.files else self.send_error(404)

    def entry(self, name):
        content = self.server.files[name]
        return {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }

    def json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def file(self, name):
        content = self.server.files[name]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        faulty = name.endswith(".hdf5") and self.command == "GET"
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        rest = content[start:]
        if faulty and self.server.fault == "short":  # says so, and sends no more
            rest = rest[: len(rest) // 2]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if faulty and self.server.fault == "broken":  # says all, sends half, hangs up
            rest = rest[: len(rest) // 2]
        if faulty and self.server.fault == "slow":
            time.sleep(1.5)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(rest)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The files of a small real data set, as the remote has them."""
    root = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        generator = np.random.default_rng(0)
        episodes = [
            EpisodeBuffer(
                observations=generator.normal(size=(501, 4)),
                actions=generator.uniform(-1, 1, (500, 2)).astype(np.float32),
                rewards=list(generator.normal(size=500)),
                terminations=[False] * 500,
                truncations=[False] * 499 + [True],
                infos={},
            )
            for _ in range(4)
        ]
        minari.create_dataset_from_buffers(
            NAME,
            episodes,
            observation_space=minari_space(4),
            action_space=minari_space(2),
        )
    top = root / "D4RL"
    files = {f.relative_to(top).as_posix(): f.read_bytes() for f in (top / "door").rglob("*.*")}
    return files | {"namespace_metadata.json": json.dumps({"datasets": [NAME]}).encode()}


def minari_space(size):
    return gym.spaces.Box(-1, 1, (size,), np.float32)


@pytest.fixture
def remote(content, tmp_path, monkeypatch):
    server = Remote(content)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()


def nothing_half_done():
    folder = dataset_path(NAME)
    return not folder.exists() and not is_stored(NAME)


def test_a_data_set_that_is_absent_is_downloaded_and_readable(remote):
    data = load(MinariReader(ensure_stored(NAME, instead=INSTEAD)))
    assert (len(data), len(data.ends)) == (2000, 4)
    assert NAME in minari.list_local_datasets()  # in a namespace that Minari knows
    assert not list((dataset_path(NAME).parents[2] / ".downloading").iterdir())


def test_nothing_is_asked_for_a_data_set_that_is_there(remote):
    ensure_stored(NAME, instead=INSTEAD)
    remote.asked.clear()
    load(MinariReader(ensure_stored(NAME, instead=INSTEAD)))
    assert remote.asked == []


@pytest.mark.parametrize("fault", ["broken", "short", "500"])
def test_a_broken_download_is_never_used(remote, fault, monkeypatch):
    monkeypatch.setattr(minari_download, "ANSWER_TIMEOUT", 10.0)
    remote.fault = fault
    with pytest.raises(DataError, match=rf"{NAME} is not in .* cannot be downloaded \(.+{INSTEAD}"):
        ensure_stored(NAME, instead=INSTEAD)
    assert nothing_half_done()
    remote.fault = None
    assert len(load(MinariReader(ensure_stored(NAME, instead=INSTEAD)))) == 2000


def test_an_older_folder_without_metadata_is_replaced(remote):
    (dataset_path(NAME) / "data").mkdir(parents=True)
    (dataset_path(NAME) / "data" / "main_data.hdf5").write_bytes(b"half")
    assert len(load(MinariReader(ensure_stored(NAME, instead=INSTEAD)))) == 2000


def test_two_processes_download_once(remote):
    remote.fault = "slow"
    code = f"""
from offline_cql.readers.minari.download import ensure_stored
from offline_cql.readers.minari.store import MinariReader
ensure_stored({NAME!r}, instead="")
print(MinariReader({NAME!r}).spaces().observation_dim)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ.copy(),
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in results] == ["4", "4"]
    assert sum(f"another process is downloading {NAME}" in err for _, err in results) == 1
    gets = [path for verb, path in remote.asked if verb == "GET" and path.endswith(".hdf5")]
    assert len(gets) == 1


def test_an_id_that_the_remote_lacks_gets_close_names(remote):
    with pytest.raises(DataError, match=r"no such data set\): did you mean D4RL/door/human-v2"):
        ensure_stored("D4RL/door/humann-v2", instead=INSTEAD)


def test_offline_is_an_error_that_names_the_id_and_what_to_use_instead(remote, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    with pytest.raises(DataError, match=rf"{NAME} .*offline.*{INSTEAD}"):
        ensure_stored(NAME, instead=INSTEAD)
    assert time.monotonic() - started < 30
    assert remote.asked == []


def test_a_server_that_says_nothing_is_given_up(remote, monkeypatch):
    remote.fault = "silent"
    monkeypatch.setattr(minari_download, "ANSWER_TIMEOUT", 2.0)
    with pytest.raises(DataError, match=r"no usable answer from the server within 2 s"):
        ensure_stored(NAME, instead=INSTEAD)


def test_the_limit_for_an_answer_is_below_the_promised_30_seconds():
    assert minari_download.ANSWER_TIMEOUT <= 28


def test_what_is_recorded_here_is_never_asked_for(remote):
    ensure_stored("sim/hopper/medium-v0", instead=INSTEAD)
    assert remote.asked == []
    with pytest.raises(DataError, match=r"python collect\.py"):
        load(MinariReader("sim/hopper/medium-v0"))


def test_a_link_out_of_the_data_set_does_not_enter_the_store(remote, tmp_path):
    """An earlier attempt's staging folder may hold anything."""
    staging = tmp_path / "store" / ".downloading" / NAME.replace("/", "__") / NAME / "data"
    staging.mkdir(parents=True)
    (tmp_path / "private").write_text("secret")
    (staging / "more.txt").symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match="is a link out of the data set"):
        ensure_stored(NAME, instead=INSTEAD)
    assert nothing_half_done()


def test_the_catalogue_says_what_the_remote_has():
    assert catalog()["mujoco/hopper/medium-v0"] == {
        "env": "Hopper-v5",
        "steps": 999404,
        "episodes": 1327,
    }
    assert len(catalog()) == 66


def test_the_files_that_arrived_whole_are_not_fetched_again(remote):
    remote.fault = "broken"
    with pytest.raises(DataError):
        ensure_stored(NAME, instead=INSTEAD)
    remote.fault = None
    remote.asked.clear()
    ensure_stored(NAME, instead=INSTEAD)
    fetched = [path for verb, path in remote.asked if verb == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in fetched] == ["main_data.hdf5"]
