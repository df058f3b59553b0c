"""Download a Minari data set from the remote catalog into the local store, whole or not at all.

Minari's client runs in a process of its own with a hidden staging store, because it takes the
store from an environment variable and has no timeout; a complete data set is renamed into place.
Files that arrived before a download broke off are kept for the next attempt.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from importlib import resources
from pathlib import Path
from typing import Any

from offline_cql.errors import DataError
from offline_cql.io import exclusive, flush, remedied
from offline_cql.readers.minari.store import (
    RECORDED,
    STORE_REMEDY,
    dataset_path,
    ensure_namespace,
    hidden_path,
    is_stored,
    refuse_links_outside,
    store_root,
)
from offline_cql.render.command import command
from offline_cql.render.message import print_message

ANSWER_TIMEOUT = 27.0  # seconds for the server's first answer: no network is an error within 30
FOUND = "found"  # line of the client's process: the catalog has the data set


def catalog() -> dict[str, dict[str, Any]]:
    """Return the remote data sets of this release by id: {"env", "steps", "episodes"}."""
    text = resources.files("offline_cql.readers.minari").joinpath("datasets.json").read_text()
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content


def ensure_stored(dataset_id: str, *, alternative: str) -> str:
    """Download a data set if the local store lacks it; return its id.

    alternative: settings that need no network, for the message. A second process waits.
    Raises DataError when the download fails; then the store is unchanged.
    """
    # No server has the simulated data sets: MinariReader's error names the command to simulate.
    if not is_stored(dataset_id) and not dataset_id.startswith(RECORDED):
        with (
            remedied(store_root(), STORE_REMEDY),
            exclusive(hidden_path(".locks", dataset_id), f"downloading {dataset_id}"),
        ):
            if not is_stored(dataset_id):  # another process may have downloaded it meanwhile
                _download(dataset_id, alternative)
    return dataset_id


def _download(dataset_id: str, alternative: str) -> None:
    staging = hidden_path(".downloading", dataset_id)
    staging.mkdir(parents=True, exist_ok=True)  # may contain files of an earlier attempt
    reason = _run_client(dataset_id, staging)
    downloaded = staging / dataset_id
    if reason is None and not (downloaded / "data" / "metadata.json").is_file():
        reason = "the download has no metadata.json"
    if reason is not None:
        raise DataError(
            f"data set {dataset_id} is not in the local store {store_root()} and cannot be "
            f"downloaded ({reason}): {_suggestion(dataset_id)}use data that need no network: "
            f"{command('train.py', *alternative.split())}"
        )
    refuse_links_outside(downloaded)
    for path in (path for path in downloaded.rglob("*") if path.is_file()):
        flush(path)
    final = dataset_path(dataset_id)
    ensure_namespace(dataset_id)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():  # a folder without metadata: another program's broken download
        os.replace(final, staging / "replaced")
    os.replace(downloaded, final)
    shutil.rmtree(staging, ignore_errors=True)


def _suggestion(dataset_id: str) -> str:
    """Return `did you mean …? ` with ids of the catalog; empty if the id is one of them."""
    ids = catalog()
    if dataset_id in ids:
        return ""
    close = difflib.get_close_matches(dataset_id, ids, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}? Or "
    return f"groups of ids: {', '.join(sorted({name.rpartition('/')[0] for name in ids}))}; "


def _run_client(dataset_id: str, staging: Path) -> str | None:
    """Run `fetch` in a process of its own; return None, or the reason of its failure."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, dataset_id],
        env={**os.environ, "MINARI_DATASETS_PATH": str(staging), "HF_HUB_VERBOSITY": "error"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    timer = threading.Timer(ANSWER_TIMEOUT, process.kill)
    timer.start()
    try:
        line = process.stdout.readline().strip()
        timer.cancel()
        if line == FOUND:
            print_message(f"downloading {dataset_id}")
            line = process.stdout.readline().strip()
        if process.wait() == 0:
            return None
        return line or f"no usable answer from the server within {ANSWER_TIMEOUT:.0f} s"
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def fetch(dataset_id: str) -> None:
    """Download into $MINARI_DATASETS_PATH; the main function of the process of its own.

    Print FOUND when the catalog has the data set. On failure print the reason and exit with 1.
    """
    output = sys.stdout
    try:
        from minari.storage.hosting import get_cloud_storage, list_remote_datasets

        with redirect_stdout(sys.stderr):
            remote = list_remote_datasets(prefix=dataset_id, compatible_minari_version=True)
            if dataset_id not in remote:
                raise LookupError("the remote catalog has no such data set")
            print(FOUND, file=output, flush=True)
            get_cloud_storage().download_dataset(dataset_id, store_root())
    except Exception as error:  # of Minari, its client or the network: reported in one line
        text = " ".join(str(error).split()) or type(error).__name__
        print(text[:200], file=output, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    fetch(sys.argv[1])
