"""Guarantee: a run folder of a stranger changes no other file and spreads no variable.

What is read of other files of strangers is tested beside their readers: see SECURITY.md.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from support.config import compose_config
from support.train import TINY, resume_run, train_run

from offline_cql.commands import export as command
from offline_cql.commands.load_run import load_agent, load_config
from offline_cql.errors import CheckpointError, DataError
from offline_cql.runs.checkpoint import load_state, write_policy
from offline_cql.runs.folder import CONFIG, METRICS

pytestmark = pytest.mark.usefixtures("recorded")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    return train_run(tmp_path_factory.mktemp("trained") / "run", *TINY, "updates=10")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Copy the run, because a test changes it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize("name", [METRICS, ".lock"])
def test_a_link_in_a_run_folder_leads_to_no_other_file(name: str, run: Path, tmp_path: Path):
    """An archive can have links: resuming would empty, overwrite or extend what they lead to."""
    content = (run / METRICS).read_bytes() + b"rows of another file\n"
    other = tmp_path / "other"
    other.write_bytes(content)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        resume_run(run, "updates=12")
    assert other.read_bytes() == content


def test_a_config_of_a_stranger_reads_no_variable(run: Path, monkeypatch: pytest.MonkeyPatch):
    """Else its value would be in policy.json, which is made to be given away."""
    monkeypatch.setenv("CLOUD_CREDENTIALS", "hunter2")
    config = OmegaConf.load(run / CONFIG)
    config.env.name = "${oc.env:CLOUD_CREDENTIALS}"
    OmegaConf.save(config, run / CONFIG)
    with pytest.raises(DataError, match="has interpolations") as error:
        load_config(run)
    assert "hunter2" not in str(error.value)


def test_an_exported_policy_has_no_secret(run: Path, monkeypatch: pytest.MonkeyPatch):
    """env.arguments are described, but for keys named like secrets."""
    monkeypatch.setenv("SIMULATOR_TOKEN", "hunter2")
    config = OmegaConf.load(run / CONFIG)
    config.env.arguments = {"auth_token": "${oc.env:SIMULATOR_TOKEN}", "g": 9.0}
    OmegaConf.save(config, run / CONFIG)
    command.export(compose_config(f"run={run}", entry_point="export"))
    text = (run / "policy.json").read_text()
    assert '"g": 9.0' in text
    assert "hunter2" not in text


ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sparse": torch.Tensor.to_sparse,
    "without values": lambda weight: weight.to("meta"),
    "float8": lambda weight: weight.to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("name", ODD)
def test_a_tensor_that_cannot_be_compared_is_no_weight(name: str, run: Path):
    """Its checksum fits: an error of one line, not torch's traceback."""
    state = load_state(run, "last")
    key = next(key for key in state["agent"] if key.endswith("weights.0"))
    state["agent"][key] = ODD[name](state["agent"][key])
    write_policy(run, state)
    with pytest.raises(CheckpointError, match="the checkpoint is not of a run"):
        load_agent(run, str(state["updates"]))


def test_links_elsewhere_are_of_the_user(run: Path, tmp_path: Path):
    """A run folder may itself be reached by a link, as on machines with a scratch disk."""
    os.symlink(run, tmp_path / "link")
    resume_run(tmp_path / "link", "updates=12")
    assert load_state(run, "last")["updates"] == 12
