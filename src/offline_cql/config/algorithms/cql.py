"""Conservative Q-learning (CQL), Kumar et al. 2020."""

from typing import ClassVar, Literal

from pydantic import Field

from offline_cql.config.algorithms.base import SCHEDULE, Actions, Algorithm
from offline_cql.config.section import (
    Amount,
    Count,
    Factor,
    Flag,
    Fraction,
    Number,
    Positive,
    Section,
    Share,
    Text,
)

MULTIPLIER = ("multiplier_initial", "multiplier_learning_rate", "multiplier_min", "multiplier_max")
TEMPERATURE = (
    "cql.temperature_initial",
    "cql.temperature_learning_rate",
    "cql.target_entropy",
)
# Settings that have no effect with discrete actions: nothing is sampled, there is no actor.
CONTINUOUS = (
    "cql.n_action_samples",
    "cql.penalty",
    "cql.expectation_over",
    "cql.importance_sampling",
    "cql.bc_updates",
    "cql.bc_learning_rate",
    "cql.bc_weight",
    "cql.bc_weight_final",
    "cql.bc_share",
    "cql.return_weighted",
    "cql.bc_saturated_action",
    "cql.critic_warmup",
    "cql.action_clip",
    "cql.backup",
    "cql.actor_learning_rate",
    *TEMPERATURE,
    "network.actor_hidden",
    "network.orthogonal_actor",
    "network.policy_ema",
)


class CqlConfig(Section):
    """Settings of conservative Q-learning, for both kinds of action space."""

    prefix: ClassVar[str] = "cql"
    name: Text  # of the preset
    alpha: Number = Field(ge=0)  # weight of the gap; 0 is plain SAC or DQN
    alpha_unit: Literal["reward", "return"]  # return: rewards scaled by the spread of the returns
    penalty: Literal["logsumexp", "expectation"]
    expectation_over: Literal["uniform", "policy"] | None
    n_action_samples: Count  # drawn from each proposal
    importance_sampling: Flag  # weights of the sampled actions; false: logged one joins them
    calibrated: Flag  # Cal-QL: the policy's Q in the gap is at least the return that followed
    gap_temperature: Positive
    gap_min: Number | None  # in the units of Q
    gap_max: Number | None
    bc_updates: Amount  # behavior cloning of the actor before it follows the critics
    bc_learning_rate: Positive  # of the actor during them
    bc_weight: Factor | None  # of cloning beside Q / mean |Q| afterwards; null: SAC's actor loss
    bc_weight_final: Factor | None  # at decay_until, on a half cosine; null: constant
    bc_share: Share | None  # of the data, by return, that cloning effectively uses; null: all
    return_weighted: Flag  # the penalty and the actor's Q have the weights of bc_share too
    bc_saturated_action: Fraction | None  # what a logged action at a bound is cloned as
    critic_warmup: Literal["none", "returns"]  # the critics' target during bc_updates
    action_clip: Share | None  # clip logged actions to +- this
    backup: Literal["sampled", "max", "entropy"]  # continuous actions
    target: Literal["max", "double", "expected"]  # discrete actions
    target_critics: Count | None  # drawn at random for each target; null: all
    polyak: Share  # share of the new weights per update
    actor_learning_rate: Positive
    critic_learning_rate: Positive
    learning_rate_final: Factor | None  # factor on both at decay_until; null: constant
    decay_until: Count  # updates
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
        logsumexp = self.penalty == "logsumexp"
        for name, neutral in (("importance_sampling", True), ("calibrated", False)):
            unused = "has no effect with cql.penalty=expectation"
            self.require(logsumexp or getattr(self, name) is neutral, name, unused)
        if self.gap_min is not None and self.gap_max is not None:
            ordered = self.gap_min < self.gap_max
            self.require(ordered, "gap_min", f"must be < {self.setting('gap_max')}")
        self._check_actor()
        self._check_lagrange()

    def _check_actor(self) -> None:
        possible = self.critic_warmup == "none" or self.bc_updates > 0
        missing = f"has no effect with {self.setting('bc_updates')}"
        self.require(possible, "critic_warmup", missing)
        clones = self.bc_weight is not None or self.bc_updates > 0
        missing = f"has no effect without cql.bc_weight and with {self.setting('bc_updates')}"
        for name in ("bc_share", "bc_saturated_action"):
            self.require(clones or getattr(self, name) is None, name, missing)
        possible = self.bc_share is not None and self.bc_weight is not None
        missing = "needs cql.bc_share and cql.bc_weight; try cql.return_weighted=false"
        self.require(possible or not self.return_weighted, "return_weighted", missing)
        possible = self.bc_weight is not None or self.bc_weight_final is None
        self.require(possible, "bc_weight_final", "has no effect without cql.bc_weight")

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
        if cql.bc_weight is not None:
            # The entropy backup reads the temperature, which stays at its initial value.
            without_effect = TEMPERATURE[1:] if cql.backup == "entropy" else TEMPERATURE
            weighted = f"{cql.setting('bc_weight')} replaces SAC's loss"
            reasons |= dict.fromkeys(without_effect, weighted)
        if cql.penalty == "expectation":
            reasons["cql.gap_temperature"] = "cql.penalty=expectation has no log-sum-exp"
    if cql.bc_weight_final is None and cql.learning_rate_final is None:
        reasons["cql.decay_until"] = (
            "neither cql.bc_weight_final nor cql.learning_rate_final is set"
        )
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
