"""Conservative Q-learning (CQL), Kumar et al. 2020."""

from typing import ClassVar, Literal

from pydantic import Field

from offline_cql.config.algorithms.base import SCHEDULE, Actions, Algorithm
from offline_cql.config.section import Amount, Count, Number, Positive, Section, Share, Text

MULTIPLIER = ("multiplier_initial", "multiplier_learning_rate", "multiplier_min", "multiplier_max")
# Settings that have no effect with discrete actions: nothing is sampled, there is no actor.
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


class CqlConfig(Section):
    """Settings of conservative Q-learning, for both kinds of action space."""

    prefix: ClassVar[str] = "cql"
    name: Text  # of the preset
    alpha: Number = Field(ge=0)  # weight of the gap; 0 is plain SAC or DQN
    penalty: Literal["logsumexp", "expectation"]
    expectation_over: Literal["uniform", "policy"] | None
    n_action_samples: Count  # drawn from each proposal
    gap_temperature: Positive
    gap_min: Number | None  # reward units
    gap_max: Number | None
    bc_updates: Amount  # behavior cloning of the actor before it follows the critics
    bc_learning_rate: Positive  # of the actor during them
    action_clip: Share | None  # clip logged actions to +- this
    backup: Literal["sampled", "max", "entropy"]  # continuous actions
    target: Literal["max", "double", "expected"]  # discrete actions
    polyak: Share  # share of the new weights per update
    actor_learning_rate: Positive
    critic_learning_rate: Positive
    temperature_learning_rate: Positive
    temperature_initial: Positive
    target_entropy: Number | None  # nats; null is -dim(A)
    target_gap: Positive | None = Field(description="(cql=lagrange) or absent (fixed alpha)")
    multiplier_initial: Positive | None
    multiplier_learning_rate: Positive | None
    multiplier_min: Positive | None
    multiplier_max: Positive | None

    def check(self) -> None:
        """Raise ConfigError for an incomplete penalty, gap range or Lagrange form."""
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
        unused = "has no effect with cql.alpha=0; set cql.alpha > 0 or leave it null"
        self.require(self.alpha > 0, "target_gap", unused)
        for name in MULTIPLIER:
            missing = f"must be a number with {self.setting('target_gap')}; choose cql=lagrange"
            self.require(getattr(self, name) is not None, name, missing)
        low, start, high = self.multiplier_min, self.multiplier_initial, self.multiplier_max
        if low is not None and start is not None and high is not None:
            limits = f"must be from {self.setting('multiplier_min')} to "
            limits += self.setting("multiplier_max")
            self.require(low <= start <= high, "multiplier_initial", limits)


def unused(cql: CqlConfig, actions: Actions) -> dict[str, str]:
    """Return the settings without effect with these actions, this penalty and this alpha."""
    reasons: dict[str, str] = {}
    if actions.discrete:
        reasons |= dict.fromkeys(CONTINUOUS, str(actions))
    else:
        reasons["cql.target"] = f"{actions}; see cql.backup"
        if cql.penalty == "expectation":
            reasons["cql.gap_temperature"] = "cql.penalty=expectation has no log-sum-exp"
    if cql.alpha == 0:
        # The gap is still logged, so its settings (cql.n_action_samples, ...) still count.
        reasons |= dict.fromkeys(SCHEDULE, "cql.alpha=0 leaves nothing to schedule")
    return reasons


ALGORITHM = Algorithm(
    name="cql",
    section=CqlConfig,
    continuous="offline_cql.agents.cql_continuous:ContinuousCQL",
    discrete="offline_cql.agents.cql_discrete:DiscreteCQL",
    unused=unused,
    progress={
        "critic/td_loss": "td",
        "critic/gap": "gap",
        "cql/alpha": "alpha",
        "cql/multiplier": "multiplier",
    },
    has_alpha=True,
)
