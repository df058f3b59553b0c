"""The description of one algorithm: its settings, its agents, what the program shows of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from offline_cql.config.section import Section


@dataclass(frozen=True)
class Actions:
    """The kind of actions of an environment; as text, the reason why settings have no effect."""

    env: str
    discrete: bool

    def __str__(self) -> str:
        return f"env={self.env} has {'discrete' if self.discrete else 'continuous'} actions"


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One option of `algorithm`.

    continuous, discrete: import path of the agent per kind of action space, "module:Class".
    unused: takes the algorithm's own section and the kind of actions; returns the full key of each
    setting without effect, with the reason.
    progress: label in the progress bar per metric that it shows.
    has_alpha: trained with the conservative penalty of weight cql.alpha.
    """

    name: str
    section: type[Section]
    continuous: str
    discrete: str
    unused: Callable[[Any, Actions], dict[str, str]]
    progress: Mapping[str, str]
    has_alpha: bool

    def agent_path(self, *, discrete: bool) -> str:
        """Return the import path of the agent class, "module:Class"."""
        return self.discrete if discrete else self.continuous


# Settings that only a critic reads.
CRITIC = (
    "network.critic_hidden",
    "network.critic_norm",
    "network.n_critics",
    "network.orthogonal_critic",
)
# Settings of the reward that the critics see.
REWARD = (
    "dataset.reward_scale",
    "dataset.reward_shift",
    "dataset.return_range",
    "dataset.n_step",
    "dataset.td_lambda",
)
SCHEDULE = tuple(
    f"alpha_schedule.{name}" for name in ("kind", "warmup", "final_factor", "until", "points")
)


def keys_of(section: type[Section]) -> tuple[str, ...]:
    """Return the full keys of a flat section."""
    return tuple(f"{section.prefix}.{name}" for name in section.model_fields)
