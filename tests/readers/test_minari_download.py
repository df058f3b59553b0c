"""Guarantee: a remote data set is downloaded once, whole or not at all.

A local server implements the part of the Hugging Face Hub's protocol that Minari's client uses.
"""

import contextlib
import hashlib
import http.server
import json
import subprocess
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

import minari
import numpy as np
import pytest
from support.minari_case import episode, write_minari

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.minari import download as minari_download
from offline_cql.readers.minari.download import catalog, ensure_stored
from offline_cql.readers.minari.store import MinariReader, dataset_path

NAME = "D4RL/door/human-v2"
REPOSITORY = "farama-minari/D4RL"
COMMIT = "a" * 40
INSTEAD = "env=hopper dataset=simulated"


class Remote(http.server.ThreadingHTTPServer):
    """A server with files by path in the repository, and a fault for requests of the HDF5 file."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files, self.fault, self.requests = files, None, []

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
        self.server.requests.append((self.command, path))
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
        digest = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": digest}

    def start(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def json(self, value):
        content = json.dumps(value).encode()
        self.start(200, Content_Type="application/json", Content_Length=len(content))
        self.wfile.write(content)

    def file(self, name):
        content, size = self.server.files[name], len(self.server.files[name])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        fault = self.server.fault if name.endswith(".hdf5") and self.command == "GET" else None
        rest = content[start:]
        if fault == "short":  # declares half and sends half
            rest = rest[: len(rest) // 2]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": COMMIT}
        headers |= {"Accept_Ranges": "bytes", "Content_Length": len(rest)}
        if start:
            headers["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
        self.start(206 if start else 200, **headers)
        if self.command == "HEAD":
            return
        if fault == "broken":  # declares all, sends half, disconnects
            rest = rest[: len(rest) // 2]
        time.sleep(1.5 if fault == "slow" else 0)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(rest)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Return the files of a small Minari data set, as the server lists them."""
    root = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        still = np.zeros((500, 2), np.float32)
        write_minari(NAME, [episode(k, 500, end="truncations", actions=still) for k in range(4)])
    top = root / "D4RL"
    files = {f.relative_to(top).as_posix(): f.read_bytes() for f in (top / "door").rglob("*.*")}
    return files | {"namespace_metadata.json": json.dumps({"datasets": [NAME]}).encode()}


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


def ensure(name=NAME):
    return ensure_stored(name, alternative=INSTEAD)


def test_an_absent_data_set_is_downloaded_and_readable(remote):
    data = load(MinariReader(ensure()))
    assert (len(data), len(data.ends)) == (2000, 4)
    assert NAME in minari.list_local_datasets()  # Minari itself lists it
    assert not list((dataset_path(NAME).parents[2] / ".downloading").iterdir())


def test_a_stored_data_set_sends_no_request(remote):
    ensure()
    remote.requests.clear()
    load(MinariReader(ensure()))
    assert remote.requests == []


@pytest.mark.parametrize("fault", ["broken", "short", "500"])
def test_a_broken_download_is_never_used(remote, fault, monkeypatch):
    monkeypatch.setattr(minari_download, "ANSWER_TIMEOUT", 10.0)
    remote.fault = fault
    with pytest.raises(DataError, match=rf"{NAME} is not in .* cannot be downloaded \(.+{INSTEAD}"):
        ensure()
    assert not dataset_path(NAME).exists()
    remote.fault = None
    assert len(load(MinariReader(ensure()))) == 2000


def test_an_older_folder_without_metadata_is_replaced(remote):
    (dataset_path(NAME) / "data").mkdir(parents=True)
    (dataset_path(NAME) / "data" / "main_data.hdf5").write_bytes(b"half")
    assert len(load(MinariReader(ensure()))) == 2000


def test_two_processes_download_once(remote):
    remote.fault = "slow"
    code = f"""
from offline_cql.readers.minari.download import ensure_stored
from offline_cql.readers.minari.store import MinariReader
ensure_stored({NAME!r}, alternative="")
print(MinariReader({NAME!r}).spaces().observation_dim)
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [out.strip() for out, _ in results] == ["2", "2"]
    assert sum(f"another process is downloading {NAME}" in err for _, err in results) == 1
    gets = [path for verb, path in remote.requests if verb == "GET" and path.endswith(".hdf5")]
    assert len(gets) == 1


def test_an_unknown_id_is_refused_with_similar_names(remote):
    with pytest.raises(DataError, match=r"no such data set\): did you mean D4RL/door/human-v2"):
        ensure("D4RL/door/humann-v2")


def test_the_error_when_offline_names_the_id_and_other_data(remote, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    with pytest.raises(DataError, match=rf"{NAME} .*offline.*{INSTEAD}"):
        ensure()
    assert time.monotonic() - started < 30
    assert remote.requests == []


def test_a_silent_server_is_given_up(remote, monkeypatch):
    remote.fault = "silent"
    monkeypatch.setattr(minari_download, "ANSWER_TIMEOUT", 2.0)
    with pytest.raises(DataError, match=r"no usable answer from the server within 2 s"):
        ensure()


def test_the_timeout_of_an_answer_is_below_30_seconds():
    assert minari_download.ANSWER_TIMEOUT <= 28


def test_simulated_data_send_no_request(remote):
    ensure("sim/hopper/medium-v0")
    assert remote.requests == []
    with pytest.raises(DataError, match=r"python collect\.py"):
        load(MinariReader("sim/hopper/medium-v0"))


def test_a_link_out_of_the_data_set_does_not_enter_the_store(remote, tmp_path):
    """An earlier attempt's staging folder may hold anything."""
    staging = tmp_path / "store" / ".downloading" / NAME.replace("/", "__") / NAME / "data"
    staging.mkdir(parents=True)
    (tmp_path / "private").write_text("secret")
    (staging / "more.txt").symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match="is a link out of the data set"):
        ensure()
    assert not dataset_path(NAME).exists()


def test_the_catalog_lists_simulator_steps_and_episodes():
    hopper = {"env": "Hopper-v5", "steps": 999404, "episodes": 1327}
    assert catalog()["mujoco/hopper/medium-v0"] == hopper
    assert len(catalog()) == 66


def test_files_that_arrived_whole_are_not_downloaded_again(remote):
    remote.fault = "broken"
    with pytest.raises(DataError):
        ensure()
    remote.fault = None
    remote.requests.clear()
    ensure()
    downloaded = [path for verb, path in remote.requests if verb == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in downloaded] == ["main_data.hdf5"]
