"""What is learned from: the task and its data. One dataclass per config group.

Knows nothing about files, Hydra or defaults: each number stands once, in conf/.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from offline_cql.config.columns import ColumnsConfig
from offline_cql.config.limits import LARGEST_SEED, Section, one_of, within


@dataclass(kw_only=True)
class EnvConfig(Section):
    """A task, and the settings that are sensible for it."""

    prefix: ClassVar[str] = "env"
    name: str  # short name; also in the data set's id and in paths
    id: str | None  # Gymnasium's id of the simulator; null: there is none
    arguments: dict[str, Any]  # of gymnasium.make
    observation_keys: list[str] | None  # taken from a Dict observation; null: all, sorted
    observation_shift: list[float] | None  # added to the observation's first numbers
    observation_columns: list[int] | None = field(metadata=within(">= 0"))  # taken; null: all
    observation_constants: list[float] | None  # put after those columns
    qualities: list[str]  # of the simulated data sets
    quality: str | None  # the one taken when none is named
    minari_id: str | None  # the data set of dataset=minari
    d4rl_task: str | None  # the data set of dataset=d4rl
    d4rl_env: str | None  # its simulator
    d4rl_arguments: dict[str, Any]
    d4rl_observation_keys: list[str] | None
    d4rl_observation_shift: list[float] | None
    d4rl_observation_columns: list[int] | None
    d4rl_observation_constants: list[float] | None
    updates: int = field(metadata=within(">= 1"))
    evaluate_every: int = field(metadata=within(">= 1"))  # updates
    episodes: int = field(metadata=within(">= 0"))  # of each evaluation
    hidden: list[int] = field(metadata=within(">= 1"))  # widths that network=default takes
    bc_updates: int = field(metadata=within(">= 0"))  # that cql=default takes
    actor_learning_rate: float = field(metadata=within("> 0"))  # that cql=default takes
    reward_scale: float = field(metadata=within("> 0"))
    reference_min: float | None  # return with normalized score 0
    reference_max: float | None  # return with normalized score 100
    reference_source: str | None

    def check(self) -> None:
        """The default quality exists; references come in pairs; the id imports nothing."""
        plain = "must be a plain id: package:Id would import code"
        self.require(":" not in (self.id or ""), "id", plain)
        known = not self.qualities or self.quality in self.qualities
        self.require(known, "quality", f"must be one of {', '.join(self.qualities)}")
        needs = "has no effect without env.observation_columns; leave it null"
        alone = self.observation_constants is None or self.observation_columns is not None
        self.require(alone, "observation_constants", needs)
        low, high = self.reference_min, self.reference_max
        self.require(
            (low is None) == (high is None),
            "reference_max",
            f"and {self.setting('reference_min')} must both be set or both be null",
        )
        if low is not None and high is not None:
            self.require(high > low, "reference_max", f"must be > {self.setting('reference_min')}")


@dataclass(kw_only=True)
class DatasetConfig(Section):
    """Which transitions to learn from; rewards are used as scale * reward + shift."""

    prefix: ClassVar[str] = "dataset"
    source: str = field(metadata=one_of("simulated", "minari", "d4rl", "table"))
    name: str  # in paths
    id: str | None  # Minari's id, or D4RL's task
    quality: str | None
    size: int | None = field(metadata=within(">= 1"))  # transitions to record
    path: str | None  # of the user's files
    columns: ColumnsConfig | None  # of a table
    fraction: float = field(metadata=within("> 0", "<= 1"))  # of the episodes, drawn
    validation_fraction: float = field(metadata=within(">= 0", "< 1"))  # of those, kept for judging
    top_fraction: float = field(metadata=within("> 0", "<= 1"))  # of the rest, by return
    split_seed: int = field(metadata=within(">= 0", LARGEST_SEED))
    n_step: int = field(metadata=within(">= 1"))  # rewards summed before the value follows
    return_range: float | None = field(metadata=within("> 0"))  # stretch the returns to span this
    reward_scale: float = field(metadata=within("> 0"))
    reward_shift: float
