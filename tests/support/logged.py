"""Create a small data set without problems, and variants with one problem each.

A cart on a line, pushed at random: the next position and speed follow from speed and push, the
reward is the closeness to 0 less the squared push. 60 episodes of 20 to 39 steps, 1,770 steps;
every other episode terminates, the others are truncated.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from support.builders import settings

from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import apply_rules
from offline_cql.audit.statistics import DatasetStatistics, Scores, compute_statistics
from offline_cql.transitions import Spaces, Transitions

Arrays = dict[str, Any]
Change = Callable[[Arrays], Any]
SCORES = Scores(0.0, 50.0, -1.0, 1.0, "by hand")


def cart_arrays(*, discrete: bool = False) -> Arrays:
    """Return observations [N, 2], actions [N, 1] or [N] of three, and the other arrays of a log."""
    generator = np.random.default_rng(0)
    lengths = 20 + np.arange(60) % 20
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "next_observations")}
    columns |= {name: [] for name in ("actions", "rewards", "terminated", "episodes")}
    for episode, length in enumerate(lengths):
        state = generator.normal(size=2)
        for step in range(length):
            action = generator.integers(0, 3) if discrete else generator.uniform(-1, 1, 1)
            push = action - 1.0 if discrete else action[0]
            next_state = state + np.array([0.1 * state[1], 0.5 * push - 0.1 * state[0]])
            columns["observations"].append(state)
            columns["next_observations"].append(next_state)
            columns["actions"].append(action)
            columns["rewards"].append(1 - 0.2 * abs(next_state[0]) - push**2)
            columns["terminated"].append(step == length - 1 and episode % 2 == 0)
            columns["episodes"].append(episode)
            state = next_state
    return {name: np.array(values) for name, values in columns.items()}


def cart_data(change: Change | None = None, *, discrete: bool = False) -> Transitions:
    """Return the data set after `change` edited its arrays in place, or returned other arrays."""
    log = cart_arrays(discrete=discrete)
    log = (change(log) if change else None) or log
    width, actions = log["observations"].shape[1], log["actions"]
    if discrete:
        spaces = Spaces(width, 3, True, (), ())
    else:
        bounds = (2.0,) * actions.shape[1]
        spaces = Spaces(width, actions.shape[1], False, tuple(-b for b in bounds), bounds)
    return Transitions.pack(**log, spaces=spaces, dataset_id="test/cart-v0")


def statistics_of(
    data: Transitions, *overrides: str, short: bool = False, scores: Scores = SCORES
) -> DatasetStatistics:
    """Return the statistics with the settings `python train.py <overrides>` has."""
    return compute_statistics(data, settings(*overrides).dataset, scores, gamma=0.9, short=short)


def findings_of(data: Transitions, *overrides: str, short: bool = False) -> dict[str, Finding]:
    """Return the findings by name."""
    findings = apply_rules(statistics_of(data, *overrides, short=short))
    return {finding.name: finding for finding in findings}


def add_column(log: Arrays, values: Any, next_values: Any | None = None) -> None:
    """Add an observation column in place.

    next_values: the column of the next observation; by default the following row's value, and at
    the end of an episode the row's own.
    """
    shifted = np.append(values[1:], values[-1:]) if next_values is None else next_values
    ends = np.append(np.diff(log["episodes"]) != 0, True)
    shifted = np.where(ends & (next_values is None), values, shifted)
    log["observations"] = np.column_stack([log["observations"], values])
    log["next_observations"] = np.column_stack([log["next_observations"], shifted])
