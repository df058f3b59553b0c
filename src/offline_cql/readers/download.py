"""Download one file over HTTP with pooch, and verify it whenever it is read again.

`<file>.sha256` keeps the digest of what arrived, in the format of `sha256sum -c`. A download that
breaks off starts again from the first byte (decision 012).
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

from offline_cql.errors import DataError
from offline_cql.io import exclusive, flush, write_atomically
from offline_cql.render.progress import DownloadBar

TIMEOUT = 7.0  # seconds to connect, and seconds between two blocks of bytes
PATIENCE = 3  # timeouts without a byte, name resolution included: below 30 s
BLOCK = 1 << 16  # bytes


def download(
    url: str,
    path: Path,
    *,
    title: str,
    remedy: str,
    signature: bytes,
    timeout: float = TIMEOUT,
) -> None:
    """Download an http(s) address to `path`, unless the file exists.

    signature: the first bytes of a valid file.
    Several processes that ask for the same file download it once. Raises DataError
    `<title> cannot be downloaded from <url> (<reason>): <remedy>`; then `path` does not exist.
    """
    partial = _with_suffix(path, ".download")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(_with_suffix(path, ".lock"), f"downloading {title}"):
            if path.exists():
                return
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                file = _retrieve(url, partial, title=title, timeout=timeout)
                with file.open("rb") as stream:
                    begin = stream.read(max(len(signature), 40))
                if not begin.startswith(signature):
                    fault = f"begins with {begin[:40]!r}, not with {signature!r}"
                    raise _DownloadError(f"the file {fault}")
                _publish(file, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except _DownloadError as error:
        text = f"{title} cannot be downloaded from {url} ({error}): {remedy}"
        raise DataError(text) from error
    except OSError as error:
        raise DataError(f"{title} cannot be stored as {path} ({error}): {remedy}") from error


def verify(path: Path, *, repair: str) -> None:
    """Raise DataError, ending in `repair`, if the file differs from what was downloaded.

    A file without a recorded sha256 is accepted.
    """
    if not is_downloaded(path):
        return
    record = _record(path)
    expected, actual = record.read_text().partition(" ")[0], file_sha256(path)
    if actual != expected:
        raise DataError(
            f"{path} is not the file that was downloaded (sha256 {actual[:12]}…, expected "
            f"{expected[:12]}…): {repair}"
        )


def is_downloaded(path: Path) -> bool:
    """Return whether `download` wrote the file: its sha256 is recorded."""
    return _record(path).is_file()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _DownloadError(Exception):
    """The reason why there is no file, for the message."""


def _record(path: Path) -> Path:
    return _with_suffix(path, ".sha256")


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _retrieve(url: str, folder: Path, *, title: str, timeout: float) -> Path:
    """Download into `folder` and return the file.

    In a thread of its own: the timeouts of sockets cover neither name resolution nor several
    addresses of one host.
    """
    bar = DownloadBar(f"downloading {title}")
    errors: list[BaseException] = []

    def run() -> None:
        import pooch  # a tenth of a second, which only a download pays
        from requests.exceptions import RequestException

        pooch.get_logger().setLevel("WARNING")
        try:
            http = pooch.HTTPDownloader(progressbar=bar, chunk_size=BLOCK, timeout=timeout)
            pooch.retrieve(url, None, fname="file", path=folder, downloader=http)
        except (RequestException, ValueError) as error:
            errors.append(_DownloadError(_describe(error)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with bar:
        thread.start()
        received = -1
        while thread.is_alive() and not bar.closed:
            if bar.done == received:
                raise _DownloadError(f"no answer within {PATIENCE * timeout:g} s")
            received = bar.done
            thread.join(PATIENCE * timeout)
        thread.join()  # hashing a large file may take longer
    if errors:
        raise errors[0]
    return folder / "file"


def _describe(error: Exception) -> str:
    """Return the reason of a failed request in one line, without the names of its classes."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    return " ".join(str(cause).split()) or type(cause).__name__


def _publish(file: Path, path: Path) -> None:
    """Record the file's sha256 beside `path`, then rename it to `path`, durably."""
    flush(file)
    line = f"{file_sha256(file)}  {path.name}\n"
    write_atomically(_record(path), line.encode())
    file.rename(path)
    flush(path.parent)
