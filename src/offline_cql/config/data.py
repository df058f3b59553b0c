"""The environment and the data set, with the columns of a user's table."""

import codecs
import re
from typing import Any, ClassVar, Literal

from omegaconf import OmegaConf
from pydantic import Field, model_validator

from offline_cql.config.section import (
    Amount,
    Count,
    Flag,
    Fraction,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Text,
)
from offline_cql.errors import ConfigError

SEPARATOR = ":"  # in package:Id, as Gymnasium writes it


def slug(env_id: str | None) -> str:
    """Return an environment's id as a name for paths: icu_sepsis:Sepsis/ICU-v2 is sepsis-icu-v2.

    Of a missing id, which validation refuses, the empty name.
    """
    name = str(env_id or "").rpartition(SEPARATOR)[2]
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


# For the `name` of an environment that is given by its id: ${slug:${env.id}}.
OmegaConf.register_new_resolver("slug", slug, replace=True)


class SimulatorConfig(Section):
    """A simulator and the part of its observation that is used."""

    id: Text | None = None  # Gymnasium's id; null: no simulator
    arguments: dict[str, Any] = Field(default_factory=dict)  # of gymnasium.make
    observation_keys: list[Text] | None = None  # entries of a Dict observation; null: all, sorted
    observation_shift: list[Number] | None = None  # added to the first numbers of the observation
    observation_columns: list[Amount] | None = None  # columns kept; null: all
    observation_constants: list[Number] | None = None  # appended to the observation

    def check(self) -> None:
        """Raise ConfigError for an id with a package in it, or constants without columns."""
        plain = SEPARATOR not in (self.id or "")
        self.require(plain, "id", "must be a plain id; set env.package=PACKAGE")
        complaint = f"has no effect without {self.key('observation_columns')}; leave it null"
        complete = self.observation_constants is None or self.observation_columns is not None
        self.require(complete, "observation_constants", complaint)


class D4RLConfig(SimulatorConfig):
    """D4RL's data set of a task, and the simulator that gives the same observations."""

    prefix: ClassVar[str] = "env.d4rl"
    task: Text | None = None


class EnvConfig(SimulatorConfig):
    """A task: its simulator, its data sets, its reference returns."""

    prefix: ClassVar[str] = "env"
    name: Text  # in paths and in the ids of simulated data
    package: Text | None = None  # imported to register the id, if the user names it
    qualities: list[Text]  # of the simulated data sets
    quality: Text | None  # the default one
    minari_id: Text | None  # data set of dataset=minari
    d4rl: D4RLConfig | None  # data set of dataset=d4rl
    reference_min: Number | None  # return with normalized score 0
    reference_max: Number | None  # return with normalized score 100
    reference_source: Text | None

    @model_validator(mode="before")
    @classmethod
    def _split_id(cls, values: Any) -> Any:
        """Read package:Id as Gymnasium does: as a package and an id in it."""
        env_id = values.get("id") if isinstance(values, dict) else None
        if not isinstance(env_id, str) or SEPARATOR not in env_id:
            return values
        package, _, name = env_id.partition(SEPARATOR)
        if values.get("package") not in (None, package):
            raise ConfigError(f"env.id={env_id} must be in env.package={values['package']}")
        return values | {"package": package, "id": name}

    def check(self) -> None:
        """Raise ConfigError without a name, for an unknown quality or incomplete references."""
        super().check()
        if not self.name:
            raise ConfigError("env.id is missing; set env.id=ID, and env.package=PACKAGE if needed")
        valid = not self.qualities or self.quality in self.qualities
        self.require(valid, "quality", f"must be one of {', '.join(self.qualities)}")
        low, high = self.reference_min, self.reference_max
        complaint = f"and {self.setting('reference_min')} must both be set or both be null"
        self.require((low is None) == (high is None), "reference_max", complaint)
        if low is not None and high is not None:
            self.require(high > low, "reference_max", f"must be > {self.setting('reference_min')}")


LISTS = ("observation", "action", "next_observation")  # roles of several columns
OPTIONAL = "?"  # at the end of a column's name: used if the column exists
# Columns that say how rows follow each other.
SEQUENCE = ("episode", "step", "terminated", "truncated", "next_observation")


class ColumnsConfig(Section):
    """The columns of a table by role: a name, or a pattern with * for any text.

    A name that ends in ? is used if the column exists; every other has to exist. null: no column.
    """

    prefix: ClassVar[str] = "dataset.columns"
    observation: list[Text]
    action: list[Text]
    reward: Text
    episode: Text | None
    step: Text | None
    terminated: Text | None
    truncated: Text | None
    next_observation: list[Text] | None
    propensity: Text | None  # the behavior's probability of the logged action
    # Observed columns that are one-hot encoded: names, or {column: NAME, values: VALUES}, where
    # VALUES are texts or whole numbers, or n for 0 … n - 1; of a name those of the data.
    categories: list[Text | dict[str, Any]] | None = None
    discrete: Flag | None  # actions are categories; null: one column of integers or text is
    action_low: list[Number] | None  # bounds per action column; null: the data's
    action_high: list[Number] | None

    def check(self) -> None:
        """Raise ConfigError without an observation or action, or with inconsistent bounds."""
        for name in ("observation", "action"):
            self.require(bool(getattr(self, name)), name, "must name at least one column")
        for entry in self.categories or ():
            if (fault := category_fault(entry)) is not None:
                raise ConfigError(f"dataset.columns.categories: {entry} {fault}")
        low, high = self.action_low, self.action_high
        if low is None or high is None:
            complaint = f"and {self.setting('action_low')} must both be set or both be null"
            self.require(low is None and high is None, "action_high", complaint)
            return
        equal = len(low) == len(high)
        self.require(equal, "action_high", f"must be as long as {self.setting('action_low')}")
        ordered = all(a < b for a, b in zip(low, high, strict=True))
        self.require(ordered, "action_high", f"must be > {self.setting('action_low')}")


def category_fault(entry: str | dict[str, Any]) -> str | None:
    """Return what is wrong with an entry of dataset.columns.categories."""
    from offline_cql.features import valid_categories  # imported late: it needs NumPy

    if isinstance(entry, str):
        return None
    if entry.keys() != {"column", "values"} or not isinstance(entry["column"], str):
        return "must be a name, or {column: NAME, values: [A, B]}, or {column: NAME, values: n}"
    values = entry["values"]
    if not isinstance(values, list):
        return None if type(values) is int and values > 0 else "needs a list of values, or n > 0"
    if len({*map(repr, values)}) < len(values):
        return "has a value twice"
    return (
        None
        if valid_categories(values)
        else ("needs texts, none of them empty, or whole numbers up to 2^53")
    )


def is_encoding(name: str) -> bool:
    """Return whether Python converts texts of this encoding."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return codec._is_text_encoding


class DatasetConfig(Section):
    """The transitions to learn from; rewards are used as scale * reward + shift."""

    prefix: ClassVar[str] = "dataset"
    source: Text  # a name of config/sources.py
    name: Text  # in paths
    id: Text | None  # Minari's id, or D4RL's task
    quality: Text | None
    size: Count | None  # transitions to simulate
    path: Text | None  # of the user's files
    encoding: Text | None = None  # of a table's files of text; null: UTF-8
    missing: Literal["refuse", "drop", "fill", "forward"] | None = None  # null: an older run
    time_unit: Positive | None = None  # seconds that gamma discounts once; null: it does each step
    filter: Text | None = None  # SQL: the rows of a table that are read; null: all
    columns: ColumnsConfig | None  # of a table
    fraction: Share  # of the episodes, drawn at random
    validation_fraction: Fraction  # of those, kept out of training
    top_fraction: Share  # of the rest, by return
    split_seed: Seed
    one_step: Flag | None = None  # every row of a table is an episode of its own
    n_step: Count  # rewards summed before the value
    td_lambda: Share | None = None  # of λ-returns over up to n_step steps; null: n_step steps
    return_range: Positive | None  # stretch the rewards so that the returns span this
    reward_scale: Positive
    reward_shift: Number

    def check(self) -> None:
        """Raise ConfigError for an unknown encoding, or columns without effect with one_step."""
        complaint = "must be an encoding of Python, as in cp1252, latin-1 or utf-16"
        self.require(self.encoding is None or is_encoding(self.encoding), "encoding", complaint)
        if not self.one_step or self.columns is None:
            return
        complaint = "has no effect with dataset.one_step=true: set drop or refuse"
        self.require(self.missing != "forward", "missing", complaint)
        for name in SEQUENCE:
            setting = getattr(self.columns, name) or []
            names = setting if isinstance(setting, list) else [setting]
            complaint = f"has no effect with {self.setting('one_step')}: leave it out"
            self.columns.require(all(n.endswith(OPTIONAL) for n in names), name, complaint)
