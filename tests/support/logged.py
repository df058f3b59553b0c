"""A small data set without a fault, and the same with one: what an audit is tried on.

A cart on a line, pushed at random: next position and speed follow from speed and push, the reward
is the closeness to 0 less the effort. 60 episodes of 20 to 39 steps, every other one terminal, the
rest truncated.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from support.builders import settings

from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import findings
from offline_cql.audit.statistics import Figures, Scores, measured
from offline_cql.transitions import Spaces, Transitions

Arrays = dict[str, Any]
Change = Callable[[Arrays], Any]
SCORED = Scores(0.0, 50.0, -1.0, 1.0, "by hand")


def arrays(*, discrete: bool = False) -> Arrays:
    """Observations [N, 2], actions [N, 1] or [N] of three choices, and the rest of a log."""
    generator = np.random.default_rng(0)
    lengths = 20 + np.arange(60) % 20
    parts: dict[str, list[Any]] = {name: [] for name in ("observations", "next_observations")}
    parts |= {name: [] for name in ("actions", "rewards", "terminated", "episodes")}
    for episode, length in enumerate(lengths):
        state = generator.normal(size=2)
        for step in range(length):
            action = generator.integers(0, 3) if discrete else generator.uniform(-1, 1, 1)
            push = action - 1.0 if discrete else action[0]
            after = state + np.array([0.1 * state[1], 0.5 * push - 0.1 * state[0]])
            parts["observations"].append(state)
            parts["next_observations"].append(after)
            parts["actions"].append(action)
            parts["rewards"].append(1 - 0.2 * abs(after[0]) - push**2)
            parts["terminated"].append(step == length - 1 and episode % 2 == 0)
            parts["episodes"].append(episode)
            state = after
    return {name: np.array(values) for name, values in parts.items()}


def logged(change: Change | None = None, *, discrete: bool = False) -> Transitions:
    """The data set, after `change` edited the arrays in place (or returned others)."""
    log = arrays(discrete=discrete)
    log = (change(log) if change else None) or log
    width, actions = log["observations"].shape[1], log["actions"]
    if discrete:
        spaces = Spaces(width, 3, True, (), ())
    else:
        spaces = Spaces(
            width, actions.shape[1], False, (-2.0,) * actions.shape[1], (2.0,) * actions.shape[1]
        )
    return Transitions.pack(**log, spaces=spaces, dataset_id="test/cart-v0")


def figures(data: Transitions, *overrides: str, short: bool = False, **parts: Any) -> Figures:
    """The audit's figures with the settings of a run."""
    dataset = settings(*overrides).dataset
    scores = parts.pop("scores", SCORED)
    return measured(data, dataset, scores, gamma=0.9, short=short)


def found(data: Transitions, *overrides: str, short: bool = False) -> dict[str, Finding]:
    """What is found, by name."""
    return {f.name: f for f in findings(figures(data, *overrides, short=short))}


def with_column(log: Arrays, now: Any, after: Any | None = None) -> None:
    """Add an observation column; `after` is its value one step on, by default the following row's
    (at the last row its own)."""
    later = np.append(now[1:], now[-1:]) if after is None else after
    ends = np.append(np.diff(log["episodes"]) != 0, True)
    later = np.where(ends & (after is None), now, later)
    log["observations"] = np.column_stack([log["observations"], now])
    log["next_observations"] = np.column_stack([log["next_observations"], later])
