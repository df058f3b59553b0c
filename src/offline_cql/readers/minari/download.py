"""Brings a Minari data set from the remote catalog into the local store, whole or not at all.

Minari's own client downloads, in a process of its own that sees a hidden staging store; what has
arrived is renamed into place. Files that arrived before a download broke off are kept for the next
attempt. No connection is opened for a data set that is there. Knows nothing of formats or training.
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
from offline_cql.io import exclusive, flush
from offline_cql.readers.minari.store import (
    RECORDED,
    dataset_path,
    ensure_namespace,
    hidden,
    is_stored,
    refuse_links_outside,
    store_root,
)

ANSWER_WITHIN = 27.0  # seconds for the server's first answer: no network is an error within 30


def catalog() -> dict[str, dict[str, Any]]:
    """The remote data sets known when this was released: env, steps, episodes of each id."""
    text = resources.files("offline_cql.readers.minari").joinpath("datasets.json").read_text()
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def ensure_stored(dataset_id: str, *, instead: str) -> str:
    """The id, after its data set was downloaded if the local store lacks it.

    instead: settings that need no network, for the message. A second process waits for the first.
    Raises DataError when it is not there and cannot be had; then the store is as it was.
    """
    # What is recorded here is on no server: MinariReader says how to record it.
    if not is_stored(dataset_id) and not dataset_id.startswith(RECORDED):
        with exclusive(hidden(".locks", dataset_id), f"downloading {dataset_id}"):
            if not is_stored(dataset_id):  # another process may have brought it meanwhile
                _download(dataset_id, instead)
    return dataset_id


def _download(dataset_id: str, instead: str) -> None:
    staging = hidden(".downloading", dataset_id)
    staging.mkdir(parents=True, exist_ok=True)  # with what an earlier attempt left
    reason = _fetched(dataset_id, staging)
    arrived = staging / dataset_id
    if reason is None and not (arrived / "data" / "metadata.json").is_file():
        reason = "what has arrived has no metadata.json"
    if reason is not None:
        raise DataError(
            f"data set {dataset_id} is not in the local store {store_root()} and cannot be "
            f"downloaded ({reason}): {_close_names(dataset_id)}without a network, "
            f"python train.py {instead} records its own data"
        )
    refuse_links_outside(arrived)
    for path in (path for path in arrived.rglob("*") if path.is_file()):
        flush(path)
    final = dataset_path(dataset_id)
    ensure_namespace(dataset_id)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():  # a folder without metadata: another program's broken download
        os.replace(final, staging / "replaced")
    os.replace(arrived, final)
    shutil.rmtree(staging, ignore_errors=True)


def _close_names(dataset_id: str) -> str:
    """`did you mean …? `, or nothing for an id of the catalog."""
    known = catalog()
    if dataset_id in known:
        return ""
    close = difflib.get_close_matches(dataset_id, known, n=3, cutoff=0.5)
    some = close or sorted({name.rpartition("/")[0] for name in known})
    return f"known names are {', '.join(some)}; "


def _fetched(dataset_id: str, staging: Path) -> str | None:
    """Runs `fetch` in a process of its own, whose bars are seen; None, or why it failed."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, dataset_id],
        env={**os.environ, "MINARI_DATASETS_PATH": str(staging), "HF_HUB_VERBOSITY": "error"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    timer = threading.Timer(ANSWER_WITHIN, process.kill)
    timer.start()
    try:
        found = process.stdout.readline().strip()
        timer.cancel()
        if found == "found":
            print(f"downloading {dataset_id}", file=sys.stderr)
            found = process.stdout.readline().strip()
        if process.wait() == 0:
            return None
        return found or f"no usable answer from the server within {ANSWER_WITHIN:.0f} s"
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def fetch(dataset_id: str) -> None:
    """The other process: downloads into $MINARI_DATASETS_PATH.

    Prints `found`, then nothing, or a line that says what went wrong and exits with 1.
    """
    answer = sys.stdout
    try:
        from minari.storage.hosting import get_cloud_storage, list_remote_datasets

        with redirect_stdout(sys.stderr):
            remote = list_remote_datasets(prefix=dataset_id, compatible_minari_version=True)
            if dataset_id not in remote:
                raise LookupError("the remote catalog has no such data set")
            print("found", file=answer, flush=True)
            get_cloud_storage().download_dataset(dataset_id, store_root())
    except Exception as error:  # of Minari, its client or the network: told in one line
        text = " ".join(str(error).split()) or type(error).__name__
        print(text[:200], file=answer, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    fetch(sys.argv[1])
