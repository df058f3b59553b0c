"""How it is learned: one dataclass per config group, with types, ranges and what has to fit.

Knows nothing about files, Hydra or defaults: each number stands once, in conf/.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from offline_cql.config.limits import LARGEST_SEED, Section, one_of, within

MULTIPLIER = ("multiplier_initial", "multiplier_learning_rate", "multiplier_min", "multiplier_max")
UNUSED_BY_SCHEDULE = {
    "constant": ("final_factor", "until", "points"),
    "linear": ("points",),
    "cosine": ("points",),
    "exponential": ("points",),
    "piecewise": ("final_factor", "until"),
}


@dataclass(kw_only=True)
class AlgorithmConfig(Section):
    """What is trained."""

    prefix: ClassVar[str] = "algorithm"
    name: str = field(metadata=one_of("cql", "bc"))
    learning_rate: float | None = field(metadata=within("> 0"))  # of bc's policy

    def check(self) -> None:
        """bc has a learning rate here; cql has one per network, in its own section."""
        if self.name == "bc":
            missing = "must be a number > 0 with algorithm=bc"
            self.require(self.learning_rate is not None, "learning_rate", missing)
        else:
            unused = "has no effect with algorithm=cql; set cql.actor_learning_rate"
            self.require(self.learning_rate is None, "learning_rate", unused)


@dataclass(kw_only=True)
class CqlConfig(Section):
    """Conservative Q-learning, for both kinds of action space."""

    prefix: ClassVar[str] = "cql"
    name: str  # of the preset
    alpha: float = field(metadata=within(">= 0"))  # weight of the gap; 0 is plain SAC or DQN
    penalty: str = field(metadata=one_of("logsumexp", "expectation"))
    expectation_over: str | None = field(metadata=one_of("uniform", "policy"))
    n_action_samples: int = field(metadata=within(">= 1"))  # drawn from each proposal
    gap_temperature: float = field(metadata=within("> 0"))
    gap_min: float | None  # reward units
    gap_max: float | None
    bc_updates: int = field(metadata=within(">= 0"))  # in which the actor clones
    bc_learning_rate: float = field(metadata=within("> 0"))  # of the actor meanwhile
    action_clip: float | None = field(metadata=within("> 0", "<= 1"))  # logged actions to +- this
    backup: str = field(metadata=one_of("sampled", "max", "entropy"))  # continuous actions
    target: str = field(metadata=one_of("max", "double", "expected"))  # discrete actions
    gamma: float = field(metadata=within(">= 0", "< 1"))
    polyak: float = field(metadata=within("> 0", "<= 1"))  # share of the new weights per update
    actor_learning_rate: float = field(metadata=within("> 0"))
    critic_learning_rate: float = field(metadata=within("> 0"))
    temperature_learning_rate: float = field(metadata=within("> 0"))
    temperature_initial: float = field(metadata=within("> 0"))
    target_entropy: float | None  # nats; null is -dim(A)
    target_gap: float | None = field(
        metadata={**within("> 0"), "hint": " (cql=lagrange) or absent (fixed alpha)"}
    )
    multiplier_initial: float | None = field(metadata=within("> 0"))
    multiplier_learning_rate: float | None = field(metadata=within("> 0"))
    multiplier_min: float | None = field(metadata=within("> 0"))
    multiplier_max: float | None = field(metadata=within("> 0"))

    def check(self) -> None:
        """The penalty, the gap's limits and the Lagrange form are complete and consistent."""
        if self.penalty == "expectation":
            missing = "must be uniform or policy with cql.penalty=expectation"
            self.require(self.expectation_over is not None, "expectation_over", missing)
        else:
            unused = "has no effect with cql.penalty=logsumexp; leave it null"
            self.require(self.expectation_over is None, "expectation_over", unused)
        if self.gap_min is not None and self.gap_max is not None:
            ordered = self.gap_min < self.gap_max
            self.require(ordered, "gap_min", f"must be < {self.setting('gap_max')}")
        self._check_lagrange()

    def _check_lagrange(self) -> None:
        if self.target_gap is None:
            for name in MULTIPLIER:
                unused = "has no effect without cql.target_gap; choose cql=lagrange"
                self.require(getattr(self, name) is None, name, unused)
            return
        idle = "has no effect with cql.alpha=0; set cql.alpha > 0 or leave it null"
        self.require(self.alpha > 0, "target_gap", idle)
        for name in MULTIPLIER:
            missing = f"must be a number with {self.setting('target_gap')}; choose cql=lagrange"
            self.require(getattr(self, name) is not None, name, missing)
        low, start, high = self.multiplier_min, self.multiplier_initial, self.multiplier_max
        if low is not None and start is not None and high is not None:
            limits = f"must be from {self.setting('multiplier_min')} to "
            limits += self.setting("multiplier_max")
            self.require(low <= start <= high, "multiplier_initial", limits)


@dataclass(kw_only=True)
class AlphaScheduleConfig(Section):
    """A factor on cql.alpha as a function of the update."""

    prefix: ClassVar[str] = "alpha_schedule"
    kind: str = field(metadata=one_of("constant", "linear", "cosine", "exponential", "piecewise"))
    warmup: int = field(metadata=within(">= 0"))  # updates in which the factor grows from 0
    final_factor: float | None = field(metadata=within(">= 0"))  # reached at `until`
    until: int | None  # update at which the decay ends
    points: list[list[float]] | None = field(metadata=within(">= 0"))  # [[update, factor], ...]

    def check(self) -> None:
        """A kind has what it needs, and nothing that it would ignore."""
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
            pairs = bool(self.points) and all(len(point) == 2 for point in self.points)
            self.require(pairs, "points", "must be a list of [update, factor] pairs")
            updates = [point[0] for point in self.points]
            rising = all(left < right for left, right in pairwise(updates))
            self.require(rising, "points", "must have strictly increasing updates")


@dataclass(kw_only=True)
class NetworkConfig(Section):
    """Actor and critics."""

    prefix: ClassVar[str] = "network"
    actor_hidden: list[int] = field(metadata=within(">= 1"))  # widths of the hidden layers
    critic_hidden: list[int] = field(metadata=within(">= 1"))
    n_critics: int = field(metadata=within(">= 1"))
    log_std_min: float
    log_std_max: float
    log_std_affine: bool  # trainable: 1 * log_std - 1 at the start
    orthogonal_actor: bool  # initial weights; gain sqrt(2), last layer 0.01
    orthogonal_critic: bool
    normalize_observations: bool  # by the data's mean and standard deviation

    def check(self) -> None:
        """Every network has a hidden layer; the limits of log std are in order."""
        for name in ("actor_hidden", "critic_hidden"):
            self.require(bool(getattr(self, name)), name, "must name at least one layer's width")
        ordered = self.log_std_min < self.log_std_max
        self.require(ordered, "log_std_min", f"must be < {self.setting('log_std_max')}")


@dataclass(kw_only=True)
class HardwareConfig(Section):
    """Where the training runs."""

    prefix: ClassVar[str] = "hardware"
    accelerator: str = field(metadata=one_of("auto", "cpu", "gpu"))
    devices: int = field(metadata=within(">= 1"))
    strategy: str = field(metadata=one_of("single", "ddp"))
    precision: str = field(metadata=one_of("auto", "32", "bf16"))  # of the hidden layers
    updates_per_step: int = field(metadata=within(">= 1"))  # updates per Lightning step
    capture: bool  # record an update as a CUDA graph and replay it

    def check(self) -> None:
        """Several devices need a strategy for them."""
        alone = self.strategy != "single" or self.devices == 1
        self.require(alone, "devices", "must be 1 with hardware.strategy=single; try hardware=ddp")
        possible = not self.capture or (self.strategy == "single" and self.accelerator != "cpu")
        self.require(possible, "capture", "needs one GPU; try hardware=gpu")


@dataclass(kw_only=True)
class LoggerConfig(Section):
    """Who gets a copy of metrics.csv."""

    prefix: ClassVar[str] = "logger"
    kind: str = field(metadata=one_of("wandb", "tensorboard", "csv", "none"))
    project: str | None
    entity: str | None
    group: str | None
    tags: list[str]


@dataclass(kw_only=True)
class RolloutConfig(Section):
    """Episodes of the deterministic policy."""

    prefix: ClassVar[str] = "evaluation"
    episodes: int = field(metadata=within(">= 0"))
    environments: int = field(metadata=within(">= 1"))  # stepped together, equal shares
    seed: int = field(metadata=within(">= 0", LARGEST_SEED))

    def check(self) -> None:
        """Every environment runs the same number of episodes: short ones are not favored."""
        equal = self.episodes % self.environments == 0
        self.require(equal, "episodes", f"must be a multiple of {self.setting('environments')}")


@dataclass(kw_only=True)
class EvaluationConfig(RolloutConfig):
    """Rollouts while training."""

    every: int = field(metadata=within(">= 1"))  # updates


@dataclass(kw_only=True)
class OpeConfig(Section):
    """Off-policy estimates: what a policy would earn, from the data alone."""

    prefix: ClassVar[str] = "ope"
    method: str = field(metadata=one_of("none", "fqe", "all"))
    ensemble_size: int = field(metadata=within(">= 5"))  # critics: fewer say nothing about a spread
    hidden: list[int] = field(metadata=within(">= 1"))
    updates: int = field(metadata=within(">= 1"))
    batch_size: int = field(metadata=within(">= 1"))
    learning_rate: float = field(metadata=within("> 0"))
    polyak: float = field(metadata=within("> 0", "<= 1"))
    seed: int = field(metadata=within(">= 0", LARGEST_SEED))
