"""Guarantee: what Hydra composes passes the check of the command line; what has no effect, and
what cannot be read, is refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.config import ROOT, run_entry_point

from offline_cql.config import EvaluateConfig, TrainConfig, command_line
from offline_cql.errors import ConfigError


def check(*arguments: str) -> None:
    command_line.check(list(arguments), schema=TrainConfig, entry_point=ROOT / "train.py")


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        check(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- Files of the user -------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a primary config `mytrain`, which starts from ours, and an experiment."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "mytrain.yaml").write_text("defaults: [train, _self_]\nupdates: 7\n")
    (tmp_path / "experiment" / "night.yaml").write_text("# @package _global_\nupdates: 8\n")
    return tmp_path


def test_a_primary_config_of_the_user_passes_and_is_composed(mine: Path):
    check("--config-dir", str(mine), "--config-name", "mytrain", "experiment=night")
    arguments = ("--config-dir", str(mine), "--config-name=mytrain", "--cfg=job", "-p=updates")
    process = run_entry_point("train", *arguments)
    assert (process.returncode, process.stdout, process.stderr) == (0, "7\n", "")


def test_a_mistake_in_a_primary_config_of_the_user_is_found(mine: Path):
    (mine / "mytrain.yaml").write_text("defaults: [train, _self_]\ncql: {alhpa: 7}\n")
    arguments = ("--config-dir", str(mine), "--config-name=mytrain")
    assert refusal(*arguments) == "cql.alhpa is unknown; did you mean cql.alpha?"


def test_options_of_the_user_are_available_from_both_places(mine: Path, tmp_path: Path):
    other = tmp_path / "other"
    (other / "experiment").mkdir(parents=True)
    (other / "experiment" / "day.yaml").write_text("# @package _global_\nupdates: 9\n")
    both = ("--config-dir", str(mine), f"hydra.searchpath=[file://{other}]")
    for option in ("night", "day", "[night,day]"):
        check(*both, f"experiment={option}")
    message = refusal(*both, "experiment=nihgt")
    available = "cartpole_double, day, hopper_overestimation, night, smoke"
    expected = f"did you mean experiment=night? (available: {available})"
    assert message == f"experiment=nihgt is unknown; {expected}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[file:///nowhere]", "hydra.searchpath: /nowhere is not a folder"),
        ("/nowhere", "hydra.searchpath must be a list of folders, as in [file://FOLDER]"),
        ("[http://x]", "hydra.searchpath: http://x must start with file:// or pkg://"),
    ],
)
def test_a_search_path_that_adds_nothing_is_refused(value: str, message: str):
    assert refusal(f"hydra.searchpath={value}") == message


@pytest.mark.parametrize("content", ["a: [", "\xff", "- a", "a: ${", "3", "a: !!python/name:os"])
def test_a_file_that_cannot_be_read_is_one_line(mine: Path, content: str):
    (mine / "experiment" / "night.yaml").write_text(content, encoding="latin-1")
    assert refusal("--config-dir", str(mine), "experiment=night")


# --- Settings without effect -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.run.dir=x", "hydra.run.dir=x has no effect: the folder of a run is run_dir"),
        ("hydra.run={dir:x}", "hydra.run={dir:x} has no effect: the folder of a run is run_dir"),
        (
            "hydra.job.name=x",
            "hydra.job.name=x has no effect: the folder of a run is run_dir; the name of a "
            "launcher's jobs is hydra.launcher.name",
        ),
        (
            "+hydra.sweep.subdir=x",
            "+hydra.sweep.subdir=x has no effect: the folder of a run is run_dir, that of a grid "
            "hydra.sweep.dir",
        ),
        (
            "logger=[wandb,tensorboard]",
            "logger=[wandb,tensorboard]: logger takes one option; "
            "for several: logger.names=[wandb,tensorboard]",
        ),
        (
            "algorithm=[cql,bc]",
            "algorithm=[cql,bc]: algorithm takes one option; choose one, as in algorithm=bc",
        ),
    ],
)
def test_what_has_no_effect_is_refused(override: str, message: str):
    assert refusal(override) == message
    if "job" not in override:
        assert refusal("-m", "seed=0,1", override) == message


def test_a_list_among_the_values_of_a_grid_is_refused():
    message = "logger=[csv,wandb]: logger takes one option; "
    assert refusal("-m", "logger=[csv,wandb],csv").startswith(message)


def test_settings_of_hydra_that_have_an_effect_pass():
    """A grid by hydra.mode, its folder, and the environment of its jobs."""
    check("hydra.mode=MULTIRUN", "seed=0,1", "hydra.sweep.dir=x", "+hydra.job.env_set.A=b")
    check("logger.names=[wandb,tensorboard]")


def test_a_setting_may_name_what_hydra_knows_of_the_job():
    check("-m", "seed=0,1", "run_dir=outputs/${hydra:job.num}")
    check("run_dir=outputs/${hydra:job.name}")


# --- Words of other projects -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "callbacks=default",
            "callbacks is unknown; callbacks are part of the program; their settings are: "
            "checkpoint_every, evaluation.every, log_every",
        ),
        (
            "trainer.max_steps=5",
            "trainer.max_steps is unknown; Lightning's Trainer is set by: updates, "
            "hardware.devices, hardware.precision",
        ),
        (
            "+datamodule.batch_size=5",
            "datamodule.batch_size is unknown; the source of data is dataset=..., further "
            "settings are: dataset.path, batch_size",
        ),
        (
            "model=mlp",
            "model is unknown; the method is algorithm=..., the networks are network=..., further "
            "settings are: network.actor_hidden, network.critic_hidden",
        ),
        (
            "--cql.alpha=5",
            "--cql.alpha=5 is unknown; settings are typed as KEY=VALUE; a W&B sweep passes them "
            "without dashes by ${args_no_hyphens} in its command",
        ),
    ],
)
def test_a_word_of_other_projects_is_answered_by_the_settings_here(override: str, message: str):
    assert refusal(override) == message


def test_settings_are_proposed_only_where_they_exist():
    """evaluate.py has neither updates nor devices."""
    entry_point = ROOT / "evaluate.py"
    with pytest.raises(ConfigError) as error:
        command_line.check(["trainer.x=1"], schema=EvaluateConfig, entry_point=entry_point)
    assert "Lightning" not in str(error.value)


# --- Odd command lines -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--conf"],  # ambiguous
        ["--cfg"],
        ["-m", "--cfg=job"],
        ["--resolve"],
        ["--config-path=conf/env.yaml"],
        ["--config-path=nowhere"],
        ["--config-path=pkg://nowhere"],
        ["--config-name=nope"],
        ["--config-name=evaluate"],  # another entry point's
        ["-m", "seed=range(0,5,0)"],
        ["-m", "seed=range(0,1_000_000_000)"],
        ["cql=" + "[" * 40],
        ["hydra=3"],
        ["~hydra"],
        ["seed=${oc.decode:'['}"],
        ["run_dir=${hydra:job.num}"],
        ["=", "+=1", "@x=1"],
    ],
)
def test_an_odd_command_line_is_refused_in_one_line(arguments: list[str]):
    assert refusal(*arguments)


def test_options_after_settings_are_said_to_be():
    message = "seed=1 stands after an option; type options such as -m first"
    assert refusal("updates=5", "-m", "seed=1") == message


@pytest.mark.parametrize("override", ["hydra.launcher._target_=no.such", "hydra.sweep.dir=${no}"])
def test_what_hydra_itself_refuses_later_is_one_line(override: str, tmp_path: Path):
    process = run_entry_point("train", "-m", "seed=0", override, cwd=tmp_path)
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    assert process.stderr.startswith("error: ")


def test_random_command_lines_are_one_line():
    """The attack of benchmarks/fuzz_overrides.py, two seconds of it."""
    script = ROOT / "benchmarks" / "fuzz_overrides.py"
    command = [sys.executable, str(script), "--minutes", "0.04", "--seed", "1"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.stdout.endswith(" 0 escaped\n"), process.stdout
