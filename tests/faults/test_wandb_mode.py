"""Guarantee: W&B is never more online than it would be by itself, and a run keeps the id it gave.

Every way of switching it off wins over a configured key: variables, `wandb offline`, `wandb
disabled`, settings files. Without a key the run is offline, where W&B would ask for one.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from support.train import TINY, resume_run, train_run

from offline_cql.callbacks.loggers import start_wandb
from offline_cql.io import write_json
from offline_cql.runs.folder import METADATA, read_metadata
from offline_cql.runs.provenance import new_wandb_id
from offline_cql.runs.wandb_run import RunInfo, wandb_mode

KEY = "0" * 40
ONLINE = {"WANDB_API_KEY": KEY}
DATASET = {"dataset": {"id": "sim/a-v0", "sha256": "0"}}
HOST = f"machine api.wandb.ai login user password {KEY}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder, where the command is started; W&B reads its settings again."""
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),  # no key
        (ONLINE, "online"),
        (ONLINE | {"WANDB_MODE": "online"}, "online"),
        (ONLINE | {"WANDB_MODE": "offline"}, "offline"),
        (ONLINE | {"WANDB_MODE": "dryrun"}, "dryrun"),  # W&B's older word for offline
        (ONLINE | {"WANDB_MODE": "disabled"}, "disabled"),
        (ONLINE | {"WANDB_DISABLED": "true"}, "disabled"),
        (ONLINE | {"WANDB_DISABLED": "false"}, "online"),
        ({"WANDB_MODE": "online"}, "offline"),  # no key: W&B would ask for one
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_IDENTITY_TOKEN_FILE": "token"}, "online"),
    ],
)
def test_variables(environment: dict[str, str], mode: str, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode() == mode


@pytest.mark.parametrize("place", ["wandb/settings", "config/settings"])
@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("mode = offline", "offline"),
        ("mode = disabled", "disabled"),
        ("mode = online", "online"),
        ("project = other", "online"),
    ],
)
def test_settings_files(
    place: str, text: str, mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of the folder where the command is started, and of the user."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    path = folder / place
    path.parent.mkdir()
    path.write_text(f"[default]\n{text}\n")
    assert wandb_mode() == mode


@pytest.mark.parametrize(
    ("netrc", "environment", "mode"),
    [
        (HOST, {}, "online"),
        (HOST.replace("api.wandb.ai", "other.host"), {}, "offline"),
        (HOST, {"WANDB_BASE_URL": "https://other.host"}, "offline"),
        ("not a netrc file", {}, "offline"),
        (HOST, {"WANDB_MODE": "offline"}, "offline"),
    ],
)
def test_a_key_in_the_netrc_file_is_for_its_host(
    netrc: str,
    environment: dict[str, str],
    mode: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (folder / "netrc").write_text(netrc)
    assert wandb_mode() == mode


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Set W&B's address to a server of this test; the list gets what is sent there."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # it was closed
                    return
                with connection:
                    received.append(connection.recv(1000))

        threading.Thread(target=accept, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield received
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("word", ["offline", "disabled"])
def test_no_data_leave_after_wandb_was_switched_off(word: str, folder: Path, server: list[bytes]):
    """With W&B's own command; a key is configured."""
    program = Path(sys.executable).with_name("wandb")
    subprocess.run([program, word], check=True, capture_output=True)
    logger = start_wandb(info(folder))
    logger.log_metrics({"a": 1.0}, step=1)
    logger.experiment.finish()
    assert server == []


def test_data_are_sent_without_a_switch(
    folder: Path, server: list[bytes], monkeypatch: pytest.MonkeyPatch
):
    """So that the test above can fail. The server does not answer."""
    monkeypatch.setattr("offline_cql.runs.wandb_run.WANDB_INIT_TIMEOUT", 2.0)
    logger = start_wandb(info(folder))
    logger.experiment.finish()
    assert server != []


def info(folder: Path, run_id: str = "00000001") -> RunInfo:
    none = dict.fromkeys(("grid", "entity", "group", "name", "job_type", "notes"))
    return RunInfo(folder=folder, config={}, run_id=run_id, project="p", tags=[], **none)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        (ONLINE | {"WANDB_MODE": "offline"}, "note: W&B is offline: WANDB_MODE=offline\n"),
        (ONLINE | {"WANDB_MODE": "dryrun"}, "note: W&B is offline: WANDB_MODE=dryrun\n"),
        (ONLINE | {"WANDB_DISABLED": "true"}, "note: W&B logs nothing: WANDB_DISABLED=true\n"),
        (
            {"WANDB_MODE": "online"},
            "note: W&B is offline: WANDB_MODE=online needs a key: run `wandb login`\n",
        ),
        ({}, ""),  # documented: offline without a key
    ],
)
def test_the_switch_that_won_is_said_in_one_line(
    environment: dict[str, str], line: str, folder: Path, monkeypatch: Any, capsys: Any
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start_wandb(info(folder)).experiment.finish()
    assert capsys.readouterr().err == line


def test_the_settings_file_that_switches_wandb_off_is_named(folder: Path, capsys: Any):
    path = folder / "config" / "settings"
    path.parent.mkdir()
    path.write_text("[default]\nmode = disabled\n")
    start_wandb(info(folder))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"note: W&B logs nothing: mode = disabled in {path}"


# --- The id -----------------------------------------------------------------------------------


def test_the_id_is_that_of_the_shell_for_a_single_run(monkeypatch: pytest.MonkeyPatch):
    """The jobs of a grid share the shell: each has an id of its own."""
    assert new_wandb_id(None) != new_wandb_id(None)
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert new_wandb_id(None) == "given"
    assert new_wandb_id("grid") != "given"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")  # W&B takes no other id in a sweep
    assert new_wandb_id("grid") == "given"


def test_a_run_of_a_sweep_has_the_id_of_its_agent(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """W&B ignores every other id in a sweep."""
    for name, value in {"MODE": "offline", "SWEEP_ID": "sweep", "RUN_ID": "agents"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    logger = start_wandb(info(folder, run_id="agents"))
    assert logger.experiment.id == "agents"
    logger.experiment.finish()


def test_the_recorded_id_is_the_one_that_wandb_gave(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A run resumed by the agent of a sweep: W&B takes the agent's id, and no other."""
    for name, value in {"MODE": "offline", "SWEEP_ID": "sweep", "RUN_ID": "agents"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    write_json(folder / METADATA, DATASET | {"wandb_id": "before"})
    start_wandb(info(folder, run_id="before")).experiment.finish()
    assert read_metadata(folder)["wandb_id"] == "agents"


@pytest.mark.usefixtures("recorded")
def test_a_resumed_run_keeps_its_id_in_another_shell(folder: Path, monkeypatch: Any):
    """It is recorded before the first update; the second shell has another one."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_RUN_ID", "first")
    settings = [key for key in TINY if key != "logger=csv"]
    run = train_run(folder / "run", *settings, "logger=wandb", "updates=10")
    assert read_metadata(run)["wandb_id"] == "first"
    monkeypatch.setenv("WANDB_RUN_ID", "second")
    used: list[str] = []

    def note_id(_names: Any, info: RunInfo) -> list[Any]:
        used.append(str(info.run_id))
        return []

    monkeypatch.setattr("offline_cql.commands.fit.make_loggers", note_id)
    resume_run(run, "updates=20")
    assert used == ["first"]
