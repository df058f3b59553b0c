"""The settings of each entry point, as one section of sections."""

from typing import ClassVar

from pydantic import Field

from offline_cql.config.algorithms import AlgorithmSections
from offline_cql.config.data import DatasetConfig, EnvConfig
from offline_cql.config.section import (
    Count,
    Flag,
    Fraction,
    Integer,
    Location,
    Number,
    Section,
    Seed,
    Text,
)
from offline_cql.config.sections import (
    AlphaScheduleConfig,
    EvaluationConfig,
    HardwareConfig,
    LoggerConfig,
    NetworkConfig,
    OpeConfig,
    RolloutConfig,
)
from offline_cql.config.sources import SOURCES, check_dataset


class TrainConfig(AlgorithmSections):
    """Settings of train.py."""

    seed: Seed
    updates: Count  # gradient updates
    batch_size: Count  # over all devices together
    gamma: Fraction  # discount per step
    log_every: Count  # updates
    checkpoint_every: Count  # updates
    run_dir: Location
    resume: Location | None  # a run folder to continue
    env: EnvConfig
    dataset: DatasetConfig
    alpha_schedule: AlphaScheduleConfig
    network: NetworkConfig
    hardware: HardwareConfig
    logger: LoggerConfig
    evaluation: EvaluationConfig

    def check(self) -> None:
        """Raise ConfigError when the data do not exist, or fit neither devices nor simulator."""
        super().check()
        check_dataset(self.env, self.dataset)
        equal = self.batch_size % self.hardware.devices == 0
        devices = self.hardware.setting("devices")
        self.require(equal, "batch_size", f"must be a multiple of {devices}")
        simulator = SOURCES[self.dataset.source].simulator(self.env).id
        possible = simulator is not None or self.evaluation.episodes == 0
        none = f"must be 0 with env={self.env.name}: there is no simulator; try evaluation=none"
        self.evaluation.require(possible, "episodes", none)
        evaluates = self.hardware.strategy == "ddp" and self.evaluation.episodes > 0
        waits = not evaluates or self.hardware.rank_timeout > self.evaluation.time_limit
        limit = f"must be > {self.evaluation.setting('time_limit')}: the others wait for rank 0"
        self.hardware.require(waits, "rank_timeout", limit)
        count = self.cql.target_critics
        enough = count is None or count <= self.network.n_critics
        critics = f"must be <= {self.network.setting('n_critics')}"
        self.cql.require(enough, "target_critics", critics)
        fits = self.dataset.size is None or self.batch_size <= self.dataset.size
        self.require(fits, "batch_size", f"must be <= {self.dataset.setting('size')}")

    def warnings(self) -> list[str]:
        """Return one line per combination that is allowed but probably a mistake."""
        ends: list[tuple[Section, str, str]] = [
            (self.alpha_schedule, "until", "alpha"),
            (self.algorithm_section(), "decay_until", "the decay"),
        ]
        after = f"is after the last update ({self.updates})"
        return [
            f"{section.setting(name)} {after}: {what} does not reach its end"
            for section, name, what in ends
            if (until := getattr(section, name, None)) is not None and until > self.updates
        ]

    def warnings_for(self, *, discrete: bool) -> list[str]:
        """Return the warnings that depend on the kind of the data's actions."""
        if discrete or self.algorithm != "cql" or self.cql.bc_updates < self.updates:
            return []
        return [
            f"{self.cql.setting('bc_updates')} with updates={self.updates}: "
            "the policy clones the data in all of them"
        ]


class CollectConfig(Section):
    """Settings of collect.py."""

    seed: Seed
    policy: Text | None  # random, run:FOLDER, module:function; null: that of dataset.quality
    overwrite: Flag  # replace a data set of this id
    env: EnvConfig
    dataset: DatasetConfig

    def check(self) -> None:
        """Raise ConfigError for data that are neither simulated nor a table."""
        complaint = "must be simulated, or table: other data cannot be collected"
        self.dataset.require(self.dataset.source in ("simulated", "table"), "source", complaint)
        if self.dataset.source == "table":
            check_dataset(self.env, self.dataset)
            self.require(self.policy is None, "policy", "has no effect with dataset=table")
            return
        if self.policy is None:
            check_dataset(self.env, self.dataset)
        none = f"must be the id of a simulator with env={self.env.name}, to act in"
        self.env.require(self.env.id is not None, "id", none)


class AuditConfig(Section):
    """Settings of audit.py."""

    gamma: Fraction  # of the discounted returns
    out: Location  # a new folder for audit.json and audit.html
    run: Location | None  # whose last policy is compared with the logged actions
    infer: Flag  # print the roles inferred for the columns of dataset.path, and stop
    strict: Flag  # exit with 2 for a warning too
    env: EnvConfig
    dataset: DatasetConfig

    def check(self) -> None:
        """Raise ConfigError when the data do not exist, or infer=true has no table to read."""
        check_dataset(self.env, self.dataset)
        tables = not self.infer or self.dataset.source == "table"
        self.require(tables, "infer", "needs your own file: dataset=table dataset.path=FILE")


class PackageConfig(Section):
    """The package of a run's simulator, which is imported because the user names it."""

    prefix: ClassVar[str] = "env"
    package: Text | None


class EvaluateConfig(Section):
    """Settings of evaluate.py."""

    run: Location  # a run folder
    env: PackageConfig
    checkpoint: Text  # last, the number of updates of a kept policy, or all of them
    evaluation: RolloutConfig
    ope: OpeConfig

    def check(self) -> None:
        """Raise ConfigError for an evaluation of nothing, or rollouts of all checkpoints."""
        no_estimates = self.ope.method == "none" and self.evaluation.episodes == 0
        self.evaluation.require(not no_estimates, "episodes", "must be >= 1, or choose ope=fqe")
        complaint = "needs ope=fqe evaluation.episodes=0: rollouts are made for one checkpoint"
        valid = self.checkpoint != "all" or (
            self.ope.method != "none" and not self.evaluation.episodes
        )
        self.require(valid, "checkpoint", complaint)


class ReportConfig(Section):
    """Settings of report.py."""

    runs: Location  # a folder that contains run folders, or a pattern of such
    out: Location  # a new folder for the page, the tables and the plots
    above_best_share: Number = Field(ge=0, le=1)  # more: alpha is too small
    bc_margin: Number = Field(ge=0)  # relative; nearer: alpha is too large
    resamples: Integer = Field(ge=100)  # of the bootstrap
    seed: Seed  # of the bootstrap


class ExportConfig(Section):
    """Settings of export.py."""

    run: Location  # a run folder
    env: PackageConfig
    checkpoint: Text  # last, or the number of updates of a kept policy
    sampled: Flag  # the policy's distribution, from random numbers that come in
    support: Flag  # a second output: how well the data support the action

    def check(self) -> None:
        """Raise ConfigError for a checkpoint that is not last or a number of updates."""
        valid = self.checkpoint == "last" or self.checkpoint.isdecimal()
        self.require(valid, "checkpoint", "must be last or a number of updates")


ENTRY_POINTS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "audit": AuditConfig,
    "collect": CollectConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "export": ExportConfig,
}
