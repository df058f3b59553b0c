"""Guarantee: an invalid setting is refused in one line: key, value, range, remedy."""

import re
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from support.config import CONF, compose_config
from support.config import settings as composed_settings

from offline_cql.config import (
    TrainConfig,
    reject_unused_overrides,
    unused_settings,
    validate_config,
)
from offline_cql.config.keys import closest, setting_keys
from offline_cql.errors import ConfigError

LAGRANGE, BC, EXPECTATION = "cql=lagrange", "algorithm=bc", "cql.penalty=expectation"
LINEAR, EXPONENTIAL, PIECEWISE = (
    f"alpha_schedule={kind}" for kind in ("linear", "exponential", "piecewise")
)
TABLE = "env=logged dataset=table dataset.path=logs.csv"
MINARI, D4RL = "env=hopper dataset=minari", "env=hopper dataset=d4rl"


def changed(*overrides: str, **values: Any) -> DictConfig:
    """Return the config with other options of groups (composed) and other values (set: faster).

    In the names of values, __ stands for a dot.
    """
    pairs = [override.split("=", 1) for override in overrides]
    config = compose_config(*(f"{key}={text}" for key, text in pairs if (CONF / key).is_dir()))
    texts = {key: yaml.safe_load(text) for key, text in pairs if not (CONF / key).is_dir()}
    for key, value in {**texts, **values}.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def settings(*overrides: str) -> TrainConfig:
    return validate_config(TrainConfig, changed(*overrides))


def refusal(*overrides: str, **values: Any) -> str:
    """Return the message with which these settings are refused."""
    with pytest.raises(ConfigError) as error:
        validate_config(TrainConfig, changed(*overrides, **values))
    assert "\n" not in str(error.value)
    return str(error.value)


# --- Types -----------------------------------------------------------------------------------


def test_the_default_config_is_typed():
    config = settings()
    assert isinstance(config, TrainConfig)
    assert (config.env.id, config.cql.alpha, config.updates) == ("Pendulum-v1", 5.0, 5000)
    assert isinstance(config.cql.alpha, float)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cql__alpha", "abc", "cql.alpha=abc must be a number"),
        ("cql__alpha", None, "cql.alpha=null must be a number"),
        ("cql__alpha", True, "cql.alpha=true must be a number"),
        ("cql__gap_min", "low", "cql.gap_min=low must be a number"),
        ("updates", 1.5, "updates=1.5 must be a whole number"),
        ("updates", float("inf"), "updates=inf must be a whole number"),
        ("updates", "many", "updates=many must be a whole number"),
        ("seed", True, "seed=true must be a whole number"),
        ("network__normalize_observations", 0, "network.normalize_observations=0 must be true or"),
        ("network__normalize_observations", "False", "normalize_observations=False must be true"),
        ("network__actor_hidden", 64, "network.actor_hidden=64 must be a list, as in network.acto"),
        ("network__actor_hidden", [64, "x"], "network.actor_hidden=x must be a whole number"),
        ("env__id", False, "env.id=false must be text"),
        ("env__name", None, "env.name=null must be text"),
        ("cql", 5, "cql=5 must be a section, one of the options of cql"),
    ],
)
def test_a_wrong_type_is_refused(key: str, value: Any, message: str):
    assert message in refusal(**{key: value})


def test_booleans_are_read():
    assert settings("network.normalize_observations=false").network.normalize_observations is False
    assert settings("network.normalize_observations=true").network.normalize_observations is True


def test_a_whole_number_may_be_written_as_a_float_or_text():
    config = compose_config()
    config.updates, config.seed, config.cql.alpha = 1e5, "7", "2.5"
    validated = validate_config(TrainConfig, config)
    assert (validated.updates, validated.seed, validated.cql.alpha) == (100_000, 7, 2.5)
    assert isinstance(validated.updates, int)


def test_a_missing_value_is_named():
    config = compose_config()
    del config.cql.alpha
    with pytest.raises(ConfigError, match=re.escape("cql.alpha is missing; set cql.alpha=...")):
        validate_config(TrainConfig, config)
    with pytest.raises(ConfigError, match=re.escape("run is missing; set run=...")):
        composed_settings(entry_point="evaluate")


def test_an_interpolation_of_nothing_is_named():
    assert refusal(seed="${nope}").startswith("seed cannot be resolved: Interpolation key 'nope'")


# --- Unknown keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cql__alhpa", "cql.alhpa is unknown; did you mean cql.alpha?"),
        ("cql__polyac", "cql.polyac is unknown; did you mean cql.polyak?"),
        ("cql__gamma", "cql.gamma is unknown; did you mean gamma?"),
        ("alpha", "alpha is unknown; did you mean cql.alpha?"),
        ("cql__kind", "cql.kind is unknown; did you mean alpha_schedule.kind?"),
        ("networks__critics", "networks.critics is unknown; did you mean network.n_critics?"),
        ("batchsize", "batchsize is unknown; did you mean batch_size?"),
        ("zzz", "zzz is unknown; --help lists what people change, --cfg job all"),
        ("cql__zzz__qqq", "cql.zzz.qqq is unknown; --help lists what people change, --cfg job all"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(key: str, message: str):
    assert refusal(**{key: 5}) == message


def test_an_empty_unknown_section_is_refused():
    assert refusal(cqll={}).startswith("cqll is unknown")


def test_every_misspelled_key_is_answered_with_its_name():
    """Two neighboring letters are exchanged in each key of the schema."""
    names = setting_keys(TrainConfig)
    assert len(names) > 60
    for key in names:
        head, _, leaf = key.rpartition(".")
        if len(leaf) < 4:
            continue
        misspelled = f"{head}.{leaf[0]}{leaf[2]}{leaf[1]}{leaf[3:]}".lstrip(".")
        assert misspelled in names or closest(misspelled, names) == key


# --- Ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("cql__alpha", -1.0, "cql.alpha=-1 must be >= 0"),
        ("cql__alpha", float("nan"), "cql.alpha=nan must be finite"),
        ("cql__alpha", float("inf"), "cql.alpha=inf must be finite"),
        ("cql__alpha", "nan", "cql.alpha=nan must be finite"),
        ("gamma", 1.0, "gamma=1 must be >= 0 and < 1"),
        ("cql__polyak", 0.0, "cql.polyak=0 must be > 0 and <= 1"),
        ("cql__polyak", 1.5, "cql.polyak=1.5 must be > 0 and <= 1"),
        ("cql__n_action_samples", 0, "cql.n_action_samples=0 must be >= 1"),
        ("cql__gap_temperature", 0.0, "cql.gap_temperature=0 must be > 0"),
        ("cql__gap_min", float("-inf"), "cql.gap_min=-inf must be finite"),
        ("cql__temperature_initial", 0.0, "cql.temperature_initial=0 must be > 0"),
        ("cql__bc_saturated_action", 1.0, "cql.bc_saturated_action=1 must be >= 0 and < 1"),
        ("cql__action_clip", 1.1, "cql.action_clip=1.1 must be > 0 and <= 1"),
        ("cql__actor_learning_rate", 0.0, "cql.actor_learning_rate=0 must be > 0"),
        ("cql__critic_learning_rate", -1e-4, "cql.critic_learning_rate=-0.0001 must be > 0"),
        ("cql__penalty", "max", "cql.penalty=max must be one of logsumexp, expectation"),
        ("cql__backup", "mean", "cql.backup=mean must be one of sampled, max, entropy"),
        ("cql__target", "soft", "cql.target=soft must be one of max, double, expected"),
        ("seed", -1, "seed=-1 must be >= 0 and <= 4294967295"),
        ("seed", 2**32, "seed=4294967296 must be >= 0 and <= 4294967295"),
        ("updates", 0, "updates=0 must be >= 1"),
        ("batch_size", 0, "batch_size=0 must be >= 1"),
        ("log_every", 0, "log_every=0 must be >= 1"),
        ("network__actor_hidden", [64, 0], "network.actor_hidden=[64, 0] must be >= 1"),
        ("network__actor_hidden", [], "network.actor_hidden=[] must name at least one layer's"),
        ("network__n_critics", 0, "network.n_critics=0 must be >= 1"),
        ("dataset__size", 0, "dataset.size=0 must be >= 1"),
        ("dataset__fraction", 0.0, "dataset.fraction=0 must be > 0 and <= 1"),
        ("dataset__fraction", 1.1, "dataset.fraction=1.1 must be > 0 and <= 1"),
        ("dataset__validation_fraction", -0.1, "dataset.validation_fraction=-0.1 must be >= 0"),
        ("dataset__validation_fraction", 1.0, "dataset.validation_fraction=1 must be >= 0 and < 1"),
        ("dataset__top_fraction", 0.0, "dataset.top_fraction=0 must be > 0 and <= 1"),
        ("dataset__top_fraction", 2.0, "dataset.top_fraction=2 must be > 0 and <= 1"),
        ("dataset__n_step", 0, "dataset.n_step=0 must be >= 1"),
        ("dataset__td_lambda", 0.0, "dataset.td_lambda=0 must be > 0 and <= 1"),
        ("dataset__return_range", 0.0, "dataset.return_range=0 must be > 0"),
        ("dataset__split_seed", -1, "dataset.split_seed=-1 must be >= 0"),
        ("dataset__reward_scale", 0.0, "dataset.reward_scale=0 must be > 0"),
        ("dataset__reward_shift", float("nan"), "dataset.reward_shift=nan must be finite"),
        ("dataset__source", "web", "dataset.source=web must be one of simulated"),
        ("hardware__accelerator", "tpu", "hardware.accelerator=tpu must be one of auto, cpu, gpu"),
        ("hardware__precision", "16", "hardware.precision=16 must be one of auto, 32, bf16"),
        ("logger__names", ["csv"], "logger.names=csv must be one of wandb, tensorboard, mlflow, "),
        ("logger__names", ["wandb", "wandb"], "logger.names=[wandb, wandb] must name each logger"),
        ("algorithm", "dqn", "algorithm=dqn must be one of cql, bc"),
        ("algorithm", "bc", "algorithm=bc needs its settings, the section bc"),
        ("bc", {"learning_rate": 0}, "bc.learning_rate=0 must be > 0"),
        ("evaluation__episodes", -1, "evaluation.episodes=-1 must be >= 0"),
        ("evaluation__every", 0, "evaluation.every=0 must be >= 1"),
        ("alpha_schedule__warmup", -1, "alpha_schedule.warmup=-1 must be >= 0"),
    ],
)
def test_a_violated_range_is_refused(key: str, value: Any, message: str):
    assert refusal(**{key: value}).startswith(message)


@pytest.mark.parametrize(
    "setting", ["cql.alpha=0", "gamma=0", "cql.polyak=1", "cql.action_clip=1", "seed=0"]
)
def test_the_closed_end_of_a_range_is_allowed(setting: str):
    settings(setting)


# --- Settings that depend on each other ------------------------------------------------------


# Other overrides, the setting that does not fit them, and the rest of its message.
INCONSISTENT = [
    (LAGRANGE, "cql.target_gap=-2", "must be > 0 (cql=lagrange) or absent (fixed alpha)"),
    (
        "cql.target_gap=5",
        "cql.multiplier_initial=null",
        "must be a number with cql.target_gap=5; choose cql=lagrange",
    ),
    ("", "cql.multiplier_min=0.5", "has no effect without cql.target_gap; choose cql=lagrange"),
    (
        f"{LAGRANGE} cql.alpha=0",
        "cql.target_gap=5",
        "has no effect with cql.alpha=0; set cql.alpha > 0 or leave it null",
    ),
    (
        f"{LAGRANGE} cql.multiplier_min=1",
        "cql.multiplier_initial=0.5",
        "must be from cql.multiplier_min=1 to cql.multiplier_max=1000000",
    ),
    (
        f"{LAGRANGE} cql.multiplier_max=0.5",
        "cql.multiplier_initial=1",
        "must be from cql.multiplier_min=1e-06 to cql.multiplier_max=0.5",
    ),
    (LAGRANGE, "cql.multiplier_min=0", "must be > 0"),
    (EXPECTATION, "cql.expectation_over=null", f"must be uniform or policy with {EXPECTATION}"),
    ("", "cql.expectation_over=uniform", "has no effect with cql.penalty=logsumexp; leave it null"),
    ("cql.gap_max=1", "cql.gap_min=1", "must be < cql.gap_max=1"),
    (
        "cql=plain cql.bc_updates=0",
        "cql.bc_saturated_action=0.9",
        "has no effect without cql.bc_weight and with cql.bc_updates=0",
    ),
    (
        "cql.bc_share=null",
        "cql.return_weighted=true",
        "needs cql.bc_share and cql.bc_weight; try cql.return_weighted=false",
    ),
    (BC, "bc.learning_rate=null", "must be a number"),
    ("", "network.log_std_min=2", "must be < network.log_std_max=2"),
    ("", "hardware.devices=2", "must be 1 with hardware.strategy=single; try hardware=ddp"),
    ("hardware=cpu", "hardware.capture=true", "needs one GPU; try hardware=gpu"),
    ("hardware=ddp", "hardware.capture=true", "needs one GPU; try hardware=gpu"),
    (
        "hardware=ddp hardware.devices=3",
        "batch_size=256",
        "must be a multiple of hardware.devices=3",
    ),
    ("dataset.size=100", "batch_size=256", "must be <= dataset.size=100"),
    ("", "evaluation.episodes=15", "must be a multiple of evaluation.environments=10"),
    ("", "env.quality=none", "must be one of mixed"),
    ("env.package=os", "env.id=sys:Bad-v0", "must be in env.package=os"),
    ("env=hopper", "env.d4rl.id=os:Bad-v0", "must be a plain id; set env.package=PACKAGE"),
    (
        "env.reference_min=null",
        "env.reference_max=-150",
        "and env.reference_min=null must both be set or both be null",
    ),
    ("", "env.reference_max=-1200", "must be > env.reference_min=-1200"),
    ("", "alpha_schedule.until=50", "has no effect with alpha_schedule=constant; leave it null"),
    (LINEAR, "alpha_schedule.points=[[0, 1]]", f"has no effect with {LINEAR}; leave it null"),
    (LINEAR, "alpha_schedule.until=null", "must be set"),
    (
        f"{LINEAR} alpha_schedule.warmup=5000",
        "alpha_schedule.until=5000",
        "must be > alpha_schedule.warmup=5000",
    ),
    (EXPONENTIAL, "alpha_schedule.final_factor=0", f"must be > 0 with {EXPONENTIAL}"),
    (PIECEWISE, "alpha_schedule.final_factor=0.5", f"has no effect with {PIECEWISE}"),
    (PIECEWISE, "alpha_schedule.points=[[0, 1], [0, 2]]", "must have strictly increasing updates"),
    (PIECEWISE, "alpha_schedule.points=[[0, -1]]", "must be >= 0"),
    (PIECEWISE, "alpha_schedule.points=[[0, 1, 2]]", "must be a list of [update, factor] pairs"),
    (PIECEWISE, "alpha_schedule.points=[]", "must be a list of [update, factor] pairs"),
    # Data that do not exist.
    ("env=logged", "dataset.source=simulated", "must be minari, d4rl or table with env=logged"),
    ("", "dataset.quality=best", "must be one of mixed with env=pendulum"),
    ("", "dataset.size=null", "must be a number of transitions"),
    (
        MINARI,
        "dataset.size=5",
        "has no effect with dataset=minari: all of it is read; see dataset.fraction",
    ),
    ("dataset=minari", "dataset.id=null", "must be set with env=pendulum, as in dataset.id=mujoco"),
    ("dataset=d4rl", "dataset.id=null", "must be set with env=pendulum, as in dataset.id=hopper"),
    (
        "env=logged dataset=table",
        "dataset.path=null",
        "must be the file with your logs, as in dataset.path=logs",
    ),
    (TABLE, "evaluation.episodes=10", "must be 0 with env=logged: there is no simulator"),
]


@pytest.mark.parametrize(("others", "setting", "complaint"), INCONSISTENT)
def test_inconsistent_settings_are_refused(others: str, setting: str, complaint: str):
    assert refusal(*others.split(), setting).startswith(f"{setting} {complaint}")


def test_collect_refuses_a_quality_that_does_not_exist():
    with pytest.raises(ConfigError, match=r"dataset.quality=expert must be one of mixed with env="):
        composed_settings("dataset.quality=expert", entry_point="collect")


def test_a_schedule_that_ends_after_the_run_is_a_warning():
    warnings = settings("alpha_schedule=linear", "alpha_schedule.until=7_000").warnings()
    assert warnings == [
        "alpha_schedule.until=7000 is after the last update (5000): alpha does not reach its end"
    ]
    assert settings("alpha_schedule=linear").warnings() == []
    for algorithm in ("cql", "bc"):
        decay = (f"{algorithm}.learning_rate_final=0.1", f"{algorithm}.decay_until=7_000")
        assert settings(f"algorithm={algorithm}", *decay).warnings() == [
            f"{algorithm}.decay_until=7000 is after the last update (5000): "
            "the decay does not reach its end"
        ]
        assert settings(f"algorithm={algorithm}", decay[0]).warnings() == []


def test_a_run_that_only_clones_is_a_warning():
    """A policy with discrete actions has no cloning updates."""
    short = ("cql.bc_updates=100", "cql.bc_weight=1", "cql.bc_weight_final=0")
    assert settings(*short, "updates=100").warnings_for(discrete=False) == [
        "cql.bc_updates=100 with updates=100: the policy clones the data in all of them"
    ]
    assert settings(*short, "updates=100").warnings_for(discrete=True) == []
    assert settings(*short, "updates=101").warnings_for(discrete=False) == []


# --- Unused settings -------------------------------------------------------------------------

COLUMNS = {
    key
    for key in setting_keys(TrainConfig)
    if key.startswith("dataset.columns.") and not key.endswith(".*")
}
OTHER_UNUSED = {"cql.decay_until", "hardware.rank_timeout"}
UNUSED_BY_DEFAULT = {
    "dataset.path",
    "dataset.one_step",
    "dataset.encoding",
    "dataset.missing",
    "dataset.filter",
    "dataset.time_unit",
    "dataset.split_seed",
    "dataset.td_lambda",
    *COLUMNS,
}


def keys(**names: str) -> set[str]:
    """Return the full keys of settings, whose names are given by section."""
    return {f"{section}.{name}" for section in names for name in names[section].split()}


ACTOR = keys(
    cql="n_action_samples penalty expectation_over backup bc_updates bc_learning_rate action_clip "
    "actor_learning_rate temperature_learning_rate temperature_initial target_entropy "
    "importance_sampling bc_weight bc_weight_final bc_share return_weighted critic_warmup "
    "bc_saturated_action",
    network="actor_hidden orthogonal_actor log_std_min log_std_max log_std_affine policy_ema",
)
BC_KEYS = keys(bc="learning_rate learning_rate_final decay_until saturated_action")


@pytest.mark.parametrize(
    ("overrides", "discrete", "unused", "used"),
    [
        (
            "env=cartpole",
            True,
            ACTOR,
            keys(cql="target gap_temperature gap_min alpha", network="n_critics"),
        ),
        ("", False, {"cql.target"}, ACTOR - {"cql.expectation_over"}),
        (
            f"{EXPECTATION} cql.expectation_over=policy",
            False,
            keys(cql="gap_temperature target"),
            keys(cql="n_action_samples gap_min"),
        ),
        (
            "cql.alpha=0",
            False,
            keys(alpha_schedule="kind warmup final_factor until points", cql="target"),
            keys(cql="n_action_samples gap_temperature penalty"),  # the gap is still logged
        ),
        (
            "evaluation=none logger=csv",
            False,
            keys(
                evaluation="environments seed time_limit video",
                logger="project entity group name job_type notes tags artifacts",
                cql="target",
            ),
            # Policies are saved and validated at these updates too.
            keys(evaluation="episodes every", logger="names"),
        ),
    ],
)
def test_unused_settings_are_listed(
    overrides: str, discrete: bool, unused: set[str], used: set[str]
):
    listed = set(unused_settings(settings(*overrides.split()), discrete=discrete))
    assert listed == unused | UNUSED_BY_DEFAULT | BC_KEYS | OTHER_UNUSED
    assert not listed & used
    assert listed <= set(setting_keys(TrainConfig))


ALL_OF_WANDB = {"project", "entity", "group", "name", "job_type", "notes", "tags", "artifacts"}


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        ("wandb", set()),
        ("tensorboard", ALL_OF_WANDB),
        ("mlflow", {"entity", "job_type", "notes", "artifacts"}),
        ("comet", {"job_type", "notes", "artifacts"}),
        ("tensorboard,mlflow", {"entity", "job_type", "notes", "artifacts"}),
        ("mlflow,comet", {"job_type", "notes", "artifacts"}),
        ("", ALL_OF_WANDB),
    ],
)
def test_logger_settings_that_no_chosen_logger_reads_are_unused(names: str, unused: set[str]):
    listed = unused_settings(settings(f"logger.names=[{names}]"), discrete=False)
    assert {key for key in listed if key.startswith("logger.")} == {f"logger.{n}" for n in unused}


OTHER_ID, OTHER_FILE = "dataset.id=D4RL/x-v2", "dataset.path=x.hdf5"


@pytest.mark.parametrize(
    ("overrides", "added", "removed"),  # to and from the settings that are unused by default
    [
        ("", "", ""),
        ("dataset.validation_fraction=0.1", "", "split_seed"),
        ("dataset.fraction=0.5", "", "split_seed"),
        ("dataset.top_fraction=0.5", "", ""),
        ("dataset.n_step=3", "", "td_lambda"),
        ("dataset.n_step=3 dataset.td_lambda=0.5", "", "td_lambda split_seed"),
        (MINARI, "", ""),
        (f"{MINARI} dataset.quality=expert", "", ""),
        (f"{MINARI} {OTHER_ID}", "quality", ""),
        (D4RL, "", "path"),
        (f"{D4RL} {OTHER_FILE}", "id quality", "path"),
    ],
)
def test_unused_settings_of_the_data_are_listed(overrides: str, added: str, removed: str):
    listed = unused_settings(composed_settings(*overrides.split()), discrete=False)
    expected = UNUSED_BY_DEFAULT - keys(dataset=removed) | keys(dataset=added)
    assert {key for key in listed if key.startswith("dataset.")} == expected


def test_a_table_reads_its_columns_and_no_id():
    listed = unused_settings(composed_settings(*TABLE.split()), discrete=False)
    unused = {key for key in listed if key.startswith("dataset.")}
    assert unused == keys(dataset="id quality td_lambda")  # env=logged draws validation episodes


def test_an_unused_override_of_the_data_is_refused():
    overrides = (*MINARI.split(), OTHER_ID, "dataset.quality=expert")
    message = "dataset.quality=expert has no effect: dataset.id=D4RL/x-v2 selects the data"
    with pytest.raises(ConfigError, match=re.escape(message)):
        reject_unused_overrides(composed_settings(*overrides), list(overrides), discrete=None)
    message = "dataset.split_seed=3 has no effect: dataset.validation_fraction=0 and dataset.frac"
    with pytest.raises(ConfigError, match=re.escape(message)):
        reject_unused_overrides(settings(), ["dataset.split_seed=3"], discrete=None)
    reject_unused_overrides(
        settings("dataset.validation_fraction=0.1"), ["dataset.split_seed=3"], discrete=None
    )


@pytest.mark.parametrize("discrete", [False, True])
def test_behavior_cloning_uses_its_actor_and_no_setting_of_cql(discrete: bool):
    unused, every_key = (
        set(unused_settings(settings(BC), discrete=discrete)),
        setting_keys(TrainConfig),
    )
    assert {key for key in every_key if key.startswith(("cql.", "alpha_schedule."))} <= unused
    assert {"network.n_critics", "network.critic_hidden", "dataset.reward_scale"} <= unused
    assert not {"network.actor_hidden", "bc.learning_rate", "batch_size"} & unused
    assert ("network.log_std_min" in unused) == discrete


def test_an_unused_override_is_refused():
    config = settings("env=cartpole")
    message = (
        "cql.n_action_samples=5 has no effect: env=cartpole has discrete actions; leave it out"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        reject_unused_overrides(config, ["env=cartpole", "cql.n_action_samples=5"], discrete=True)
    with pytest.raises(ConfigError, match=re.escape("++cql.n_action_samples=5 has no effect")):
        reject_unused_overrides(config, ["++cql.n_action_samples=5"], discrete=True)


def test_a_used_override_passes():
    reject_unused_overrides(settings(), ["cql.n_action_samples=5", "seed=1"], discrete=False)
    reject_unused_overrides(settings("env=cartpole"), ["cql.action_clip=null"], discrete=True)


def test_with_unknown_actions_only_certainly_unused_overrides_are_refused():
    reject_unused_overrides(
        settings(), ["cql.n_action_samples=5", "cql.target=double"], discrete=None
    )
    with pytest.raises(ConfigError, match=r"cql.alpha=1 has no effect: algorithm=bc has no critic"):
        reject_unused_overrides(settings(BC), ["cql.alpha=1"], discrete=None)


def test_a_schedule_of_alpha_0_is_refused_and_a_preset_with_bc_is_not():
    config = settings("cql.alpha=0", "alpha_schedule=linear")
    message = "alpha_schedule=linear has no effect: cql.alpha=0 leaves nothing to schedule"
    with pytest.raises(ConfigError, match=re.escape(message)):
        reject_unused_overrides(config, ["alpha_schedule=linear"], discrete=False)
    reject_unused_overrides(settings(BC), [BC, "cql=corl"], discrete=False)
