"""Everything that each entry point takes, as one dataclass of sections.

Knows nothing about files, Hydra or defaults, nor what a entry point does with its settings.
"""

from dataclasses import dataclass, field

from offline_cql.config.data import DatasetConfig, EnvConfig
from offline_cql.config.limits import LARGEST_SEED, Section, shown, within
from offline_cql.config.sections import (
    AlgorithmConfig,
    AlphaScheduleConfig,
    CqlConfig,
    EvaluationConfig,
    HardwareConfig,
    LoggerConfig,
    NetworkConfig,
    OpeConfig,
    RolloutConfig,
)


def check_dataset(env: EnvConfig, dataset: DatasetConfig) -> None:
    """Raises ConfigError when the environment has no such data set."""
    source = dataset.source
    if source == "simulated":
        none = f"must be minari, d4rl or table with env={env.name}: no simulated data come with it"
        dataset.require(bool(env.qualities), "source", none)
        known = f"must be one of {', '.join(env.qualities)} with env={env.name}"
        dataset.require(dataset.quality in env.qualities, "quality", known)
        dataset.require(dataset.size is not None, "size", "must be a number of transitions")
    else:
        recorded = f"has no effect with dataset={source}: all of it is read; see dataset.fraction"
        dataset.require(dataset.size is None, "size", recorded)
    if source == "table":
        missing = "must be the file with your logs, as in dataset.path=logs.parquet"
        dataset.require(dataset.path is not None, "path", missing)
    elif source in ("minari", "d4rl"):
        there = dataset.id is not None or dataset.path is not None
        name = "mujoco/hopper/medium-v0" if source == "minari" else "hopper-medium-v2"
        missing = f"must be set with env={env.name}, as in dataset.id={name}"
        dataset.require(there, "id", missing)


@dataclass(kw_only=True)
class TrainConfig(Section):
    """Everything that train.py takes."""

    seed: int = field(metadata=within(">= 0", LARGEST_SEED))
    updates: int = field(metadata=within(">= 1"))  # gradient updates
    batch_size: int = field(metadata=within(">= 1"))  # over all devices together
    log_every: int = field(metadata=within(">= 1"))  # updates
    checkpoint_every: int = field(metadata=within(">= 1"))  # updates
    run_dir: str
    resume: str | None  # a run folder to continue
    env: EnvConfig
    dataset: DatasetConfig
    algorithm: AlgorithmConfig
    cql: CqlConfig
    alpha_schedule: AlphaScheduleConfig
    network: NetworkConfig
    hardware: HardwareConfig
    logger: LoggerConfig
    evaluation: EvaluationConfig

    def check(self) -> None:
        """The batch fits the devices and the data; the data exist."""
        check_dataset(self.env, self.dataset)
        share = self.batch_size % self.hardware.devices == 0
        devices = self.hardware.setting("devices")
        self.require(share, "batch_size", f"must be a multiple of {devices}")
        blind = self.env.id is None and self.evaluation.episodes > 0
        none = f"must be 0 with env={self.env.name}: there is no simulator"
        self.evaluation.require(not blind, "episodes", none)
        fits = self.dataset.size is None or self.batch_size <= self.dataset.size
        self.require(fits, "batch_size", f"must be <= {self.dataset.setting('size')}")

    def warnings(self) -> list[str]:
        """What is allowed but hardly meant, one line each."""
        until = self.alpha_schedule.until
        if until is not None and until > self.updates:
            late = f"is after the last update: alpha does not reach its end ({shown(self.updates)})"
            return [f"{self.alpha_schedule.setting('until')} {late}"]
        return []


@dataclass(kw_only=True)
class CollectConfig(Section):
    """Everything that collect.py takes."""

    seed: int = field(metadata=within(">= 0", LARGEST_SEED))
    policy: str | None  # run:FOLDER; null is the shipped behavior policy
    overwrite: bool  # record again what is there
    env: EnvConfig
    dataset: DatasetConfig

    def check(self) -> None:
        """The data set is one that can be recorded."""
        only = "must be simulated: only such data are recorded"
        self.dataset.require(self.dataset.source == "simulated", "source", only)
        check_dataset(self.env, self.dataset)


@dataclass(kw_only=True)
class AuditConfig(Section):
    """Everything that audit.py takes."""

    gamma: float = field(metadata=within(">= 0", "< 1"))  # of the discounted returns
    out: str  # a new folder for audit.json and audit.html
    infer: bool  # only print how the columns of dataset.path would be taken
    strict: bool  # a warning is an error
    env: EnvConfig
    dataset: DatasetConfig

    def check(self) -> None:
        """The data exist; only a table has columns that need a guess."""
        check_dataset(self.env, self.dataset)
        tables = not self.infer or self.dataset.source == "table"
        self.require(tables, "infer", "needs your own file: dataset=table dataset.path=FILE")


@dataclass(kw_only=True)
class EvaluateConfig(Section):
    """Everything that evaluate.py takes."""

    run: str  # a run folder
    checkpoint: str  # last, the number of updates of a kept policy, or all of them
    evaluation: RolloutConfig
    ope: OpeConfig

    def check(self) -> None:
        """There is something to do, and only estimates are made for all checkpoints."""
        idle = self.ope.method == "none" and self.evaluation.episodes == 0
        self.evaluation.require(not idle, "episodes", "must be >= 1, or choose ope=fqe")
        only = "needs ope=fqe evaluation.episodes=0: rollouts are made for one checkpoint"
        one = self.checkpoint != "all" or (
            self.ope.method != "none" and not self.evaluation.episodes
        )
        self.require(one, "checkpoint", only)


@dataclass(kw_only=True)
class ReportConfig(Section):
    """Everything that report.py takes."""

    runs: str  # a folder with run folders in it, at any depth, or a pattern of such
    out: str  # a new folder for the page, the tables and the plots
    above_best_share: float = field(metadata=within(">= 0", "<= 1"))  # more: alpha is too small
    bc_margin: float = field(metadata=within(">= 0"))  # relative; nearer: alpha is too large
    resamples: int = field(metadata=within(">= 100"))  # of the bootstrap
    seed: int = field(metadata=within(">= 0", LARGEST_SEED))  # of the bootstrap


@dataclass(kw_only=True)
class ExportConfig(Section):
    """Everything that export.py takes."""

    run: str  # a run folder
    checkpoint: str  # last, or the number of updates of a kept policy
    sampled: bool  # the policy's distribution, from random numbers that come in

    def check(self) -> None:
        """One policy is meant."""
        one = self.checkpoint == "last" or self.checkpoint.isdecimal()
        self.require(one, "checkpoint", "must be last or a number of updates")
