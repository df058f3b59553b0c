"""Settings without effect in the chosen combination, and the refusal of an override of one.

The algorithm and the data source say which settings they do not read.
"""

from offline_cql.config.algorithms import ALGORITHMS
from offline_cql.config.algorithms.base import SCHEDULE, Actions
from offline_cql.config.entry_points import TrainConfig
from offline_cql.config.keys import setting_keys
from offline_cql.config.section import format_value
from offline_cql.config.sources import SOURCES
from offline_cql.errors import ConfigError

LOG_STD = ("network.log_std_min", "network.log_std_max", "network.log_std_affine")
# The settings that each logger reads.
LOGGERS = {
    "wandb": ("project", "entity", "group", "name", "job_type", "notes", "tags", "artifacts"),
    "tensorboard": (),
    "mlflow": ("project", "group", "name", "tags"),
    "comet": ("project", "entity", "group", "name", "tags"),
}
ROLLOUTS = tuple(f"evaluation.{n}" for n in ("environments", "seed", "time_limit", "video"))


def unused_settings(config: TrainConfig, *, discrete: bool) -> dict[str, str]:
    """Return the full key of each setting without effect in this combination, with the reason."""
    chosen, dataset = ALGORITHMS[config.algorithm], config.dataset
    reasons = SOURCES[dataset.source].unused(dataset)
    if dataset.n_step == 1:
        reasons["dataset.td_lambda"] = f"{dataset.setting('n_step')} sums a single reward"
    if dataset.validation_fraction == 0 and dataset.fraction == 1 and dataset.td_lambda is None:
        whole = f"{dataset.setting('validation_fraction')} and {dataset.setting('fraction')}"
        reasons["dataset.split_seed"] = f"{whole} draw nothing"
    actions = Actions(config.env.name, discrete)
    reasons |= chosen.unused(config.algorithm_section(), actions)
    if discrete:
        reasons |= dict.fromkeys(LOG_STD, str(actions))
    for name in ALGORITHMS:
        if name != chosen.name:
            for key in setting_keys(ALGORITHMS[name].section):
                reasons.setdefault(f"{name}.{key}", f"algorithm={chosen.name} does not read it")
    logger = config.logger
    used = {"names", *(setting for name in logger.names for setting in LOGGERS[name])}
    unused = [logger.key(name) for name in type(logger).model_fields if name not in used]
    reasons |= dict.fromkeys(unused, f"{logger.setting('names')} does not use it")
    if config.hardware.strategy == "single":
        alone = config.hardware.setting("strategy")
        reasons["hardware.rank_timeout"] = f"{alone} has one process"
    if config.evaluation.episodes == 0:
        reasons |= dict.fromkeys(ROLLOUTS, "evaluation.episodes=0 runs no rollouts")
    return reasons


def reject_unused_overrides(
    config: TrainConfig, overrides: list[str], *, discrete: bool | None
) -> None:
    """Raise ConfigError when an override (cql.n_action_samples=5) names a setting without effect.

    discrete: None while the kind of actions is unknown; then only settings without effect for both
    kinds are refused. A chosen group (alpha_schedule=linear) is refused when none of its settings
    has an effect; not cql=..., which also chooses the network. A value of null is allowed.
    """
    reasons = unused_settings(config, discrete=bool(discrete))
    if discrete is None:
        other = unused_settings(config, discrete=True)
        reasons = {key: reason for key, reason in reasons.items() if key in other}
    if all(key in reasons for key in SCHEDULE):
        reasons["alpha_schedule"] = reasons["alpha_schedule.kind"]
    for override in overrides:
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        if key in reasons and value != format_value(None):
            raise ConfigError(f"{override} has no effect: {reasons[key]}; leave it out")
