"""The settings that all algorithms share: schedule, network, hardware, loggers, evaluation."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from offline_cql.config.section import (
    Amount,
    Count,
    Flag,
    Integer,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Text,
    Threads,
    to_text,
)

UNUSED_BY_SCHEDULE = {
    "constant": ("final_factor", "until", "points"),
    "linear": ("points",),
    "cosine": ("points",),
    "exponential": ("points",),
    "piecewise": ("final_factor", "until"),
}


class AlphaScheduleConfig(Section):
    """A factor on cql.alpha as a function of the update."""

    prefix: ClassVar[str] = "alpha_schedule"
    kind: Literal["constant", "linear", "cosine", "exponential", "piecewise"]
    warmup: Amount  # updates in which the factor grows from 0
    final_factor: Number | None = Field(ge=0)  # reached at `until`
    until: Integer | None  # update at which the decay ends
    points: list[list[Annotated[Number, Field(ge=0)]]] | None  # [[update, factor], ...]

    def check(self) -> None:
        """Raise ConfigError when a setting is missing for the kind, or would be ignored."""
        kind = f"alpha_schedule={self.kind}"
        for name in ("final_factor", "until", "points"):
            value, unused = getattr(self, name), name in UNUSED_BY_SCHEDULE[self.kind]
            complaint = f"has no effect with {kind}; leave it null" if unused else "must be set"
            self.require((value is None) == unused, name, complaint)
        if self.kind == "exponential":
            self.require(self.final_factor != 0, "final_factor", f"must be > 0 with {kind}")
        if self.until is not None:
            self.require(self.until > self.warmup, "until", f"must be > {self.setting('warmup')}")
        if self.points is not None:
            complete = bool(self.points) and all(len(point) == 2 for point in self.points)
            self.require(complete, "points", "must be a list of [update, factor] pairs")
            updates = [point[0] for point in self.points]
            rising = all(left < right for left, right in pairwise(updates))
            self.require(rising, "points", "must have strictly increasing updates")


class NetworkConfig(Section):
    """Actor and critics."""

    prefix: ClassVar[str] = "network"
    actor_hidden: list[Count]  # widths of the hidden layers
    critic_hidden: list[Count]
    critic_norm: Literal["none", "layer"]  # LayerNorm in each hidden layer of the critics
    n_critics: Count
    log_std_min: Number
    log_std_max: Number
    log_std_affine: Flag  # trainable: 1 * log_std - 1 at the start
    orthogonal_actor: Flag  # initial weights; gain sqrt(2), last layer 0.01
    orthogonal_critic: Flag
    normalize_observations: Flag  # by the data's mean and standard deviation
    policy_ema: Annotated[Number, Field(gt=0, lt=1)] | None  # decay of the average that acts

    def check(self) -> None:
        """Raise ConfigError for a network without hidden layer, or an empty range of log std."""
        for name in ("actor_hidden", "critic_hidden"):
            self.require(bool(getattr(self, name)), name, "must name at least one layer's width")
        ordered = self.log_std_min < self.log_std_max
        self.require(ordered, "log_std_min", f"must be < {self.setting('log_std_max')}")


class HardwareConfig(Section):
    """Devices and precision of the training."""

    prefix: ClassVar[str] = "hardware"
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count
    strategy: Literal["single", "ddp"]
    threads: Threads = None  # of torch, in each process; null: a run from before this setting
    precision: Annotated[Literal["auto", "32", "bf16"], BeforeValidator(to_text)]  # hidden layers
    updates_per_step: Count  # updates per Lightning step
    capture: Flag  # record an update as a CUDA graph and replay it
    rank_timeout: Positive  # seconds that a process of strategy=ddp waits for another

    def check(self) -> None:
        """Raise ConfigError for several devices without a strategy, or a graph without a GPU."""
        alone = self.strategy != "single" or self.devices == 1
        self.require(alone, "devices", "must be 1 with hardware.strategy=single; try hardware=ddp")
        possible = not self.capture or (self.strategy == "single" and self.accelerator != "cpu")
        self.require(possible, "capture", "needs one GPU; try hardware=gpu")


class LoggerConfig(Section):
    """Loggers beside metrics.csv, which is always written."""

    prefix: ClassVar[str] = "logger"
    names: list[Literal["wandb", "tensorboard", "mlflow", "comet"]]
    project: Text | None  # null: the service's own setting, as WANDB_PROJECT, else offline-cql
    entity: Text | None  # null: the account's default
    group: Text | None  # null: the name of a grid
    name: Text | None = None  # null: the name of the run folder
    job_type: Text | None = None
    notes: Text | None = None
    tags: list[Text]
    artifacts: Literal["none", "policy", "all"] | None = None  # null: a run from before this

    def check(self) -> None:
        """Raise ConfigError for a logger that is named twice."""
        unique = len(set(self.names)) == len(self.names)
        self.require(unique, "names", "must name each logger once")


class RolloutConfig(Section):
    """Episodes of the deterministic policy."""

    prefix: ClassVar[str] = "evaluation"
    episodes: Amount
    environments: Count  # stepped together, equal shares
    seed: Seed
    video: Amount | None = None  # episodes of a video; null: a run from before this, none

    def check(self) -> None:
        """Raise ConfigError for unequal shares: they would favor short episodes."""
        count, rest = divmod(self.episodes, self.environments)
        environments = self.setting("environments")
        episodes = f"{self.key('episodes')}={(count + 1) * self.environments}"
        remedy = f"set {episodes}, or fewer environments"
        self.require(rest == 0, "episodes", f"must be a multiple of {environments}: {remedy}")


class EvaluationConfig(RolloutConfig):
    """Rollouts during training."""

    every: Count  # updates
    time_limit: Positive  # seconds per evaluation, then it counts as failed


class OpeConfig(Section):
    """Off-policy estimates of the return, from the data alone."""

    prefix: ClassVar[str] = "ope"
    method: Literal["none", "fqe", "all"]
    ensemble_size: Integer = Field(ge=5)  # critics; fewer give no useful spread
    hidden: list[Count]
    updates: Count
    batch_size: Count
    learning_rate: Positive
    polyak: Share
    seed: Seed
