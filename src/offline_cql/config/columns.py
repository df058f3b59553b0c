"""The columns of a user's table."""

from typing import ClassVar

from offline_cql.config.section import Flag, Number, Section, Text


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
    discrete: Flag | None  # actions are categories; null: one column of integers or text is
    action_low: list[Number] | None  # bounds per action column; null: the data's
    action_high: list[Number] | None

    def check(self) -> None:
        """Raise ConfigError without an observation or action, or with inconsistent bounds."""
        for name in ("observation", "action"):
            self.require(bool(getattr(self, name)), name, "must name at least one column")
        low, high = self.action_low, self.action_high
        if low is None or high is None:
            complaint = f"and {self.setting('action_low')} must both be set or both be null"
            self.require(low is None and high is None, "action_high", complaint)
            return
        equal = len(low) == len(high)
        self.require(equal, "action_high", f"must be as long as {self.setting('action_low')}")
        ordered = all(a < b for a, b in zip(low, high, strict=True))
        self.require(ordered, "action_high", f"must be > {self.setting('action_low')}")
