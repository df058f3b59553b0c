"""Guarantee: a download yields the whole file or none, whatever the server or a kill does.

Several processes download a file once.
"""

import hashlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.readers import d4rl, download

SIGNATURE = d4rl.SIGNATURE
CONTENT = SIGNATURE + np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


LENGTH = {"Content-Length": str(len(CONTENT))}
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


class Answer(NamedTuple):
    """A response: pause before, then status and headers, then blocks with a pause after each."""

    status: int = 200
    headers: Mapping[str, str] = LENGTH
    body: bytes = CONTENT
    block: int = len(CONTENT)
    before: float = 0.0
    after: float = 0.0


def redirect(address: str) -> Answer:
    return Answer(302, {"Location": address, "Content-Length": "0"}, b"")


HALF = CONTENT[: len(CONTENT) // 2]
NOTHING = {"Content-Length": "0"}
ANSWERS = {
    "whole": Answer(),
    "without_length": Answer(headers={}),
    "half": Answer(body=HALF),
    "silent": Answer(body=b"", before=5),
    "silent_at_half": Answer(body=HALF, after=5),
    "trickle": Answer(block=20_000, after=0.05),
    "error_500": Answer(500, NOTHING, b""),
    "error_404": Answer(404, NOTHING, b""),
    "html": Answer(200, {"Content-Length": str(len(PAGE)), "Content-Type": "text/html"}, PAGE),
    "empty": Answer(200, NOTHING, b""),
    "to_a_file": redirect("file:///etc/hostname"),
    "to_ftp": redirect("ftp://127.0.0.1/x"),
    "redirect": redirect("/other.hdf5"),
}


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, keys of ANSWERS; the last one stays."""

    daemon_threads = True
    request_queue_size = 20

    def __init__(self, *answers: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = list(answers), 0
        self.url = f"http://127.0.0.1:{self.server_port}/file.hdf5"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that was killed."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.server.requests += 1
        answers = self.server.answers
        answer = ANSWERS[answers.pop(0) if len(answers) > 1 else answers[0]]
        time.sleep(answer.before)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(answer.body), answer.block):
            self.wfile.write(answer.body[start : start + answer.block])
            self.wfile.flush()
            time.sleep(answer.after)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a function that starts a Server with the given answers."""
    servers: list[Server] = []

    def start(*answers: str) -> Server:
        servers.append(Server(*answers))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url: str, folder: Path, *, timeout: float = 5.0) -> Path:
    path, remedy = folder / "file.hdf5", "put it there by hand"
    download.download(url, path, title="tiny", remedy=remedy, signature=SIGNATURE, timeout=timeout)
    return path


def check_whole(path: Path) -> None:
    """Assert that the folder contains the file, its hash, its lock and nothing else."""
    assert path.read_bytes() == CONTENT
    names = {file.name for file in path.parent.iterdir()}
    assert names == {path.name, f"{path.name}.sha256", f"{path.name}.lock"}
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{SHA256}  {path.name}\n"


# --- Success ---------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [["whole"], ["redirect", "whole"], ["without_length"]])
def test_a_download_yields_the_whole_file(serve, tmp_path, answers):
    server = serve(*answers)
    check_whole(fetch(server.url, tmp_path / "new"))
    assert server.requests == len(answers)


def test_an_existing_file_is_not_requested(serve, tmp_path):
    server = serve("error_500")
    (tmp_path / "file.hdf5").write_bytes(b"mine")
    fetch(server.url, tmp_path)
    assert server.requests == 0


# --- Failures: one line, and no file ---------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("error_500", "the server answers 500 Internal Server Error"),
        ("error_404", "the server answers 404 Not Found"),
        ("html", r"the file begins with b'<!DOCTYPE html>.*, not with b'\\x89HDF"),
        ("empty", "the file begins with b'', not with"),
        ("half", r"IncompleteRead\(150004 bytes read, 150004 more expected\)"),
        ("to_a_file", "No connection adapters were found for 'file:///etc/hostname'"),
        ("to_ftp", "No connection adapters were found for 'ftp://127.0.0.1/x'"),
    ],
)
def test_a_server_without_the_file_is_a_one_line_error(serve, tmp_path, answer, reason):
    server = serve(answer)
    message = rf"^tiny cannot be downloaded from http://.*\({reason}.*\): put it there by hand$"
    with pytest.raises(DataError, match=message) as error:
        fetch(server.url, tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.hdf5.lock"]
    server.answers = ["whole"]
    check_whole(fetch(server.url, tmp_path))


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nonsense"])
def test_other_protocols_than_http_are_refused(tmp_path, url):
    with pytest.raises(DataError, match=r"^tiny cannot be downloaded from .*: put it there"):
        fetch(url, tmp_path)


@pytest.mark.parametrize("answer", ["silent", "silent_at_half"])
def test_a_silent_server_is_given_up_after_the_timeout(serve, tmp_path, answer):
    with pytest.raises(DataError, match=r"tiny cannot .*([Tt]imed out|no answer).*\): put it"):
        fetch(serve(answer).url, tmp_path, timeout=0.3)


def test_name_resolution_without_a_network_is_given_up_after_the_timeout(tmp_path, monkeypatch):
    """A resolver may take minutes, which no timeout of a socket covers."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
    with pytest.raises(DataError, match=r"tiny cannot .*\(no answer within 0.6 s\): put it"):
        fetch("http://nowhere.invalid/file.hdf5", tmp_path, timeout=0.2)


def test_no_network_is_an_error_within_thirty_seconds():
    assert download.TIMEOUT * download.PATIENCE <= 25


def test_the_error_without_a_network_names_the_task_the_path_and_other_data(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    path = tmp_path / "hopper_medium_replay-v2.hdf5"
    message = (
        r"^hopper-medium-replay-v2 cannot be downloaded from http://rail\..*\(.*refused\): put the "
        rf"file at {path} by hand, or use data .* no network: python train.py env=hopper$"
    )
    with pytest.raises(DataError, match=message):
        d4rl.ensure_task_file("hopper-medium-replay-v2")
    assert [file.name for file in tmp_path.iterdir()] == [f"{path.name}.lock"]


def test_a_folder_that_cannot_be_written_is_a_one_line_error(serve, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(DataError, match=r"^tiny cannot be stored as .*Not a directory"):
        fetch(serve("whole").url, tmp_path / "folder" / "below")


# --- Several processes -----------------------------------------------------------------------


def start_fetch(url: str, folder: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=fetch, args=(url, folder))
    process.start()
    return process


def test_processes_at_the_same_time_download_once(serve, tmp_path):
    server = serve("trickle")
    processes = [start_fetch(server.url, tmp_path) for _ in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert server.requests == 1
    check_whole(tmp_path / "file.hdf5")


def test_a_killed_download_leaves_only_a_temporary_file(serve, tmp_path):
    server = serve("trickle", "whole")
    process = start_fetch(server.url, tmp_path)
    partial, deadline = tmp_path / "file.hdf5.download", time.monotonic() + 60
    while not any(file.stat().st_size > 60_000 for file in partial.glob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "file.hdf5").exists()
    assert partial.exists()
    check_whole(fetch(server.url, tmp_path))
    assert server.requests == 2


# --- Reading the file later ------------------------------------------------------------------


def test_a_changed_file_is_detected(serve, tmp_path):
    path = fetch(serve("whole").url, tmp_path)
    download.verify(path, repair="rm it")
    path.write_bytes(CONTENT[:-1])
    message = rf"is not the file that was downloaded .*expected {SHA256[:12]}….*: rm it$"
    with pytest.raises(DataError, match=message):
        download.verify(path, repair="rm it")


def test_a_file_without_a_recorded_hash_is_accepted(tmp_path):
    (tmp_path / "file.hdf5").write_bytes(b"put there by hand")
    download.verify(tmp_path / "file.hdf5", repair="rm it")
