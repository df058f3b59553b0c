"""Promise: there is the whole file or none, whatever a server, a kill or a second process does."""

import hashlib
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.readers import d4rl, download

SIGNATURE = d4rl.SIGNATURE
CONTENT = SIGNATURE + np.random.default_rng(0).bytes(300_000)
HALF = len(CONTENT) // 2


class Server(ThreadingHTTPServer):
    """Serves CONTENT; each request is answered in the next of `moods`, the last one stays."""

    daemon_threads = True
    request_queue_size = 20

    def __init__(self, *moods: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moods, self.asked = list(moods), []
        self.content, self.etag = CONTENT, '"one"'
        self.url = f"http://127.0.0.1:{self.server_port}/file.hdf5"

    @property
    def ranges(self) -> list[str | None]:
        return [headers["Range"] for headers in self.asked]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers)
        mood = server.moods.pop(0) if len(server.moods) > 1 else server.moods[0]
        getattr(self, mood)()

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def create_run(self, length: int | None = None) -> bytes:
        """The headers that are due, with Range; returns what is to be sent."""
        content, etag = self.server.content, self.server.etag
        total = len(content) if length is None else length
        start = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        if start:
            if start >= len(content):
                self.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
                return b""
            span = f"bytes {start}-{total - 1}/{total}"
            self.head(206, Content_Length=total - start, Content_Range=span, ETag=etag)
            return content[start:]
        self.head(200, Content_Length=total, ETag=etag)
        return content

    def whole(self) -> None:
        self.wfile.write(self.create_run())

    def half(self) -> None:
        self.wfile.write(self.create_run()[:HALF])
        self.wfile.flush()

    def without_range(self) -> None:
        self.head(200, Content_Length=len(CONTENT))
        self.wfile.write(CONTENT)

    def a_bit(self) -> None:
        self.wfile.write(self.create_run()[:50_000])
        self.wfile.flush()

    def too_long(self) -> None:
        """Promises more than there is."""
        self.wfile.write(self.create_run(len(CONTENT) + 10))

    def without_length(self) -> None:
        self.head(200)
        self.wfile.write(CONTENT)

    def wrong_range(self) -> None:
        total = len(CONTENT)
        self.head(206, Content_Length=total, Content_Range=f"bytes 7-{total - 1}/{total}")
        self.wfile.write(CONTENT)

    def broken(self) -> None:
        self.head(500, Content_Length=0)

    def missing(self) -> None:
        self.head(404, Content_Length=0)

    def page(self) -> None:
        text = b"<!DOCTYPE html><title>Sign in</title>"
        self.head(200, Content_Length=len(text), Content_Type="text/html")
        self.wfile.write(text)

    def empty(self) -> None:
        self.head(200, Content_Length=0)

    def trickle(self) -> None:
        content = self.create_run()
        for start in range(0, len(content), 20_000):
            self.wfile.write(content[start : start + 20_000])
            self.wfile.flush()
            time.sleep(0.05)

    def silent(self) -> None:
        time.sleep(5)

    def silent_at_half(self) -> None:
        self.half()
        time.sleep(5)

    def to_a_file(self) -> None:
        self.head(302, Location="file:///etc/hostname", Content_Length=0)

    def to_ftp(self) -> None:
        self.head(302, Location="ftp://127.0.0.1/x", Content_Length=0)

    def elsewhere(self) -> None:
        self.head(302, Location="/other.hdf5", Content_Length=0)


@pytest.fixture
def serve(monkeypatch) -> Iterator[object]:
    """serve(mood, …) starts a server; short pauses between attempts."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    servers: list[Server] = []

    def start(*moods: str) -> Server:
        servers.append(Server(*moods))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url: str, folder: Path, *, timeout: float = 5.0) -> Path:
    path = folder / "file.hdf5"
    hint = "put it there by hand"
    download.download(url, path, title="tiny", remedy=hint, signature=SIGNATURE, timeout=timeout)
    return path


def check_whole(path: Path, content: bytes = CONTENT) -> None:
    assert path.read_bytes() == content
    names = {found.name for found in path.parent.iterdir()}
    assert names == {path.name, f"{path.name}.sha256", f"{path.name}.lock"}
    line = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n"
    assert path.with_name(f"{path.name}.sha256").read_text() == line


# --- What ends well --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moods", "ranges"),
    [
        (["whole"], [None]),
        (["elsewhere", "whole"], [None, None]),
        (["half", "whole"], [None, f"bytes={HALF}-"]),
        (["half", "without_range"], [None, f"bytes={HALF}-"]),
        (["broken", "half", "broken", "whole"], [None, None, *[f"bytes={HALF}-"] * 2]),
        (["trickle"], [None]),
        (["a_bit"], [None, *[f"bytes={n}-" for n in range(50_000, 300_001, 50_000)]]),
    ],
)
def test_the_file_arrives_whole(serve, tmp_path, moods, ranges):
    server = serve(*moods)
    check_whole(fetch(server.url, tmp_path / "new"))
    assert server.ranges == ranges


def test_a_server_that_stops_in_the_middle_is_asked_for_the_rest(serve, tmp_path):
    server = serve("silent_at_half", "whole")
    started = time.monotonic()
    check_whole(fetch(server.url, tmp_path, timeout=0.3))
    assert time.monotonic() - started < 3
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_later_call_goes_on_where_an_earlier_one_failed(serve, tmp_path):
    with pytest.raises(DataError, match="500"):
        fetch(serve("half", "broken").url, tmp_path)
    assert not (tmp_path / "file.hdf5").exists()
    server = serve("whole")
    check_whole(fetch(server.url, tmp_path))
    assert server.ranges == [f"bytes={HALF}-"]


def test_a_rest_is_not_glued_to_another_version(serve, tmp_path):
    with pytest.raises(DataError, match="500"):
        fetch(serve("half", "broken").url, tmp_path)
    server = serve("whole")
    server.content, server.etag = SIGNATURE + b"two" * 90_000, '"two"'
    check_whole(fetch(server.url, tmp_path), server.content)


def test_a_part_that_is_complete_or_too_long(serve, tmp_path):
    part, whole = tmp_path / "file.hdf5.part", tmp_path / "file.hdf5.part.of"
    part.write_bytes(CONTENT)
    whole.write_text(f'{len(CONTENT)} "one"')
    server = serve("whole")
    check_whole(fetch(server.url, tmp_path))
    assert server.ranges == []
    (tmp_path / "file.hdf5").unlink()
    for written, about in ((CONTENT + b"more", f'{len(CONTENT)} "one"'), (b"what is this", "")):
        part.write_bytes(written)
        whole.write_text(about)
        check_whole(fetch(server.url, tmp_path))
        (tmp_path / "file.hdf5").unlink()


def test_a_complete_part_of_another_kind_is_thrown_away(serve, tmp_path):
    (tmp_path / "file.hdf5.part").write_bytes(b"0" * 100)
    (tmp_path / "file.hdf5.part.of").write_text('100 "one"')
    server = serve("whole")
    with pytest.raises(DataError, match=r"it begins with b'00000000': another kind of file"):
        fetch(server.url, tmp_path)
    check_whole(fetch(server.url, tmp_path))


def test_what_is_there_is_not_asked_for(serve, tmp_path):
    server = serve("broken")
    (tmp_path / "file.hdf5").write_bytes(b"mine")
    fetch(server.url, tmp_path)
    assert server.asked == []


# --- What ends in one line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mood", "reason", "asked"),
    [
        ("broken", "the server answers 500 Internal Server Error", 4),
        ("missing", "the server answers 404 Not Found", 1),
        ("page", "it begins with b'<!DOCTYPE html>.*: another kind of file", 1),
        ("empty", "it begins with b'': another kind of file", 1),
        ("too_long", r"the connection ended at byte 300,008 of 300,018", None),
        ("without_length", "the server does not say what it sends: status 200, length unknown", 1),
        ("wrong_range", "the server does not .*: status 206, length 300008, range bytes 7-", 1),
        ("to_a_file", "the server answers 302 .*file:///etc/hostname.* not allowed", 1),
        ("to_ftp", "unknown url type: ftp", 4),
    ],
)
def test_a_server_without_the_file(serve, tmp_path, mood, reason, asked):
    server = serve(mood)
    message = rf"^tiny cannot be downloaded from http://.*\({reason}.*\): put it there by hand$"
    with pytest.raises(DataError, match=message) as error:
        fetch(server.url, tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "file.hdf5").exists()
    assert asked in (None, len(server.asked))


@pytest.mark.parametrize("mood", ["page", "missing", "wrong_range"])
def test_a_wrong_answer_does_not_cost_what_has_arrived(serve, tmp_path, mood):
    with pytest.raises(DataError):
        fetch(serve("half", mood).url, tmp_path)
    check_whole(fetch(serve("whole").url, tmp_path))


def test_silence_ends_in_bounded_time(serve, tmp_path):
    started = time.monotonic()
    with pytest.raises(DataError, match=r"tiny cannot .*\((timed out|no answer)\): put it"):
        fetch(serve("silent").url, tmp_path, timeout=0.3)
    assert time.monotonic() - started < 0.3 * download.PATIENCE + 0.5


def test_a_name_that_nobody_looks_up_ends_in_bounded_time(tmp_path, monkeypatch):
    """A resolver without a network may take minutes, which no timeout of a socket covers."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(DataError, match=r"tiny cannot .*\(no answer\): put it"):
        fetch("http://nowhere.invalid/file.hdf5", tmp_path, timeout=0.2)
    assert time.monotonic() - started < 2


def test_the_usual_patience_is_within_thirty_seconds():
    assert download.TIMEOUT * download.PATIENCE <= 21


def test_no_network_names_the_task_the_place_and_other_data(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    place = tmp_path / "hopper_medium_replay-v2.hdf5"
    message = (
        r"^hopper-medium-replay-v2 cannot be downloaded from http://rail\..*\(.*refused\): put the "
        rf"file at {place} by hand, or try .* no network: python train.py env=hopper$"
    )
    with pytest.raises(DataError, match=message):
        d4rl.task_file("hopper-medium-replay-v2")
    assert [path.name for path in tmp_path.iterdir()] == [f"{place.name}.lock"]


def test_a_disk_without_room_is_said_before_anything_is_written(serve, tmp_path, monkeypatch):
    free = download.shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: free)
    with pytest.raises(DataError, match=r"it has 300,008 bytes, .* room for 1,000\): put it"):
        fetch(serve("whole").url, tmp_path)


def test_a_place_that_cannot_be_written(serve, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(DataError, match=r"^tiny cannot be stored as .*Not a directory"):
        fetch(serve("whole").url, tmp_path / "folder" / "below")


# --- Other processes -------------------------------------------------------------------------


def test_processes_that_ask_at_once_download_once(serve, tmp_path):
    server = serve("trickle")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fetch, args=(server.url, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(server.asked) == 1
    check_whole(tmp_path / "file.hdf5")


def test_a_killed_download_is_resumed(serve, tmp_path):
    server = serve("trickle", "whole")
    process = multiprocessing.get_context("spawn").Process(
        target=fetch, args=(server.url, tmp_path)
    )
    process.start()
    part, deadline = tmp_path / "file.hdf5.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 60_000):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "file.hdf5").exists()
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    check_whole(fetch(server.url, tmp_path))
    assert server.ranges == [None, f"bytes={have}-"]


# --- Afterwards ------------------------------------------------------------------------------


def test_the_digest_is_compared_where_there_is_one(serve, tmp_path):
    path = fetch(serve("whole").url, tmp_path)
    download.verify(path, repair="rm it")
    path.write_bytes(CONTENT[:-1])
    digest = hashlib.sha256(CONTENT).hexdigest()[:12]
    with pytest.raises(DataError, match=rf"is not what was .*expected {digest}….*: rm it$"):
        download.verify(path, repair="rm it")
    path.with_name("file.hdf5.sha256").unlink()
    download.verify(path, repair="rm it")
