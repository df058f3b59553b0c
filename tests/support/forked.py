"""Run entry points in forks of one process that has imported them: tenths of a second each.

`Forks` starts the process and sends it commands; run as a script, this file is that process.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("train", "audit", "collect", "evaluate", "export", "report")
TIME_LIMIT = 60.0  # seconds of one command


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative: by this signal), stdout and stderr."""

    code: int
    out: str
    err: str


class Forks:
    """A process that runs entry points in forks of itself; a context."""

    def __enter__(self) -> Forks:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def run(
        self,
        *command: str,
        cwd: Path = ROOT,
        env: Mapping[str, str | None] | None = None,
        limits: Mapping[str, int] | None = None,
        stdout: str | None = None,
        interrupt_after: float | None = None,
    ) -> Ended:
        """Run `python <command>`; command[0] is a file of the project's root.

        env: variables to set, or to unset with None; limits: of the module resource, by name;
        stdout: a file instead of a pipe; interrupt_after: seconds until SIGINT.
        """
        order = {
            "command": command,
            "cwd": str(cwd),
            "env": dict(env or {}),
            "limits": dict(limits or {}),
            "stdout": stdout,
            "interrupt_after": interrupt_after,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))


def main() -> None:
    """Import what the entry points import; run one command per line of stdin."""
    import importlib

    for name in COMMANDS:
        importlib.import_module(f"offline_cql.commands.{name}")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(vars(_fork(json.loads(line)))), file=answers, flush=True)


def _fork(order: dict[str, Any]) -> Ended:
    pipes = [os.pipe(), os.pipe()]
    process = os.fork()
    if process == 0:
        os.setsid()
        _become(order, *(write for _, write in pipes))
        os._exit(_call(order["command"]))
    texts = ["", ""]

    def read(number: int) -> None:
        os.close(pipes[number][1])
        with os.fdopen(pipes[number][0], errors="replace") as stream:
            texts[number] = stream.read()

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    code = _wait(process, order["interrupt_after"])
    for reader in readers:
        reader.join()
    return Ended(code, *texts)


def _wait(process: int, interrupt_after: float | None) -> int:
    """Return the exit code of a fork; interrupt or kill it when its time is over."""
    start = time.monotonic()
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - start
        if interrupt_after is not None and passed > interrupt_after:
            interrupt_after = None
            os.kill(process, signal.SIGINT)
        if passed > TIME_LIMIT:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.005)


def _become(order: dict[str, Any], out: int, err: int) -> None:
    """Give this fork its files, folder, variables and limits."""
    null = os.open(os.devnull, os.O_RDONLY)
    if order["stdout"] is not None:
        out = os.open(order["stdout"], os.O_WRONLY)
    for number, target in enumerate((null, out, err)):
        os.dup2(target, number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(order["cwd"])
    for name, value in order["env"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.path[1:1] = order["env"].get("PYTHONPATH", "").split(os.pathsep)
    for name, value in order["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _call(command: Sequence[str]) -> int:
    """Run an entry point as `python` does; return the exit code."""
    sys.argv = [str(ROOT / command[0]), *command[1:]]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        traceback.print_exc()
        code = 120
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
