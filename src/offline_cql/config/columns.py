"""Which columns of a user's table are what. Knows nothing about files, Hydra or defaults."""

from dataclasses import dataclass
from typing import ClassVar

from offline_cql.config.limits import Section


@dataclass(kw_only=True)
class ColumnsConfig(Section):
    """Which columns of a table are what: a name, or a pattern with * for any text.

    A name that ends in ? is taken when it is there; any other has to be there. null is none.
    """

    prefix: ClassVar[str] = "dataset.columns"
    observation: list[str]
    action: list[str]
    reward: str
    episode: str | None
    step: str | None
    terminated: str | None
    truncated: str | None
    next_observation: list[str] | None
    propensity: str | None  # the behavior's probability of the logged action
    discrete: bool | None  # actions are categories; null: one column of whole numbers or text is
    action_low: list[float] | None  # bounds of each action column; null: the data's
    action_high: list[float] | None

    def check(self) -> None:
        """There is something to see and to do; bounds come in pairs."""
        for name in ("observation", "action"):
            self.require(bool(getattr(self, name)), name, "must name at least one column")
        low, high = self.action_low, self.action_high
        if low is None or high is None:
            both = f"and {self.setting('action_low')} must both be set or both be null"
            self.require(low is None and high is None, "action_high", both)
            return
        pairs = len(low) == len(high)
        self.require(pairs, "action_high", f"must be as long as {self.setting('action_low')}")
        above = all(a < b for a, b in zip(low, high, strict=True))
        self.require(above, "action_high", f"must be > {self.setting('action_low')}")
