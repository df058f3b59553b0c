"""Rules about the policy that collected the data: the coverage of the action space."""

from __future__ import annotations

from offline_cql.audit.finding import Finding, join_names
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.numbers import format_count, format_number, format_share

NARROW = 0.1  # of the bounds
SATURATED = 0.5  # share of the steps at the bounds
SMALL_PROPENSITY = 1e-3  # gives single steps a weight above 1,000
MIN_EFFECTIVE_SAMPLE = 0.01  # share of the steps
FAR_NEIGHBORS = 0.7  # of the distance of random states
DETERMINISTIC_SPREAD = 0.05  # of the total spread of the actions


def action_constant(statistics: DatasetStatistics) -> Finding | None:
    """Detect actions that never vary; a warning where only some dimensions are constant."""
    actions = statistics.actions
    if statistics.identity.discrete:
        used = sum(action.count > 0 for action in actions.discrete_actions)
        return _action_constant("error", "only one action occurs") if used <= 1 else None
    constant = [d.name for d in actions.dimensions if d.min == d.max]
    if not constant:
        return None
    if len(constant) == len(actions.dimensions):
        return _action_constant("error", "every action is constant")
    return _action_constant("warning", f"action dimensions are constant: {join_names(constant)}")


def _action_constant(level: str, message: str) -> Finding:
    return Finding(
        level=level,
        name="action_constant",
        message=f"{message}; nothing can be learned about other actions",
        remedy="check the action columns",
    )


def action_narrow(statistics: DatasetStatistics) -> Finding | None:
    """Detect actions that use a small part of their bounds, as those in another unit do."""
    names = [
        f"{d.name} ({format_share(max(abs(d.min), abs(d.max)))})"
        for d in statistics.actions.dimensions
        if d.min != d.max and max(abs(d.min), abs(d.max)) < NARROW
    ]
    if not names:
        return None
    return Finding(
        level="warning",
        name="action_narrow",
        message=f"actions use a small part of their bounds: {join_names(names)}",
        remedy="check the unit of the bounds; for a table, set dataset.columns.action_low and "
        "dataset.columns.action_high",
    )


def action_saturated(statistics: DatasetStatistics) -> Finding | None:
    """Detect actions that are at their bounds in most steps."""
    names = [
        f"{d.name} ({format_share(d.at_bounds)})"
        for d in statistics.actions.dimensions
        if d.at_bounds > SATURATED
    ]
    if not names:
        return None
    return Finding(
        level="note",
        name="action_saturated",
        message=f"most actions are at the action bounds: {join_names(names)}",
        remedy="check that they were not clipped when logged; cql.action_clip=0.999 reduces the "
        "effect",
    )


def action_unused(statistics: DatasetStatistics) -> Finding | None:
    """Detect discrete actions that never occur while at least two do."""
    actions = statistics.actions.discrete_actions
    unused = [action.name for action in actions if action.count == 0]
    if not unused or len(unused) >= len(actions) - 1:
        return None
    return Finding(
        level="warning",
        name="action_unused",
        message=f"{len(unused)} of {len(actions)} actions never occur: {join_names(unused)}",
        remedy="keep cql.alpha well above 0: their values are never learned, only pushed down",
    )


def propensity_one(statistics: DatasetStatistics) -> Finding | None:
    """Detect steps in which the behavior policy had no alternative."""
    propensities = statistics.propensities
    if propensities is None or not propensities.deterministic:
        return None
    return Finding(
        level="warning",
        name="propensity_one",
        message=f"{format_share(propensities.deterministic)} of the propensities are 1: the "
        "behavior policy had no alternative there",
        remedy="check that the column holds the probability of the logged action",
    )


def propensity_small(statistics: DatasetStatistics) -> Finding | None:
    """Detect probabilities that give single steps a very large importance weight."""
    propensities = statistics.propensities
    if (
        propensities is None
        or not statistics.identity.discrete
        or propensities.values.min >= SMALL_PROPENSITY
    ):
        return None
    smallest = propensities.values.min
    return Finding(
        level="warning",
        name="propensity_small",
        message=f"the smallest propensity is {format_number(smallest)}: importance sampling may "
        f"weigh a single step {format_number(1 / smallest)} times",
        remedy="clip the weights, and rather trust fitted Q evaluation",
    )


def propensity_effective_sample(statistics: DatasetStatistics) -> Finding | None:
    """Detect propensities that leave few effective steps to importance sampling."""
    propensities = statistics.propensities
    if propensities is None or propensities.effective_sample_share >= MIN_EFFECTIVE_SAMPLE:
        return None
    return Finding(
        level="note",
        name="propensity_effective_sample",
        message=f"the effective sample size is {format_share(propensities.effective_sample_share)} "
        "of the steps for the uniformly random policy",
        remedy="expect noisy estimates from importance sampling",
    )


def neighbors_far(statistics: DatasetStatistics) -> Finding | None:
    """Detect states without similar ones, which make the spread of actions meaningless."""
    neighbors = statistics.neighbors
    if neighbors is None or neighbors.relative_distance <= FAR_NEIGHBORS:
        return None
    return Finding(
        level="note",
        name="neighbors_far",
        message=f"the nearest states are {format_share(neighbors.relative_distance)} as far apart "
        "as random ones: too far to tell whether the state decides the action",
        remedy="read the lines about similar states with care",
    )


def behavior_deterministic(statistics: DatasetStatistics) -> Finding | None:
    """Detect a behavior policy whose action follows from the state."""
    neighbors = statistics.neighbors
    if (
        neighbors is None
        or neighbors.relative_distance > FAR_NEIGHBORS
        or neighbors.action_spread >= DETERMINISTIC_SPREAD
    ):
        return None
    return Finding(
        level="note",
        name="behavior_deterministic",
        message=f"similar states have similar actions (spread "
        f"{format_number(neighbors.action_spread)} of the total, in "
        f"{format_count(neighbors.states, 'state')}): CQL has few actions to compare",
        remedy="expect little gain over behavior cloning: compare with python train.py "
        "algorithm=bc …",
    )
