"""Guarantee: nothing that a user can cause is a traceback.

Each situation ends with one line that names the fault, its place and the remedy, and with an exit
code: 2 for what is wrong, 1 for what failed, 130 for an interrupt. Mistakes in the code stay
tracebacks.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from support.config import run_entry_point
from support.forked import Ended, Forks
from support.train import TINY, entry_point, train_run

from offline_cql.errors import explain
from offline_cql.io import cache_root
from offline_cql.readers.minari.store import store_root
from offline_cql.runs.checkpoint import read_checkpoint
from offline_cql.runs.folder import state_path

pytestmark = pytest.mark.usefixtures("recorded")

RUN = (*TINY, "updates=10")
PLAYED = ("evaluation.episodes=1", "evaluation.environments=1")
TABLE = ("audit.py", "env=logged", "dataset=table", "infer=true")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    """Train 10 updates; return the run folder, which tests copy."""
    return train_run(tmp_path_factory.mktemp("finished") / "run", *RUN)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def reading(command: str, run: Path) -> tuple[str, ...]:
    """Return a command line that reads the run."""
    return {
        "evaluate": ("evaluate.py", f"run={run}", *PLAYED),
        "export": ("export.py", f"run={run}"),
        "collect": ("collect.py", f"policy=run:{run}", "env=pendulum", "dataset.size=100"),
        "resume": ("train.py", f"resume={run}", "updates=12"),
    }[command]


def write(path: Path, content: bytes | str) -> Path:
    """Write a file; "pipe" and "folder" are of these kinds."""
    if path.exists():
        path.unlink()
    if content == "pipe":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def check(ended: Ended, code: int, *words: str) -> None:
    """Compare the exit code, and the words of the one line that starts with `error: `."""
    assert "Traceback" not in ended.err + ended.out, ended.err
    assert ended.code == code, ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert ended.err.endswith(line + "\n")
    for word in words:
        assert word in line


# --- Settings -----------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "environment": (("env.id=Nope-v0",), 2, ("'Nope-v0'", "check env.id and env.arguments")),
    "version": (("env.id=Pendulum-v9",), 2, ("Pendulum-v9", "`v1`")),
    "argument": (("+env.arguments.nope=1",), 1, ("'nope'", "check env.id and env.arguments")),
    "steps": (("+env.arguments.max_episode_steps=abc",), 1, ("max_episode_steps",)),
    "integer": ((f"dataset.n_step={10**30}",), 2, ("dataset.n_step=1", "below 2^63")),
    "critics": (("network.n_critics=1000000000",), 2, ("network.n_critics=1000000000", "GB")),
    "width": (("network.critic_norm=layer", "network.n_critics=9000000000000000000"), 2, ("GB",)),
    "device": (("run_dir=/dev/null",), 2, ("run_dir=/dev/null", "a new folder")),
    "below a device": (("run_dir=/dev/null/x",), 2, ("/dev/null", "set run_dir to")),
    "proc": (("run_dir=/proc/x/y",), 2, ("/proc/x", "set run_dir to", "can write")),
    "empty": (("run_dir=''",), 2, ("run_dir=", "a new folder")),
    "root": (("run_dir=/",), 2, ("run_dir=/", "a new folder")),
    "long": (("run_dir=/tmp/" + "x" * 300,), 2, ("File name too long", "set run_dir to")),
    "user": (("run_dir='~nobody_of_this_name/x'",), 2, ("~nobody_of_this_name",)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_be_used_is_one_line(name: str, forks: Forks, tmp_path: Path):
    settings, code, words = SETTINGS[name]
    folder = () if "run_dir" in settings[0] else (f"run_dir={tmp_path}/run",)
    check(forks.run("train.py", *RUN, *settings, *folder, cwd=tmp_path), code, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null", "/dev/full", "FILE/x", "x" * 300])
@pytest.mark.parametrize("variable", ["OFFLINE_CQL_CACHE", "MINARI_DATASETS_PATH"])
def test_a_place_that_cannot_be_used_names_its_variable(
    variable: str, place: str, forks: Forks, tmp_path: Path
):
    write(tmp_path / "FILE", "")
    place = place if place.startswith("/") else f"{tmp_path}/{place}"
    ended = forks.run("train.py", *RUN, f"run_dir={tmp_path}/run", env={variable: place})
    check(ended, 2, place[:10], f"set {variable} to a folder that you can write")


@pytest.mark.parametrize("command", ["audit", "report"])
def test_a_folder_of_results_that_cannot_be_made_names_its_setting(
    command: str, forks: Forks, finished: Path
):
    data = (f"runs={finished}",) if command == "report" else ("dataset.size=2000",)
    check(forks.run(f"{command}.py", *data, "out=/proc/x"), 2, "/proc/x", "set out to")


def test_too_many_steps_for_the_disk_are_refused_before_they_are_made(forks: Forks):
    """10¹³ steps of five numbers in float32: 200,000 GB."""
    ended = forks.run("collect.py", "env=pendulum", "dataset.size=10000000000000")
    check(ended, 2, "200,000 GB", "choose a smaller dataset.size")


def test_a_lack_of_memory_while_training_is_one_line(forks: Forks, tmp_path: Path):
    """A billion sampled actions for each of 16 states."""
    others = [key for key in RUN if not key.startswith("cql.n_action_samples")]
    more = ("cql.n_action_samples=1000000000", f"run_dir={tmp_path}/run")
    check(forks.run("train.py", *others, *more), 1, "the memory is not enough", "smaller")


def test_without_git_and_without_a_path_a_run_is_trained(forks: Forks, tmp_path: Path):
    ended = forks.run("train.py", *RUN, f"run_dir={tmp_path}/run", env={"PATH": "/nonexistent"})
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["commit"] is None


# --- Full disks ---------------------------------------------------------------------------------


def temporary_files(*folders: Path) -> list[Path]:
    """Return what an aborted write must not leave behind."""
    hidden = ("building", ".recording")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if file.suffix == ".tmp" or set(hidden) & set(file.parts)]


@pytest.mark.parametrize("size", [100, 2_000, 7_000, 20_000])
def test_a_full_disk_keeps_the_last_good_checkpoint(size: int, forks: Forks, run: Path):
    """The write that fails differs; the 10th update stays, and the run goes on from there."""
    limits = {"RLIMIT_FSIZE": size}
    check(forks.run("train.py", f"resume={run}", "updates=12", limits=limits), 1, "too large")
    assert read_checkpoint(state_path(run, 10))["updates"] == 10
    assert temporary_files(run) == []
    ended = forks.run("train.py", f"resume={run}", "updates=12")
    assert ended.code == 0, ended.err
    assert read_checkpoint(state_path(run, 12))["updates"] == 12


@pytest.mark.parametrize("size", [0, 5_000])
@pytest.mark.parametrize("variable", ["OFFLINE_CQL_CACHE", "MINARI_DATASETS_PATH"])
def test_a_full_disk_of_data_leaves_nothing_behind(
    variable: str, size: int, forks: Forks, tmp_path: Path
):
    """HDF5 itself would end with a segmentation fault."""
    limits, env = {"RLIMIT_FSIZE": size}, {variable: str(tmp_path / "data")}
    ended = forks.run("train.py", *RUN, f"run_dir={tmp_path}/run", limits=limits, env=env)
    check(ended, 1, "File too large", f"set {variable} to")
    assert temporary_files(tmp_path) == []


@pytest.mark.parametrize("command", ["evaluate", "export", "report", "audit"])
def test_a_full_disk_of_results_names_the_file(
    command: str, forks: Forks, run: Path, tmp_path: Path
):
    options = {
        "report": (f"runs={run}", f"out={tmp_path}/report"),
        "audit": ("dataset.size=2000", f"out={tmp_path}/audit"),
    }.get(command, reading(command, run)[1:] if command in ("evaluate", "export") else ())
    ended = forks.run(f"{command}.py", *options, limits={"RLIMIT_FSIZE": 100})
    check(ended, 1, str(tmp_path), "File too large", "raise the limit on the size of files")
    assert temporary_files(tmp_path) == []


@pytest.mark.parametrize("command", [("evaluate.py", *PLAYED), ("train.py", "--help")])
def test_output_to_a_full_disk_is_one_line(command: tuple[str, ...], forks: Forks, run: Path):
    more = (f"run={run}",) if command[0] == "evaluate.py" else ()
    ended = forks.run(*command, *more, stdout="/dev/full")
    check(ended, 1, "stdout: No space left on device")


# --- Files of a run -----------------------------------------------------------------------------


def doubled(count: int) -> str:
    """Return settings whose last one is 2^count times as long as the first."""
    steps = ", ".join(f'a{k + 1}: "${{.a{k}}}${{.a{k}}}"' for k in range(count))
    return f"env: {{arguments: {{a0: x, {steps}}}}}\n"


CONFIGS: dict[str, bytes | str] = {
    **{"empty": "", "zeros": "\0\0", "bytes": b"a: \xff\xfe", "scalar": "3", "list": "- 1"},
    **{"UTF-16": "seed: 1\n".encode("utf-16"), "bomb": BOMB, "deep": f"a: {DEEP}"},
    **{"doubled": doubled(40), "self": "gamma: ${gamma}\n", "null key": "null: 2\n"},
    **{"tag": 'a: !!python/object/apply:os.system ["echo no"]', "two": "seed: 1\nseed: 2\n"},
    **{"other project": "trainer: {max_epochs: 3}\n", "pipe": "pipe", "folder": "folder"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_damaged_config_is_one_line(name: str, forks: Forks, run: Path):
    """It names the file; report.py lists the run as left out."""
    write(run / "config.yaml", CONFIGS[name])
    check(forks.run(*reading("evaluate", run)), 2, str(run / "config.yaml"))
    listed = forks.run("report.py", f"runs={run}", f"out={run.parent}/report")
    assert (listed.code, "left out" in listed.out) == (0, True), listed.err


@pytest.mark.parametrize("command", ["export", "collect", "resume"])
def test_every_command_refuses_a_damaged_config(command: str, forks: Forks, run: Path):
    write(run / "config.yaml", BOMB)
    check(forks.run(*reading(command, run)), 2, "config.yaml", "with its aliases")


JSON_FILES = {
    **{"empty": "", "list": "[]", "null": "null", "object": "{}", "deep": DEEP, "bytes": b"\xff"},
    "types": '{"dataset": 3, "status": [], "validation_episodes": 1, "gamma": "x"}',
    "digits": '{"updates": ' + "9" * 5_000 + "}",
    **{"pipe": "pipe", "folder": "folder"},
}


@pytest.mark.parametrize("content", JSON_FILES)
@pytest.mark.parametrize("file", ["metadata.json", "result.json", "ope.json", "audit.json"])
def test_a_damaged_json_file_is_one_line(file: str, content: str, forks: Forks, run: Path):
    """The command that reads the file says so; report.py lists the run or leaves it out."""
    write(run / file, JSON_FILES[content])
    listed = forks.run("report.py", f"runs={run}", f"out={run.parent}/report")
    assert (listed.code, "Traceback" in listed.err) == (0, False), listed.err
    if file == "metadata.json":
        check(forks.run(*reading("evaluate", run)), 2, str(run / file))
    if file == "result.json":
        check(forks.run("train.py", f"resume={run}"), 2, str(run / file))


@pytest.mark.parametrize("content", ["[]", "{}", '{"validation_episodes": 1}', "pipe"])
def test_damaged_estimates_are_one_line(content: str, forks: Forks, run: Path):
    """export.py writes the estimates into policy.json; {} has none."""
    write(run / "ope.json", content)
    ended = forks.run(*reading("export", run))
    if content == "{}":
        assert ended.code == 0, ended.err
    else:
        check(ended, 2, str(run / "ope.json"))


def odd_states(state: dict[str, Any]) -> dict[str, Any]:
    """Return contents of a checkpoint that its checksum says nothing about."""
    agent, optimizer, spaces = state["agent"], state["optimizer"], state["spaces"]
    zeros = {name: torch.zeros(7, 7, 7) for name in agent}
    groups = [{"params": group["params"]} for group in optimizer["param_groups"]]
    return {
        **{"empty": b"", "text": b"hello", "archive": b"PK\x03\x04xxxx", "list": [1], "none": {}},
        "format": state | {"format": "x"},
        "newer": state | {"format": 99},
        "no agent": {k: v for k, v in state.items() if k != "agent"},
        "numbers": state | {"agent": dict.fromkeys(agent, 3)},
        "shapes": state | {"agent": zeros},
        "spaces": state | {"spaces": {}},
        "negative": state | {"spaces": spaces | {"observation_dim": -1}},
        "bounds": state | {"spaces": spaces | {"action_low": ("a",)}},
        "data": state | {"dataset": "x"},
        "resume: optimizer": state | {"optimizer": {}},
        "resume: groups": state | {"optimizer": optimizer | {"param_groups": groups}},
        "resume: moments": state | {"optimizer": optimizer | {"state": {0: 3}}},
        "resume: noise": state | {"noise": torch.zeros(5)},
        "resume: paths": state | {"lengths": state["lengths"] | {"../../x.csv": 0}},
        "resume: lengths": state | {"lengths": state["lengths"] | {"metrics.csv": -1}},
        "resume: settings": state | {"config": []},
    }


ODD = (
    *("empty", "text", "archive", "list", "none", "format", "newer", "no agent", "numbers"),
    *("shapes", "spaces", "negative", "bounds", "data", "resume: optimizer", "resume: groups"),
    *("resume: moments", "resume: noise", "resume: paths", "resume: lengths", "resume: settings"),
)


@pytest.mark.parametrize("name", ODD)
def test_a_checkpoint_with_its_checksum_and_odd_content_is_one_line(
    name: str, forks: Forks, run: Path
):
    path = state_path(run, 10)
    content = odd_states(torch.load(path, weights_only=True))[name]
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        content = buffer.getvalue()
    path.write_bytes(content)
    path.with_name("10.ckpt.sha256").write_text(hashlib.sha256(content).hexdigest())
    command = "resume" if name.startswith("resume") else "evaluate"
    check(forks.run(*reading(command, run)), 2, "checkpoint" if name != "newer" else "format 99")


@pytest.mark.parametrize("content", ["", "1,2\n", b"\xff\x00\n", "pipe", "folder"])
@pytest.mark.parametrize("file", ["metrics.csv", "evaluation.csv"])
def test_a_damaged_curve_is_one_line(file: str, content: bytes | str, forks: Forks, run: Path):
    write(run / file, content)
    listed = forks.run("report.py", f"runs={run}", f"out={run.parent}/report")
    assert (listed.code, "Traceback" in listed.err) == (0, False), listed.err
    ended = forks.run(*reading("resume", run))
    if file == "metrics.csv":
        check(ended, 2, str(run / file))


# --- Data ---------------------------------------------------------------------------------------

TEXT = "größe,observation_0,action,reward,terminated\n1,2,0,1,1\n"
TABLES: dict[str, tuple[bytes | str, str]] = {
    "latin.csv": (TEXT.encode("latin-1"), "is not UTF-8"),
    "sjis.csv": ("観測,action\n1,2\n".encode("shift-jis"), "is not UTF-8"),
    "noise.csv": (bytes(range(256)) * 20, "is not UTF-8"),
    "empty.csv": ("", "is empty"),
    "text.csv.gz": (TEXT, "cannot be read"),
    "text.parquet": (TEXT, "cannot be read"),
    "text.npz": (TEXT, "cannot be read"),
    "sheet.xlsx": (TEXT, "supported are"),
    "pipe.csv": ("pipe", "is not a regular file"),
    "folder.csv": ("folder", "contains no file to read"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_read_is_one_line(name: str, forks: Forks, tmp_path: Path):
    content, words = TABLES[name]
    path = write(tmp_path / name, content)
    check(forks.run(*TABLE, f"dataset.path={path}"), 2, str(path), words)


@pytest.mark.parametrize("path", ["/dev/zero", "/nope.csv", "'~nobody_of_this_name/x.csv'"])
def test_a_path_without_data_is_one_line(path: str, forks: Forks):
    check(forks.run(*TABLE, f"dataset.path={path}"), 2, path.strip("'"))


@pytest.mark.parametrize("content", ["", "[]", DEEP, '{"observation_space": "[["}'])
@pytest.mark.parametrize("file", ["data/metadata.json", "manifest.json"])
def test_a_damaged_data_set_is_one_line(file: str, content: str, forks: Forks, tmp_path: Path):
    name = "sim/pendulum/mixed_2000-v0"
    shutil.copytree(store_root() / "sim" / "pendulum", tmp_path / "sim" / "pendulum")
    write(tmp_path / name / file, content)
    env = {"MINARI_DATASETS_PATH": str(tmp_path), "OFFLINE_CQL_CACHE": str(tmp_path / "cache")}
    check(forks.run("audit.py", "dataset.size=2000", f"out={tmp_path}/audit", env=env), 2, name)


def test_a_pipe_among_the_files_of_a_data_set_is_not_waited_for(forks: Forks, tmp_path: Path):
    shutil.copytree(store_root() / "sim" / "pendulum", tmp_path / "sim" / "pendulum")
    write(tmp_path / "sim/pendulum/mixed_2000-v0/data/main_data.hdf5", "pipe")
    env = {"MINARI_DATASETS_PATH": str(tmp_path)}
    ended = forks.run("audit.py", "dataset.size=2000", f"out={tmp_path}/audit", env=env)
    check(ended, 2, "main_data.hdf5 is not a regular file")


NOTES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda _note: {},
    "no sha256": lambda note: note | {"sha256": 3},
    "outside": lambda note: note | {"sha256": "../.."},
    "files": lambda note: note | {"files": []},
    "checksums": lambda note: note | {"checksums": {"rows.f32": 3}},
    "size": lambda note: note | {"size": 10**15},
    "spaces": lambda note: note | {"spaces": {}},
    "repairs": lambda note: note | {"repairs": {"x": "y"}},
}


@pytest.mark.parametrize("name", NOTES)
def test_any_note_in_the_cache_is_read_or_replaced(name: str, forks: Forks, tmp_path: Path):
    """The note has the checksum of its content: the data are read again from their source."""
    forks.run("audit.py", "dataset.size=2000", f"out={tmp_path}/first")
    shutil.copytree(cache_root(), tmp_path / "cache")
    for path in (tmp_path / "cache" / "metadata").glob("*.json"):
        note = NOTES[name](json.loads(path.read_text())["metadata"])
        text = json.dumps(note, sort_keys=True).encode()
        content = {"metadata": note, "checksum": xxhash.xxh3_64_hexdigest(text)}
        path.write_text(json.dumps(content))
    env = {"OFFLINE_CQL_CACHE": str(tmp_path / "cache")}
    ended = forks.run("audit.py", "dataset.size=2000", f"out={tmp_path}/audit", env=env)
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert ended.err.count("reading the data again") == 1


@pytest.mark.parametrize("content", [BOMB, f"a: {DEEP[:5_000]}", "pipe"])
def test_a_config_of_the_user_that_grows_without_bound_is_refused(
    content: str, forks: Forks, tmp_path: Path
):
    (tmp_path / "experiment").mkdir()
    write(tmp_path / "experiment" / "mine.yaml", content)
    ended = forks.run("train.py", "--config-dir", str(tmp_path), "experiment=mine", *RUN)
    check(ended, 2, "mine")


# --- Interrupts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.05, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("command", ["collect", "evaluate", "export"])
def test_an_interrupt_is_no_traceback(
    command: str, after: float, forks: Forks, run: Path, tmp_path: Path
):
    """Ended by the signal while it imports, later with 130; a recording leaves nothing."""
    line = ("collect.py", "env=hopper", "dataset.size=30000")
    if command != "collect":
        line = (*reading(command, run), *(["evaluation.seed=1"] if command == "evaluate" else []))
    env = {"MINARI_DATASETS_PATH": str(tmp_path / "store")} if command == "collect" else {}
    ended = forks.run(*line, env=env, interrupt_after=after)
    assert "Traceback" not in ended.err, ended.err
    assert ended.code in (-2, 130, 0), ended.err
    assert temporary_files(tmp_path) == []


def test_an_interrupt_during_the_first_imports_ends_the_process():
    """Started as users do; the first second is spent importing."""
    for number in range(3):
        with entry_point("--help") as process:
            try:
                process.wait(0.1 + 0.2 * number)
            except Exception:
                process.send_signal(2)
            assert process.stderr is not None
            error = process.stderr.read()
            # Python itself needs some milliseconds before it runs any of our code.
            assert "offline_cql" not in error


# --- The boundary -------------------------------------------------------------------------------


def test_the_traceback_is_shown_on_request(forks: Forks):
    ended = forks.run("train.py", *RUN, "run_dir=/proc/x/y", env={"HYDRA_FULL_ERROR": "1"})
    assert (ended.code, "Traceback" in ended.err) == (2, True)
    assert ended.err.splitlines()[-1].startswith("error: /proc/x")


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), AssertionError(), RuntimeError("x"), OSError("x")]
)
def test_a_mistake_in_the_code_stays_a_traceback(error: Exception):
    """OSError without a number of the operating system is none of its errors."""
    assert explain(error) is None


def test_an_error_in_a_process_of_its_own_is_one_line(tmp_path: Path):
    """Not in a fork: the interpreter's own end is part of it."""
    process = run_entry_point("audit", "dataset.size=2000", "out=/proc/x")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
