"""Guarantee: any user can run everything, given the variables of docs/design.md; else one line.

No home, one that is no path, one that cannot be written, a user without an entry in the system's
list, an installation that is read-only. Nothing makes a folder named `~`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from support.config import ROOT
from support.forked import Forks
from support.train import TINY

from offline_cql.runs.provenance import commit

TRAINING = (
    *(key for key in TINY if key not in ("evaluation=none", "logger=csv")),
    *("updates=10", "checkpoint_every=10", "evaluation.every=10", "evaluation.episodes=1"),
    *("evaluation.environments=1", "dataset.validation_fraction=0.4"),
)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as process:
        yield process


@pytest.mark.parametrize("home", ["", "home", "./home"])
def test_a_home_that_is_no_path_is_named(home: str, forks: Forks, tmp_path: Path):
    """Else data sets would lie in a folder of the current one, or of the root."""
    unset = dict.fromkeys(("MINARI_DATASETS_PATH", "OFFLINE_CQL_CACHE", "XDG_CACHE_HOME"))
    ended = forks.run("train.py", *TRAINING, cwd=tmp_path, env=unset | {"HOME": home})
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        f"error: ~/.minari/datasets cannot be found (HOME={home} is not an absolute path): "
        "set MINARI_DATASETS_PATH to a folder that you can write, on a disk with space"
    )
    assert list(tmp_path.iterdir()) == []


def test_code_of_another_user_has_a_commit(monkeypatch: pytest.MonkeyPatch):
    """Git refuses repositories of others (a container, a shared installation); not this one."""
    if not (ROOT / ".git").exists() or (expected := commit()) is None:
        pytest.skip("this copy of the code is not a git repository")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commit() == expected


# --- Users of the system ----------------------------------------------------------------------

# Root without its privileges is bound by the permissions of files, as every user is.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
# A user whose number the system does not know, as with `docker run --user 12345`.
User: TypeAlias = tuple[tuple[str, ...], dict[str, str]]
UNKNOWN = ("unshare", "--user", "--map-user=12345", "--map-group=12345")


def works(*prefix: str) -> bool:
    """Return whether a program can be started with a prefix."""
    found = shutil.which(prefix[0]) is not None
    return (
        found
        and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0
    )


def bound() -> tuple[str, ...]:
    """Return the prefix of a process that permissions bind; skip the test if there is none."""
    if os.geteuid() != 0:
        return ()
    if not works(*UNPRIVILEGED):
        pytest.skip("root is bound by no permissions, and setpriv cannot change that")
    return UNPRIVILEGED


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder that cannot be written."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.fixture(params=["an unwritable home", "an unknown user without a home"])
def user(request: pytest.FixtureRequest, unwritable: Path) -> User:
    """Return the prefix of a process of a user without a home to write to, and its variables."""
    if request.param == "an unwritable home":
        return bound(), {"HOME": str(unwritable)}
    if not works(*UNKNOWN):
        pytest.skip("this machine allows no user namespaces")
    return UNKNOWN, {}


def start(
    *words: str, prefix: tuple[str, ...], cwd: Path, env: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a Python file with nothing in the environment but these variables."""
    shared = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [*prefix, sys.executable, *words],
        cwd=cwd,
        env=shared | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_without_the_variables_one_line_names_the_first(user: User, tmp_path: Path):
    """Exit code 2, no traceback, no folder."""
    prefix, env = user
    (tmp_path / "cwd").mkdir()
    words = (str(ROOT / "train.py"), *TRAINING)
    ended = start(*words, prefix=prefix, cwd=tmp_path / "cwd", env=env)
    assert ended.returncode == 2, ended.stderr
    remedy = "set MINARI_DATASETS_PATH to a folder that you can write, on a disk with space"
    assert ended.stderr.strip().splitlines()[-1].endswith(remedy)
    assert "Traceback" not in ended.stderr
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.slow
def test_with_the_variables_everything_works(user: User, tmp_path: Path):
    """From an installation that cannot be written; W&B is offline and prints nothing."""
    prefix, env = user
    code, cwd = tmp_path / "code", tmp_path / "cwd"
    cwd.mkdir()
    code.mkdir()
    for name in ("conf", "src"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, code)
    folders = [*code.rglob("*"), code]
    for path in folders:
        path.chmod(path.stat().st_mode & ~0o222)
    env |= {"PYTHONPATH": str(code / "src"), "OFFLINE_CQL_CACHE": str(tmp_path / "cache")}
    env |= {"MINARI_DATASETS_PATH": str(tmp_path / "store")}
    try:
        for command in (
            ("train.py", *TRAINING, "run_dir=run"),
            ("train.py", "resume=run", "updates=20"),
            ("train.py", "-m", *TRAINING, "seed=1,2", "logger=csv"),
            ("evaluate.py", "run=run", "evaluation.episodes=0", "ope=fqe", "ope.updates=20"),
            ("report.py", "runs=run"),
            ("export.py", "run=run"),
            ("audit.py", "env=pendulum", "dataset.size=2_000"),
            ("collect.py", "env=cartpole", "dataset.size=500"),
        ):
            ended = start(str(code / command[0]), *command[1:], prefix=prefix, cwd=cwd, env=env)
            assert ended.returncode == 0, ended.stderr
            for word in ("Traceback", "wandb-core", "INFO", "Matplotlib", "warning: W&B"):
                assert word not in ended.stderr, ended.stderr
        assert list((cwd / "run" / "wandb").glob("offline-run-*"))
        assert [path for path in tmp_path.rglob("*") if path.name == "~"] == []
    finally:
        for path in folders:
            path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.slow
@pytest.mark.parametrize("home", ["", "home"])
def test_wandb_works_where_the_home_is_no_path(home: str, tmp_path: Path):
    """The settings, log and artifacts of W&B lie in our cache; nothing warns."""
    if not works(*UNKNOWN):
        pytest.skip("this machine allows no user namespaces")
    env = {"HOME": home, "OFFLINE_CQL_CACHE": str(tmp_path / "cache")}
    env["MINARI_DATASETS_PATH"] = str(tmp_path / "store")
    words = (*(key for key in TINY if key != "logger=csv"), "updates=10", "run_dir=run")
    ended = start(
        str(ROOT / "train.py"), "env=pendulum", *words, prefix=UNKNOWN, cwd=tmp_path, env=env
    )
    assert ended.returncode == 0, ended.stderr
    assert "warning" not in ended.stderr, ended.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert not list(tmp_path.glob("home/**/wandb"))
