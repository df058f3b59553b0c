"""Settings that change nothing in a chosen combination, and the refusal of an override of one.

Knows the combinations, not how an agent works: a change there has to be repeated here.
"""

from dataclasses import fields

from offline_cql.config.columns import ColumnsConfig
from offline_cql.config.data import DatasetConfig
from offline_cql.config.entry_points import TrainConfig
from offline_cql.config.limits import shown
from offline_cql.config.sections import CqlConfig
from offline_cql.errors import ConfigError

# What only a sampled, continuous action has.
CONTINUOUS = (
    "cql.n_action_samples",
    "cql.penalty",
    "cql.expectation_over",
    "cql.bc_updates",
    "cql.bc_learning_rate",
    "cql.action_clip",
    "cql.backup",
    "cql.actor_learning_rate",
    "cql.temperature_initial",
    "cql.temperature_learning_rate",
    "cql.target_entropy",
    "network.actor_hidden",
    "network.orthogonal_actor",
)
LOG_STD = ("network.log_std_min", "network.log_std_max", "network.log_std_affine")
CRITIC = ("network.critic_hidden", "network.n_critics", "network.orthogonal_critic")
REWARD = (
    "dataset.reward_scale",
    "dataset.reward_shift",
    "dataset.return_range",
    "dataset.n_step",
    "env.reward_scale",
)
COLUMNS = tuple(f"dataset.columns.{field.name}" for field in fields(ColumnsConfig))
SCHEDULE = tuple(
    f"alpha_schedule.{name}" for name in ("kind", "warmup", "final_factor", "until", "points")
)
WANDB = ("logger.project", "logger.entity", "logger.group", "logger.tags")
ROLLOUTS = ("evaluation.environments", "evaluation.seed")


def unused_settings(config: TrainConfig, *, discrete: bool) -> dict[str, str]:
    """Full key of each setting that changes nothing in this combination, with the reason."""
    reasons = _unused_on_data(config.dataset)

    def idle(names: tuple[str, ...], reason: str) -> None:
        reasons.update({name: reason for name in names if name not in reasons})

    if discrete:
        idle(LOG_STD, f"env={config.env.name} has discrete actions")
    if config.algorithm.name == "bc":
        cql = tuple(f"cql.{field.name}" for field in fields(CqlConfig))
        idle(cql + SCHEDULE + CRITIC, "algorithm=bc has no critics")
        idle(REWARD, "algorithm=bc reads no rewards")
    else:
        reasons.update(_unused_on_cql(config, discrete=discrete))
    if config.logger.kind != "wandb":
        idle(WANDB, f"logger={config.logger.kind} does not use it")
    if config.evaluation.episodes == 0:
        idle(ROLLOUTS, "evaluation.episodes=0 runs no rollouts")
    return reasons


def _unused_on_data(dataset: DatasetConfig) -> dict[str, str]:
    """By a file, an id or a quality a source finds its data; what it does not use is idle."""
    reasons: dict[str, str] = {}
    source, named = f"dataset={dataset.source}", dataset.quality or ""
    if dataset.source != "table":
        reasons.update(dict.fromkeys(COLUMNS, f"{source} knows its columns"))
    if dataset.source in ("simulated", "minari"):
        reasons["dataset.path"] = f"{source} is found by dataset.id"
    elif dataset.path is not None:
        names = ("dataset.id", "dataset.quality")
        reasons.update(dict.fromkeys(names, f"{source} is read from {dataset.setting('path')}"))
    if dataset.source in ("minari", "d4rl") and named not in str(dataset.id):
        # conf/ makes the id of the quality; one that was typed in need not name it.
        reasons["dataset.quality"] = f"{dataset.setting('id')} says which data"
    if dataset.validation_fraction == 0 and dataset.fraction == 1:
        undrawn = f"{dataset.setting('validation_fraction')} and {dataset.setting('fraction')} draw nothing"
        reasons["dataset.split_seed"] = undrawn
    return reasons


def _unused_on_cql(config: TrainConfig, *, discrete: bool) -> dict[str, str]:
    cql = config.cql
    reasons: dict[str, str] = {}
    if discrete:
        reason = f"env={config.env.name} has discrete actions"
        reasons.update(dict.fromkeys(CONTINUOUS, reason))
    else:
        reasons["cql.target"] = f"env={config.env.name} has continuous actions; see cql.backup"
        if cql.penalty == "expectation":
            reasons["cql.gap_temperature"] = "cql.penalty=expectation has no log-sum-exp"
    if cql.alpha == 0:
        # The gap is still logged, so what it is made of (cql.n_action_samples, ...) still counts.
        reasons.update(dict.fromkeys(SCHEDULE, "cql.alpha=0 leaves nothing to schedule"))
    return reasons


def reject_unused_overrides(
    config: TrainConfig, overrides: list[str], *, discrete: bool | None
) -> None:
    """Raises ConfigError when an override (cql.n_action_samples=5) names a setting without effect.

    discrete None: not known yet, so only what has no effect with either kind of actions. A chosen
    group (alpha_schedule=linear) counts when nothing in it has an effect; not cql=..., which also
    chooses the network. Setting null is leaving out.
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
        if key in reasons and value != shown(None):
            raise ConfigError(f"{override} has no effect: {reasons[key]}; leave it out")
