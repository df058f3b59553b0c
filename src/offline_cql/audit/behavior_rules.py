"""What the figures say about the policy that made the data: what there is to choose from."""

from __future__ import annotations

from collections.abc import Iterator

from offline_cql.audit.finding import Finding, figure, listed, plural, share
from offline_cql.audit.statistics import Figures

NARROW = 0.1  # of the bounds: actions that stay within are in another unit
SATURATED = 0.5  # share of steps at a bound
DECIDED = 0.05  # spread of actions in a state below which it has one
FAR_AWAY = 0.7  # of a random state's distance: no neighbor
RARE = 1e-3  # a propensity that weights of thousands come from
EFFECTIVE = 0.01


def of_actions(figures: Figures) -> Iterator[Finding]:
    if figures.identity.discrete:
        yield from _choices(figures)
        return
    dimensions = figures.actions.dimensions
    constant = [d.name for d in dimensions if d.min == d.max]
    if constant:
        every = len(constant) == len(dimensions)
        yield Finding(
            "error" if every else "warning",
            "action_constant",
            f"{'every action' if every else 'action ' + listed(constant)} is constant: nothing "
            "can be learned about another",
            "check the columns of the action",
        )
    narrow = [
        f"{d.name} ({share(max(abs(d.min), abs(d.max)))})"
        for d in dimensions
        if d.min != d.max and max(abs(d.min), abs(d.max)) < NARROW
    ]
    if narrow:
        yield Finding(
            "warning",
            "action_narrow",
            f"actions stay within a small share of their bounds: {listed(narrow)}",
            "check the bounds' unit; a table has dataset.columns.action_low and action_high",
        )
    saturated = [f"{d.name} ({share(d.saturated)})" for d in dimensions if d.saturated > SATURATED]
    if saturated:
        yield Finding(
            "note",
            "action_saturated",
            f"most actions are at a bound: {listed(saturated)}",
            "check that they were not clipped when logged; cql.action_clip=0.999 softens it",
        )


def _choices(figures: Figures) -> Iterator[Finding]:
    choices = figures.actions.choices
    unused = [choice.name for choice in choices if choice.count == 0]
    if len(unused) >= len(choices) - 1:
        yield Finding(
            "error",
            "action_constant",
            "one action was taken throughout: nothing can be learned about another",
            "check the action's column",
        )
    elif unused:
        yield Finding(
            "warning",
            "action_unused",
            f"{len(unused)} of {len(choices)} actions never occur: {listed(unused)}",
            "their values are never learned, only pushed down: keep cql.alpha well above 0",
        )


def of_propensities(figures: Figures) -> Iterator[Finding]:
    found = figures.propensities
    if found is None:
        return
    if found.certain:
        yield Finding(
            "warning",
            "propensity_certain",
            f"{share(found.certain)} of the propensities are 1: there the behavior had no choice",
            "check that the column holds the probability of the logged action",
        )
    if figures.identity.discrete and found.values.min < RARE:
        yield Finding(
            "warning",
            "propensity_rare",
            f"the smallest propensity is {figure(found.values.min)}: a single step may weigh "
            f"{figure(1 / found.values.min)} times in an estimate by importance",
            "clip the weights, and trust a fitted estimate more",
        )
    if found.effective < EFFECTIVE:
        yield Finding(
            "note",
            "propensity_effective",
            f"reweighted to random actions, {share(found.effective)} of the steps would count",
            "estimates by importance will be noisy",
        )


def of_neighbors(figures: Figures) -> Iterator[Finding]:
    found = figures.neighbors
    if found is None:
        return
    if found.distance > FAR_AWAY:
        yield Finding(
            "note",
            "neighbors_far",
            f"the nearest states lie {share(found.distance)} as far apart as random ones: too far "
            "to tell how much the state decides",
            "read the lines about similar states with care",
        )
    elif found.action < DECIDED:
        yield Finding(
            "note",
            "behavior_decided",
            f"similar states have similar actions (spread {figure(found.action)} of the data's): "
            f"few choices for CQL to compare, in {plural(found.states, 'state')}",
            "expect little over cloning: compare with python train.py algorithm=bc …",
        )
