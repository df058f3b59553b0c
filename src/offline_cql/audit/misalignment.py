"""Whether actions and rewards stand in the row of the step that they belong to.

A column that was logged a step late or early passes every check of shapes. What follows a state
depends on the action taken there: of three shifts of a column the right one explains it best.
Pure functions over Transitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import Array, Reading

LAGS = (-1, 0, 1)
ROWS = 10_000
FEWEST = 500  # with fewer the explained shares are chance
OUTERMOST = (0.005, 0.995)
TINY = 1e-12
WIDEST = 64  # observation columns, and discrete actions, that take part


@dataclass(frozen=True)
class Lags:
    """Shares of variance explained in steps not fitted to, for the column one step earlier in the
    log, in place, one step later.

    action: what the action adds to the state in explaining the change of the observation (of the
    column where it adds most); reward: how well state, action and next state explain it.
    """

    action: list[float]
    reward: list[float]


def lags(reading: Reading) -> Lags | None:
    """By least squares on the observation's columns and their squares, fitted to every other one
    of up to 10,000 steps; None with fewer than 500, and for images.

    Linear: where it explains nothing it says nothing.
    """
    data = reading.transitions
    rows = _middle(reading)
    if len(rows) < FEWEST or data.images is not None:
        return None
    now, after = (reading.observations(rows + k)[:, :WIDEST] for k in (0, 1))
    state, change = _features(now), _scaled(after.astype(np.float64) - now)
    actions = {lag: _encoded(reading, rows + lag) for lag in LAGS}
    alone = _explained(state, change)
    gain = [_explained(np.hstack([state, actions[lag]]), change) - alone for lag in LAGS]
    outcome = np.hstack([state, _features(after), actions[0], actions[0] ** 2])  # efforts cost
    rewards = (_scaled(data.rewards[rows + lag][:, None]) for lag in LAGS)
    return Lags(
        action=[float(g.max(initial=0.0)) for g in gain],
        reward=[float(_explained(outcome, r).max(initial=0.0)) for r in rewards],
    )


def _middle(reading: Reading) -> Array:
    """Rows whose predecessor and successor are in the same episode; a sample of them."""
    data = reading.transitions
    inner = np.ones(len(data), bool)
    inner[data.ends - 1] = inner[data.starts] = False
    rows = np.flatnonzero(inner)
    return rows[:: max(1, len(rows) // ROWS)]


def _scaled(values: Array) -> Array:
    """Centred columns of unit variance, their outermost 1 % cut; constant ones are dropped."""
    numbers = values.astype(np.float64)
    # One outlier would be all that is fitted.
    numbers = np.clip(numbers, *np.quantile(numbers, OUTERMOST, axis=0))
    std = numbers.std(axis=0)
    scaled: Array = (numbers - numbers.mean(axis=0))[:, std > 0] / std[std > 0]
    return scaled


def _features(values: Array) -> Array:
    scaled = _scaled(values)
    return np.hstack([scaled, scaled**2, np.ones((len(scaled), 1))])


def _encoded(reading: Reading, rows: Array) -> Array:
    """Actions [n, A], or one column for each choice."""
    data = reading.transitions
    actions = data.rows[rows][:, data.columns.action].astype(np.float64)
    if not data.spaces.discrete:
        return actions
    encoded: Array = (actions == np.arange(min(data.spaces.action_dim, WIDEST))).astype(np.float64)
    return encoded


def _explained(features: Array, targets: Array) -> Array:
    """1 − squared error / variance of each target column, in the half that was not fitted; 0 where
    the fit is worse than none."""
    weights = np.linalg.lstsq(features[::2], targets[::2], rcond=1e-6)[0]
    error = targets[1::2] - features[1::2] @ weights
    share: Array = 1 - (error**2).mean(axis=0) / np.maximum(targets[1::2].var(axis=0), TINY)
    return np.clip(share, 0.0, 1.0)
