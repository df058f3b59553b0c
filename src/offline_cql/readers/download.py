"""Files over HTTP: resumed where they broke off, checked, and under their name only when whole.

`<file>.part` is what has arrived, `<file>.part.of` the length of the whole and what the server
calls that version of it, `<file>.sha256` the digest of the whole. Knows nothing of data sets.
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import re
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError

from offline_cql.errors import DataError
from offline_cql.io import exclusive, flush, write_atomically
from offline_cql.render.progress import ProgressBar

T = TypeVar("T")

TIMEOUT = 7.0  # seconds without an answer, or without a byte, that end a connection
PATIENCE = 3  # so many times that without a new byte: no network is an error within 30 s
ATTEMPTS = 4  # in a row without a new byte
PAUSE = 0.5  # seconds after the first of them, then twice as long each time
READ = 1 << 20  # bytes at most at a time
BROKEN = (OSError, ValueError, http.client.HTTPException)  # what a connection may raise


class _Refused(Exception):
    """What the server gives is not the file, and asking again will not help."""


class _Interrupted(Exception):
    """The connection, or the server, for the moment; asking again may help."""


@dataclass(frozen=True)
class _Answer:
    """A response with a file's bytes from `start` on; the whole of it has `total`."""

    response: Any
    start: int
    total: int
    version: str  # what the server calls it; may be empty

    @property
    def whole(self) -> str:
        """What a rest must belong to."""
        return f"{self.total} {self.version}"


def download(
    url: str, path: Path, *, title: str, remedy: str, signature: bytes, timeout: float = TIMEOUT
) -> None:
    """Makes `path` the whole file at an http(s) address, unless it is there already.

    The file begins with `signature`, or it is refused. Two processes that ask at once download
    once. Raises DataError `<title> cannot be downloaded from <url> (<reason>): <remedy>`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(_beside(path, ".lock"), f"downloading {title}"):
            if not path.exists():
                _fetch(url, path, title=title, signature=signature, timeout=timeout)
                _publish(path, signature)
    except (_Refused, _Interrupted) as error:
        text = f"{title} cannot be downloaded from {url} ({error}): {remedy}"
        raise DataError(text) from error
    except OSError as error:  # of the disk: those of the network were met before
        raise DataError(f"{title} cannot be stored as {path} ({error}): {remedy}") from error


def verify(path: Path, *, repair: str) -> None:
    """Compares a file with the digest that its download left, if there is one.

    Raises DataError that ends in `repair`.
    """
    note = _beside(path, ".sha256")
    if not note.is_file():
        return
    expected, found = note.read_text().partition(" ")[0], _sha256(path)
    if found != expected:
        raise DataError(
            f"{path} is not what was downloaded (sha256 {found[:12]}…, expected "
            f"{expected[:12]}…): {repair}"
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(path: Path, signature: bytes) -> None:
    """Gives the complete part its name, durably, beside its digest."""
    part = _beside(path, ".part")
    with part.open("rb") as file:
        begin = file.read(len(signature))
    flush(part)
    if begin != signature:
        part.unlink()
        raise _another_kind(begin)
    write_atomically(_beside(path, ".sha256"), f"{_sha256(part)}  {path.name}\n".encode())
    part.rename(path)
    _beside(path, ".part.of").unlink(missing_ok=True)
    flush(path.parent)


def _fetch(url: str, path: Path, *, title: str, signature: bytes, timeout: float) -> None:
    """Fills the part, going on from what is there; raises what the last attempt did."""
    part, note = _beside(path, ".part"), _beside(path, ".part.of")
    failures, heard = 0, time.monotonic()
    while True:
        whole = note.read_text() if note.is_file() else ""
        have = _size(part)
        if have and whole.partition(" ")[0] == str(have):
            return  # an earlier process was stopped at the very end
        left = heard + PATIENCE * timeout - time.monotonic()
        try:
            answer = _within(left, partial(_ask, url, have, whole, timeout))
            _receive(answer, path, title, signature)
        except _Interrupted:
            if _size(part) > have:
                failures, heard = 0, time.monotonic()
            pause = PAUSE * 2**failures
            failures += 1
            late = time.monotonic() + pause > heard + PATIENCE * timeout
            if late or failures == ATTEMPTS:
                raise
        else:
            return
        time.sleep(pause)


def _receive(answer: _Answer, path: Path, title: str, signature: bytes) -> None:
    """One connection's bytes onto the part; raises unless they reach the end of the file."""
    part, have = _beside(path, ".part"), answer.start
    room = shutil.disk_usage(path.parent).free + _size(part)
    if answer.total > room:
        raise _Refused(f"it has {answer.total:,} bytes, {path.parent} room for {room:,}")
    with answer.response, ProgressBar(f"downloading {title}", answer.total, of_bytes=True) as bar:
        blocks = _blocks(answer.response)
        if have == 0:  # the page of some gateway must not replace what has arrived
            begin = next(blocks, b"")
            if begin[: len(signature)] != signature[: len(begin)]:
                raise _another_kind(begin)
            blocks = itertools.chain([begin], blocks)
        part.touch()
        with part.open("rb+") as file:
            file.truncate(have)
            _beside(path, ".part.of").write_text(answer.whole)
            file.seek(have)
            bar.advance(have)
            for block in blocks:
                file.write(block)
                file.flush()  # what arrived outlives a kill
                have += len(block)
                bar.advance(len(block))
    if have != answer.total:
        raise _Interrupted(f"the connection ended at byte {have:,} of {answer.total:,}")


def _blocks(response: Any) -> Iterator[bytes]:
    """What arrives, as it arrives."""
    while True:
        try:
            block: bytes = response.read1(READ)
        except BROKEN as error:
            raise _Interrupted(_reason(error)) from error
        if not block:
            return
        yield block


def _ask(url: str, have: int, whole: str, timeout: float) -> _Answer:
    """The file from byte `have` on, or from its first if that belongs to another file by now."""
    headers = {"User-Agent": "offline-cql"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # it has become shorter
            return _ask(url, 0, "", timeout)
        kind = _Interrupted if error.code in (408, 429) or error.code >= 500 else _Refused
        raise kind(f"the server answers {error.code} {error.reason}") from error
    except BROKEN as error:
        raise _Interrupted(_reason(error)) from error
    answer = _answer(response, have)
    if answer.start and answer.whole != whole:
        response.close()
        return _ask(url, 0, "", timeout)
    return answer


def _answer(response: Any, have: int) -> _Answer:
    """What the headers promise. Raises when they leave open what follows."""
    length = response.headers.get("Content-Length", "")
    version = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
    if response.status == 200 and re.fullmatch(r"\d{1,18}", length):
        return _Answer(response, 0, int(length), version)
    given = response.headers.get("Content-Range", "")
    span = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18})", given)
    if response.status == 206 and span is not None and int(span[1]) == have:
        return _Answer(response, have, int(span[2]), version)
    response.close()
    promised = f"status {response.status}, length {length or 'unknown'}, range {given or 'unknown'}"
    raise _Refused(f"the server does not say what it sends: {promised}")


def _opener() -> urllib.request.OpenerDirector:
    """Speaks http(s) and nothing else, so no redirection leads to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _within(seconds: float, function: Callable[[], T]) -> T:
    """The function's value or error; interrupted if it takes longer.

    The timeout of a socket does not cover looking up a name, nor several addresses together.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(max(seconds, 0))
    if errors:
        raise errors[0]
    if not results:
        raise _Interrupted("no answer")
    return results[0]


def _another_kind(begin: bytes) -> _Refused:
    return _Refused(f"it begins with {begin[:40]!r}: another kind of file")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
