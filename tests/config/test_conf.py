"""Guarantee: every YAML file composes to valid settings; each number is stated once."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from support.config import CONF, compose_config, settings

from offline_cql.agents.schedules import alpha_at
from offline_cql.config import EnvConfig, EvaluationConfig, Section, TrainConfig
from offline_cql.config.keys import setting_keys
from offline_cql.errors import ConfigError

OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml"))
OPTIONS.remove("env=base")
PRESETS = ("default", "plain", "paper", "corl", "jaxcorl")
# Of one task each: base is their parent, gymnasium any environment.
ENVIRONMENTS = sorted({path.stem for path in CONF.glob("env/*.yaml")} - {"base", "gymnasium"})


def content(path: Path) -> dict[str, Any]:
    """Return the settings of a file, without its defaults list."""
    settings_of_file: dict[str, Any] = yaml.safe_load(path.read_text())
    return {key: value for key, value in settings_of_file.items() if key != "defaults"}


# Settings that an option requires: data that exist.
LOGS = ("dataset=table", "dataset.path=logs.csv")
HOPPER = ("env=hopper",)
NEEDED = {
    "dataset=table": LOGS[1:],
    "dataset=minari": HOPPER,
    "dataset=d4rl": HOPPER,
    "env=gymnasium": ("env.id=Acrobot-v1",),
}


def recordable(env: str) -> bool:
    """Return True if a simulator and behavior policies come with the project."""
    return bool(content(CONF / "env" / f"{env}.yaml").get("qualities"))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes_and_is_valid(option: str):
    group, _, name = option.partition("=")
    if group == "ope":  # an option of evaluate.py
        assert settings("run=x", option, entry_point="evaluate")
        return
    logs_only = group == "env" and not recordable(name)
    settings(option, *(LOGS if logs_only else NEEDED.get(option, ())))


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_with_qualities_can_be_recorded(env: str):
    if not recordable(env):
        with pytest.raises(ConfigError, match="no simulated data come with it"):
            settings(f"env={env}", entry_point="collect")
        return
    config = settings(f"env={env}", entry_point="collect")
    assert config.dataset.id == f"sim/{env}/{config.env.quality}-v0"
    assert config.dataset.size == 100_000


def test_evaluate_needs_a_run_and_has_its_own_episodes():
    config = settings("run=outputs/x", entry_point="evaluate")
    assert (config.run, config.checkpoint, config.evaluation.episodes) == ("outputs/x", "last", 100)
    assert config.evaluation.seed != settings().evaluation.seed


def test_names_are_those_of_the_files():
    for env in ENVIRONMENTS:
        assert content(CONF / "env" / f"{env}.yaml")["name"] == env
    for group, key in (("cql", "name"), ("algorithm", "algorithm"), ("alpha_schedule", "kind")):
        for path in CONF.glob(f"{group}/*.yaml"):
            assert content(path)[key] == path.stem


def test_a_file_does_not_repeat_what_it_inherits():
    """Presets of publications may: their numbers do not depend on ours."""
    for path in CONF.glob("*/*.yaml"):
        if path.stem in ("corl", "jaxcorl", "paper"):
            continue
        parents = yaml.safe_load(path.read_text()).get("defaults", [])
        inherited = [parent for parent in parents if isinstance(parent, str) and parent != "_self_"]
        for parent in inherited:
            base = content(path.parent / f"{parent}.yaml")
            for key, value in content(path).items():
                assert isinstance(value, dict) or base.get(key) != value, f"{path}: {key}"


def test_the_schema_states_no_number():
    """A default in the schema would repeat a number of conf/."""
    for section in (*Section.__subclasses__(), EnvConfig, EvaluationConfig, TrainConfig):
        for name, field in section.model_fields.items():
            empty = field.default is None or field.default_factory is dict
            assert field.is_required() or empty, f"{section.__name__}.{name}"


# --- Environments ----------------------------------------------------------------------------


def test_data_set_id_and_run_folder_contain_the_options():
    config = settings("env=hopper", "dataset.quality=medium-expert", "algorithm=bc", "seed=3")
    assert config.dataset.id == "sim/hopper/medium-expert-v0"
    pattern = r"outputs/hopper/simulated-medium-expert/bc/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-seed_3"
    assert re.fullmatch(pattern, config.run_dir)


# --- Presets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "hidden"),
    [
        (["env=pendulum"], [64, 64]),
        (["env=pendulum", "cql=corl"], [256, 256, 256]),  # the preset's network, not the task's
        (["env=pendulum", "cql=corl_lagrange"], [256, 256, 256]),
        (["env=pendulum", "cql=jaxcorl"], [256, 256]),
        (["env=hopper", "cql=corl", "network=wide"], [512, 512, 512]),  # the command line wins
        (["network=small", "cql=paper"], [64, 64]),
        (["env=hopper", "cql=lagrange"], [256, 256]),
        (["env=hopper", "cql=corl", "network.actor_hidden=[8]"], [8]),
    ],
)
def test_the_network_is_the_command_lines_then_the_presets_then_the_tasks(
    overrides: list[str], hidden: list[int]
):
    assert settings(*overrides).network.actor_hidden == hidden


TUNED = "env=pendulum"  # conf/tuned/*/pendulum*.yaml: 3e-4, no cloning, 2 x 64, 5,000 updates


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ((), "cql.actor_learning_rate", 3e-4),
        (("cql=lagrange",), "cql.bc_updates", 0),
        (("cql=corl",), "cql.actor_learning_rate", 3e-5),
        (("cql=paper",), "cql.bc_updates", 40_000),
        (("cql.actor_learning_rate=1e-3",), "cql.actor_learning_rate", 1e-3),
        (("cql=lagrange", "cql.bc_updates=7"), "cql.bc_updates", 7),
        (("network=wide",), "network.critic_hidden", [512, 512, 512]),
        (("network.critic_hidden=[8]",), "network.critic_hidden", [8]),
        ((), "updates", 5_000),
        (("updates=9",), "updates", 9),
        (("experiment=study/selection",), "updates", 8_000),
        (("experiment=study/selection",), "cql.bc_updates", 2_000),
        (("experiment=study/selection",), "evaluation.every", 2_000),
        (("evaluation=none",), "evaluation.every", 1_000),
        (("evaluation=none",), "evaluation.episodes", 0),
        (("evaluation.every=3",), "evaluation.every", 3),
    ],
)
def test_presets_and_typed_settings_win_over_tuned_ones(
    overrides: tuple[str, ...], key: str, value: Any
):
    assert OmegaConf.select(compose_config(TUNED, *overrides), key) == value


def test_every_tuned_file_is_named_after_options():
    """A misspelled name would be skipped without an error: the lines are optional."""
    for path in CONF.glob("tuned/*/*.yaml"):
        env, _, option = path.stem.partition("-")
        assert env in ENVIRONMENTS
        assert not option or (CONF / path.parent.name / f"{option}.yaml").exists()


ROW = re.compile(r"^\| [^|]+ \| (`[a-z_.]+`(?:, `[a-z_.]+`)*) \|(.+)\|$", re.MULTILINE)
WORDS = {"none": None, "−dim(A)": None, "yes": True, "no": False}


def parse_cell(text: str) -> Any:
    """Return the value of a table's cell: none, yes, 1e-4, −5, 3×256 or a word."""
    if text in WORDS:
        return WORDS[text]
    if match := re.fullmatch(r"(\d)×(\d+)", text):
        return [int(match[2])] * int(match[1])
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    number = re.fullmatch(r"−?[\d.]+(e-\d)?", text)
    return float(text.replace("−", "-")) if number else text.strip("`")


def test_the_table_of_presets_in_the_docs_equals_the_files():
    """A second value after "small tasks" is that of pendulum."""
    text = (CONF.parent / "docs" / "presets.md").read_text()
    configs = [
        [compose_config(f"cql={preset}", f"env={env}") for env in ("hopper", "pendulum")]
        for preset in PRESETS
    ]
    keys, compared = setting_keys(TrainConfig), set()
    for row, cells in ROW.findall(text.partition("## Choices")[0]):
        names = re.findall(r"`([a-z_.]+)`", row)
        for pair, cell in zip(configs, cells.strip().split(" | "), strict=True):
            if cell.strip() == "same" or names == ["network"]:
                continue
            for config, part in zip(pair, cell.strip().split(", small tasks "), strict=False):
                values = [parse_cell(value) for value in part.split(", ")]
                for name, value in zip(names, values * (len(names) // len(values)), strict=True):
                    assert name in keys
                    assert OmegaConf.select(config, name) == value, f"{config.cql.name}: {name}"
                    compared.add(name)
    assert {name for name in keys if name.startswith(("cql.", "network."))} - compared <= {
        *("cql.name", "cql.expectation_over", "cql.decay_until"),
        *("cql.multiplier_initial", "cql.multiplier_learning_rate"),
        *("cql.multiplier_min", "cql.multiplier_max"),
    }


# --- Other groups ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential"])
def test_a_decaying_schedule_ends_with_the_run(kind: str):
    config = settings(f"alpha_schedule={kind}", "updates=500")
    end = alpha_at(500, alpha=config.cql.alpha, schedule=config.alpha_schedule)
    before = alpha_at(499, alpha=config.cql.alpha, schedule=config.alpha_schedule)
    assert end == pytest.approx(0.5)
    assert before > end
