"""Guarantee: what was trained can be read in any shell; secrets stay out of the run folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from omegaconf import OmegaConf
from support.builders import differences
from support.config import compose_config, run_entry_point
from support.train import TINY, load_learned, resume_run, train_run

from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.load_run import load_config
from offline_cql.io import read_json
from offline_cql.report.load_runs import load_run
from offline_cql.runs.checkpoint import newest_checkpoint
from offline_cql.runs.folder import CONFIG

pytestmark = pytest.mark.usefixtures("recorded")

FROM_VARIABLES = (
    "seed=${oc.env:SLURM_ARRAY_TASK_ID}",
    "cql.alpha=${oc.env:ALPHA}",
    "network.actor_hidden=[16,${oc.env:WIDTH}]",
    "dataset.quality=${oc.env:QUALITY,mixed}",
)
VARIABLES = {"SLURM_ARRAY_TASK_ID": "3", "ALPHA": "0.5", "WIDTH": "16"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Path:
    """Train 5 updates with settings from variables that are gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        return train_run(
            tmp_path_factory.mktemp("run") / "run", *TINY, *FROM_VARIABLES, "updates=5"
        )


def test_config_yaml_has_the_numbers_that_were_trained_with(run: Path):
    """With the types of the settings: a variable is text, a seed is a number."""
    config = OmegaConf.load(run / CONFIG)
    assert "${" not in (run / CONFIG).read_text()
    assert (config.seed, config.cql.alpha, config.dataset.quality) == (3, 0.5, "mixed")
    assert list(config.network.actor_hidden) == [16, 16]


def test_evaluate_and_report_read_the_run_in_another_shell(run: Path):
    options = ("evaluation.episodes=1", "evaluation.environments=1")
    assert evaluate(compose_config(f"run={run}", *options, entry_point="evaluate")) is not None
    assert load_run(run).settings["seed"] == 3


def test_report_lists_the_run_in_another_shell(run: Path, tmp_path: Path):
    process = run_entry_point("report", f"runs={run}", f"out={tmp_path}/report")
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr


def test_a_run_is_resumed_in_another_shell(run: Path, tmp_path: Path):
    """The same weights as a run whose settings were typed as numbers."""
    resume_run(run, "updates=8")
    typed = ("seed=3", "cql.alpha=0.5", "network.actor_hidden=[16,16]")
    others = [key for key in TINY if not key.startswith("network.actor_hidden")]
    whole = train_run(tmp_path / "whole", *others, *typed, "updates=8")
    assert differences(load_learned(whole), load_learned(run)) == []
    assert read_json(run / "result.json")["updates"] == 8


def test_a_secret_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A key named like a secret keeps its variable, in the run folder and in the checkpoint."""

    def make(auth_token: str, servers: list[dict[str, str]], **arguments: Any) -> PendulumEnv:
        assert auth_token == servers[0]["password"]
        return PendulumEnv(**arguments)

    guarded = replace(gym.spec("Pendulum-v1"), entry_point=make)
    monkeypatch.setitem(gym.registry, "Pendulum-v1", guarded)
    monkeypatch.setenv("SIMULATOR_TOKEN", "hunter2hunter2")
    secrets = (
        "+env.arguments.auth_token=${oc.env:SIMULATOR_TOKEN}",
        "+env.arguments.servers=[{host:a,password:${oc.env:SIMULATOR_TOKEN}}]",
    )
    folder = train_run(tmp_path / "run", *TINY, *secrets, "updates=2")
    written = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=False)
    assert isinstance(written, dict)
    variable = "${oc.env:SIMULATOR_TOKEN}"
    servers = [{"host": "a", "password": variable}]
    assert written["env"]["arguments"] == {"auth_token": variable, "servers": servers}
    servers = [{"host": "a", "password": "hunter2hunter2"}]
    read = load_config(folder).env.arguments
    assert read == {"auth_token": "hunter2hunter2", "servers": servers}
    stored = newest_checkpoint(folder)["config"]["env"]["arguments"]
    assert stored == {"servers": [{"host": "a"}]}
    for path in folder.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    # A new token is no other run.
    monkeypatch.setenv("SIMULATOR_TOKEN", "another")
    resume_run(folder, "updates=3")
    assert read_json(folder / "result.json")["updates"] == 3
