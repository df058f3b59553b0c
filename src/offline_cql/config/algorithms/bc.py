"""Behavior cloning: the policy that makes the logged actions most likely."""

from typing import ClassVar

from offline_cql.config.algorithms.base import CRITIC, REWARD, SCHEDULE, Actions, Algorithm, keys_of
from offline_cql.config.algorithms.cql import CqlConfig
from offline_cql.config.section import Count, Factor, Fraction, Positive, Section


class BcConfig(Section):
    """Settings of behavior cloning."""

    prefix: ClassVar[str] = "bc"
    learning_rate: Positive
    learning_rate_final: Factor | None  # factor at decay_until, on a half cosine; null: constant
    decay_until: Count  # updates
    saturated_action: Fraction | None  # what a logged action at a bound is cloned as


def unused(bc: BcConfig, actions: Actions) -> dict[str, str]:
    """Return the settings without effect: cloning has neither critics nor rewards."""
    critic = (*keys_of(CqlConfig), *SCHEDULE, *CRITIC)
    reasons = dict.fromkeys(critic, "algorithm=bc has no critics")
    reasons |= dict.fromkeys(REWARD, "algorithm=bc reads no rewards")
    if bc.learning_rate_final is None:
        reasons["bc.decay_until"] = "bc.learning_rate_final is not set"
    if actions.discrete:
        reasons["bc.saturated_action"] = str(actions)
    return reasons


ALGORITHM = Algorithm(
    name="bc",
    section=BcConfig,
    continuous="offline_cql.agents.behavior_cloning:ContinuousBehaviorCloning",
    discrete="offline_cql.agents.behavior_cloning:DiscreteBehaviorCloning",
    unused=unused,
    progress={
        "actor/loss": "loss",
        "actor/agreement": "agreement",
        "actor/action_distance": "distance",
    },
    has_alpha=False,
)
