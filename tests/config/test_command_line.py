"""Guarantee: a wrong argument is refused in one line with exit code 2, before anything starts.

Errors of the program keep their traceback; help, --cfg and grids work and import nothing heavy.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.config import CONF, ROOT, run_entry_point

from offline_cql.config import CollectConfig, EvaluateConfig, TrainConfig, command_line
from offline_cql.config.entry_points import ENTRY_POINTS
from offline_cql.config.keys import key_exists, setting_keys
from offline_cql.errors import ConfigError

NAMES = sorted(path.stem for path in (CONF / "env").glob("*.yaml") if path.stem != "base")
ENVIRONMENTS = ", ".join(NAMES[:12]) + f", … and {len(NAMES) - 12} more: --help lists them"


def check(*arguments: str) -> None:
    command_line.check(list(arguments), schema=TrainConfig, entry_point=ROOT / "train.py")


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        check(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- Refused arguments -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("cql.alhpa=5", "cql.alhpa is unknown; did you mean cql.alpha?"),
        ("+cql.alhpa=5", "cql.alhpa is unknown; did you mean cql.alpha?"),
        ("++cql.alhpa=5", "cql.alhpa is unknown; did you mean cql.alpha?"),
        ("~cql.alhpa", "cql.alhpa is unknown; did you mean cql.alpha?"),
        ("alpha=5", "alpha is unknown; did you mean cql.alpha?"),
        ("enw=hopper", "enw is unknown; did you mean env?"),
        ("cql.alpha.x=1", "cql.alpha.x is unknown; did you mean cql.alpha?"),
        (
            "env=hoper",
            f"env=hoper is unknown; did you mean env=hopper? (available: {ENVIRONMENTS})",
        ),
        ("env=zzz", f"env=zzz is unknown; available: {ENVIRONMENTS}"),
        ("env=../cql/zzz", f"env=../cql/zzz is unknown; available: {ENVIRONMENTS}"),
        ("env=null", f"env=null must be one of {ENVIRONMENTS}"),
        ("env=3", f"env=3 must be one of {ENVIRONMENTS}"),
        ("env=../cql/base", "env.alpha is unknown; did you mean cql.alpha?"),
        ("cql.alpha=abc", "cql.alpha=abc must be a number"),
        ("~cql.alpha", "cql.alpha is missing; set cql.alpha=..."),
        ("cql.alpha==5", "cql.alpha==5 cannot be read as KEY=VALUE: extraneous input '='"),
        ("cql.alpha", "cql.alpha cannot be read as KEY=VALUE: missing EQUAL at '<EOF>'"),
        ("cql.alpha=[1", "cql.alpha=[1 cannot be read as KEY=VALUE: no viable alternative at inpu"),
        ("cql.alpha=${no}", "cql.alpha cannot be resolved: Interpolation key 'no' not found"),
        ("~env", "Error resolving interpolation '${env}-${evaluation}'"),
        ("seed=0,1", "seed=0,1 has several values; add -m for a grid, or write a list as [1,2]"),
        ("+seed=1", "Could not append to config. An item is already at 'seed'."),
        ("--alpha=5", "--alpha=5 is unknown; settings are typed as KEY=VALUE"),
        ("--cfg=all_of_it", "argument --cfg/-c: invalid choice: 'all_of_it'"),
        ("--config-dir=/nowhere", "--config-dir /nowhere is not a folder"),
        ("hydra.nope=1", "Could not override 'hydra.nope'."),
        ("hydra/launcher=zzz", "hydra/launcher=zzz is unknown; available: basic"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(argument: str, message: str):
    assert refusal(argument).startswith(message)


SECRETS = ("logger.api_key", "+wandb_api_key", "++my.Secret", "hydra.job.env_set.TOKEN", "password")


@pytest.mark.parametrize("key", SECRETS)
def test_a_key_that_looks_like_a_secret_is_refused_without_its_value(key: str):
    remedy = "the run folder would keep it; use the environment, as with WANDB_API_KEY"
    assert refusal(f"{key}=hunter2") == f"{key.lstrip('+')} looks like a secret and {remedy}"


def test_unused_settings_are_refused_before_data_are_read():
    message = "cql.alpha=1 has no effect: algorithm=bc has no critics; leave it out"
    assert refusal("algorithm=bc", "cql.alpha=1") == message
    check("algorithm=bc", "cql=corl")


def test_a_setting_of_an_algorithm_that_was_not_chosen_is_refused():
    message = "bc.learning_rate=1e-3 has no effect without algorithm=bc; leave it out"
    assert refusal("bc.learning_rate=1e-3") == message
    check("algorithm=bc", "bc.learning_rate=1e-3")


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\ncql:\n  alhpa: 1\n")
    argument = f"--config-dir={tmp_path}"
    assert refusal(argument, "experiment=mine") == "cql.alhpa is unknown; did you mean cql.alpha?"
    (folder / "mine.yaml").write_text("# @package _global_\ncql:\n  alpha: 1\n")
    check(argument, "experiment=mine")


# --- Grids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,1", "cql.alpha=1,-5"], "cql.alpha=-5 must be >= 0"),
        (["env=pendulum,hoper"], "env=hoper is unknown; did you mean env=hopper?"),
        (["cql=null,default"], "cql=null must be one of "),
        (["seed=range(-1,3)"], "seed=-1 must be >= 0"),
        (["gamma=interval(0.9,1)"], "gamma=1 must be >= 0 and < 1"),
        (
            ["env=pendulum,hopper", "dataset.quality=mixed,medium"],
            "dataset.quality=medium must be one of mixed with env=pendulum",
        ),
        (["seed=range(0,100)", "cql.alpha=1,2,-3"], "cql.alpha=-3 must be >= 0"),
    ],
)
def test_every_value_of_a_grid_is_checked_before_it_starts(arguments: list[str], message: str):
    assert refusal("-m", *arguments).startswith(message)


def test_a_valid_grid_passes():
    check("-m", "env=pendulum,cartpole", "cql.alpha=0,5", "cql=default,corl")


def test_a_large_grid_is_checked_value_by_value(monkeypatch: pytest.MonkeyPatch):
    """100 seeds times 3 alphas: 100 configs instead of 300, every value among them."""
    jobs: list[list[str]] = []

    def record_job(_schema: Any, _config: Any, overrides: list[str]) -> list[str]:
        jobs.append(overrides)
        return []

    monkeypatch.setattr(command_line, "_compose", lambda *_, **__: None)
    monkeypatch.setattr(command_line, "_check_job", record_job)
    check("-m", "seed=range(0,100)", "cql.alpha=1,2,3")
    assert len(jobs) == 100
    assert {job[0] for job in jobs} == {f"seed={seed}" for seed in range(100)}
    assert {job[1] for job in jobs} == {"cql.alpha=1", "cql.alpha=2", "cql.alpha=3"}
    jobs.clear()
    check("-m", "seed=range(0,32)", "cql.alpha=1,2")
    assert len({tuple(job) for job in jobs}) == 64


def test_a_warning_of_several_jobs_is_printed_once(capsys: pytest.CaptureFixture[str]):
    check("-m", "seed=0,1", "alpha_schedule=linear", "alpha_schedule.until=9_000")
    warning = "is after the last update (5000): alpha does not reach its end"
    assert capsys.readouterr().err == f"warning: alpha_schedule.until=9000 {warning}\n"


# --- Valid arguments ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--hydra-help"],
        ["--cfg", "job", "--resolve"],
        ["--info", "defaults"],
        ["-sc", "query=bash"],
        ["resume=outputs/x", "updates=7_000"],
        ["cql={alpha:3}"],
        ["+hydra.job.env_set.A=x"],
        ["cql.gap_min=null", "experiment=smoke", "network.normalize_observations=false"],
    ],
)
def test_valid_arguments_pass(arguments: list[str]):
    check(*arguments)


def test_a_missing_value_is_allowed_when_the_config_is_only_shown():
    entry_point = {"schema": EvaluateConfig, "entry_point": ROOT / "evaluate.py"}
    command_line.check(["--help"], **entry_point)
    command_line.check(["--cfg", "job"], **entry_point)
    command_line.check(["run=outputs/x"], **entry_point)
    with pytest.raises(ConfigError, match=re.escape("run is missing; set run=...")):
        command_line.check([], **entry_point)


def test_each_entry_point_has_its_own_settings():
    with pytest.raises(ConfigError, match=r"updates is unknown; did you mean env.qualities\?"):
        command_line.check(["updates=5"], schema=CollectConfig, entry_point=ROOT / "collect.py")
    assert set(ENTRY_POINTS) <= {path.stem for path in ROOT.glob("*.py")}


# --- Exit codes --------------------------------------------------------------------------------


class UnusableDataError(Exception):
    exit_code = 2


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs an entry point which raises an exception, with arguments."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def start(error: BaseException | None = None, *arguments: str) -> None:
        def main() -> None:
            assert os.environ["HYDRA_FULL_ERROR"] == "1"
            if error is not None:
                raise error

        main.__code__ = main.__code__.replace(co_filename=str(ROOT / "train.py"))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        command_line.run(main)

    return start


@pytest.mark.parametrize("error", [ConfigError("no\nGPU"), UnusableDataError("no\nGPU")])
def test_errors_of_settings_and_data_are_one_line_with_exit_code_2(
    error: Exception, start: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_:
        start(error)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: no GPU\n"


def test_a_wrong_argument_exits_before_the_entry_point_is_called(
    start: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_:
        start(AssertionError("called"), "cql.alpha=-1")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: cql.alpha=-1 must be >= 0\n"


@pytest.mark.parametrize("error", [ValueError("a fault"), SystemExit(143)])
def test_every_other_exception_is_raised_unchanged(
    error: BaseException, start: Callable[..., None]
):
    with pytest.raises(type(error)) as raised:
        start(error)
    assert raised.value is error


def test_an_entry_point_that_returns_does_not_exit(start: Callable[..., None]):
    start(None)


# --- The entry points --------------------------------------------------------------------------


def test_showing_the_config_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    result = run_entry_point("train", "--cfg", "job", "cql.alpha=3")
    assert result.returncode == 0
    assert "  alpha: 3\n" in result.stdout
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.split("\n")
    }
    assert "hydra" in imported
    heavy = {"torch", "pytorch_lightning", "minari", "wandb", "gymnasium", "numpy", "rich"}
    assert not imported & heavy


def chosen_groups(name: str) -> list[str]:
    """Return the groups in the defaults list of an entry point, without those of tuned values."""
    defaults = yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]
    groups = [group for entry in defaults if isinstance(entry, dict) for group in entry]
    return [group for group in groups if not group.startswith(("optional ", "override "))]


@pytest.mark.parametrize("name", ["train", "audit", "evaluate"])
def test_a_help_text_lists_the_groups_of_its_entry_point(name: str):
    template = yaml.safe_load((CONF / f"{name}.yaml").read_text())["hydra"]["help"]["template"]
    listed = ",".join(re.findall(r"\$\{options:([\w,]+)\}", template))
    assert sorted(listed.split(",")) == sorted(chosen_groups(name))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_help_text_names_settings_that_exist(name: str):
    template = yaml.safe_load((CONF / f"{name}.yaml").read_text())["hydra"]["help"]["template"]
    keys = setting_keys(ENTRY_POINTS[name])
    settings = re.findall(r"(?<=\s)([\w.]+)=(?!OPTION)", template.partition("Examples")[0])
    assert len(settings) >= 4
    assert [key for key in settings if not key_exists(key, keys)] == []


def test_every_group_but_tuned_is_listed_in_a_help_text():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups == {"tuned", *chosen_groups("train"), *chosen_groups("evaluate")}


def test_help_is_one_page_with_every_group_and_the_settings_that_people_change():
    result = run_entry_point("train", "--help")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    for group in chosen_groups("train"):
        assert re.search(rf"^  {group}: \w", result.stdout, re.MULTILINE)
    assert "tuned/" not in result.stdout
    examples = re.findall(r"^  python train.py ?(.*)$", result.stdout, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        check(*example.split())


def test_a_typo_is_answered_in_one_line():
    result = run_entry_point("evaluate", "run=outputs/x", "evaluation.epizodes=5")
    assert result.returncode == 2
    error = "error: evaluation.epizodes is unknown; did you mean evaluation.episodes?\n"
    assert result.stderr == error


def test_a_mapping_of_any_keys_is_set_without_a_sign_from_python_too():
    """As on the command line: Hydra itself wants ++env.arguments=…."""
    config = command_line.compose_job("train", ["env.arguments={config: {last: 1}}"])
    assert config.env.arguments == {"config": {"last": 1}}
