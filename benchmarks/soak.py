"""Interrupt trainings at random, resume them to their end, and compare them with whole ones.

    python benchmarks/soak.py --minutes 10 --seed 0

Each chain is one run of a tiny agent: `python train.py …`, ended by SIGKILL, a stop signal or a
limit on the size of files at a random moment, then `resume=` until it is finished. It escapes when
a process prints a traceback or ends with an exit code that its fault does not explain, when
weights, optimizer, noise or rows differ from those of the same run without interruptions, or when a
temporary file or a process is left. The last line counts; the exit code is 1 when a chain escaped.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.builders import differences
from support.train import load_learned, processes, rows

from offline_cql.runs.folder import EVALUATION, METRICS, VALIDATION, saved_updates
from offline_cql.runs.result import read_result

ROOT = Path(__file__).resolve().parents[1]
COMMON = (
    *("logger=csv", "dataset.size=2_000", "batch_size=16", "updates=1_500", "hardware=cpu"),
    *("checkpoint_every=100", "log_every=50", "evaluation.every=300", "evaluation.episodes=2"),
    *("evaluation.environments=2", "hardware.updates_per_step=10"),
)
CRITICS = ("network.critic_hidden=[16,16]",)
ACTOR = ("network.actor_hidden=[16,16]",)
KINDS = {
    "default": ("env=pendulum", *CRITICS, *ACTOR, "cql.n_action_samples=2"),
    "lagrange": ("env=pendulum", "cql=lagrange", *CRITICS, *ACTOR, "cql.n_action_samples=2"),
    "discrete": ("env=cartpole", *CRITICS, "dataset.validation_fraction=0.2"),
    "cloning": ("env=pendulum", "algorithm=bc", *ACTOR),
}
FAULTS = (*["SIGKILL"] * 4, *["SIGTERM", "SIGINT", "SIGUSR1", "file size"] * 2, "none")
LONGEST = 120  # seconds of one process


class EscapedError(Exception):
    """A chain did not end as it must."""


def start(words: list[str], limit: int | None) -> "subprocess.Popen[str]":
    """Start train.py, with a limit in bytes on the files that it writes, or None."""
    size = (limit, resource.RLIM_INFINITY)
    before = partial(resource.setrlimit, resource.RLIMIT_FSIZE, size) if limit is not None else None
    return subprocess.Popen(
        [sys.executable, "train.py", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def run_with_fault(words: list[str], name: str, draw: random.Random, seconds: float) -> int:
    """Run train.py with a fault within its usual seconds; return its exit code.

    Raises EscapedError for a traceback, and for an exit code of no such end.
    """
    limit = draw.randrange(100_000) if name == "file size" else None
    process = start(words, limit)
    codes = {0}
    if name == "file size":
        codes |= {1}
    elif name != "none":
        number = signal.Signals[name]
        codes |= {-number, 128 + number}  # the first before the imports are done
        try:
            process.wait(draw.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        raise EscapedError(f"{name}: it did not end within {LONGEST} s") from None
    if "Traceback" in errors or process.returncode not in codes:
        raise EscapedError(f"{name}: exit code {process.returncode}\n{errors[-3000:]}")
    return process.returncode


def learned(folder: Path) -> dict[str, Any]:
    """Return what a finished run has learned and written, without the columns of time."""
    files = (folder / name for name in (METRICS, EVALUATION, VALIDATION))
    return load_learned(folder) | {path.name: rows(path) for path in files if path.exists()}


def run_chain(folder: Path, kind: str, draw: random.Random, whole: dict[str, Any]) -> int:
    """Train a run with random interruptions until it is finished; return their number.

    whole: what the same run learns without them, and its seconds. Raises EscapedError.
    """
    words = [*KINDS[kind], *COMMON, f"run_dir={folder}"]
    faults = 0
    while True:
        resumed = folder.exists() and bool(saved_updates(folder))
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
        name = draw.choice(FAULTS) if faults < 20 else "none"
        code = run_with_fault(
            [f"resume={folder}"] if resumed else words, name, draw, whole["seconds"]
        )
        faults += code != 0
        if code == 0 and read_result(folder)["status"] == "finished":
            break
    if places := differences(learned(folder), whole["learned"]):
        raise EscapedError(f"{places} differ after {faults} interruptions")
    if left := [str(path) for path in folder.rglob(".*.tmp")]:
        raise EscapedError(f"left over: {left}")
    if processes(folder):
        raise EscapedError(f"processes left over: {processes(folder)}")
    return faults


def train_whole(folder: Path, kind: str) -> dict[str, Any]:
    """Train a run without interruptions; return what it learned and its seconds."""
    begin = time.monotonic()
    run_with_fault(
        [*KINDS[kind], *COMMON, f"run_dir={folder}"], "none", random.Random(), seconds=LONGEST
    )
    return {"learned": learned(folder), "seconds": time.monotonic() - begin}


def main() -> int:
    """Run for --minutes, but at least one chain of each kind; return 1 when a chain escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    chains, faults, escaped = 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        os.environ["MINARI_DATASETS_PATH"] = str(base / "store")
        os.environ["OFFLINE_CQL_CACHE"] = str(base / "cache")
        whole = {kind: train_whole(base / kind, kind) for kind in KINDS}
        while chains < len(KINDS) or time.monotonic() < end:
            kind, folder = [*KINDS][chains % len(KINDS)], base / f"chain-{chains}"
            try:
                faults += run_chain(folder, kind, draw, whole[kind])
            except EscapedError as error:
                escaped += 1
                print(f"chain {chains}, {kind}: {error}", flush=True)
            chains += 1
            shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {arguments.seed}: {chains} chains, {faults} interruptions, {escaped} escaped")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
