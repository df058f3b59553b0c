"""Check that actions and rewards are logged in the row of the step that they belong to.

A column that was logged one row late or early passes every check of shapes. The next state depends
on the action, so among three shifts of a column the right one predicts it best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.distribution import Array

LAGS = (-1, 0, 1)
MAX_ROWS = 10_000
MIN_ROWS = 500  # with fewer the explained variance is chance
CLIP_QUANTILES = (0.005, 0.995)
MIN_VARIANCE = 1e-12
MIN_TRANSITION_SHARE = 0.05  # of the variance of an action that its observation leaves unexplained
MIN_UNEXPLAINED = 0.01  # of that variance; below, the observation decides the action
MAX_WIDTH = 64  # observation columns, and discrete actions, that take part


@dataclass(frozen=True)
class Misalignment:
    """Explained variance (R² on steps that were not fitted) for a column at lags −1, 0, 1 rows.

    action_r2_gain: what the action adds to the state when predicting the change of the
    observation, for the observation column where it adds most. A policy that reacts to an
    observation which no action changes adds nothing in other rows: at lag −1 the previous
    observation is part of the state, and lag 1 is 0 if the transition tells nothing about the
    following action beyond what that action's own observation tells. reward_r2: how well state,
    action and next state predict the reward.
    """

    action_r2_gain: list[float]
    reward_r2: list[float]


def compute_misalignment(reader: BlockReader) -> Misalignment | None:
    """Fit least squares on observation columns and their squares at each lag.

    Fits every other one of up to 10,000 steps and scores the rest. None with fewer than 500 steps,
    and for images. The model is linear: where it explains nothing, it cannot find a shift.
    """
    data = reader.transitions
    rows = _inner_rows(reader)
    if len(rows) < MIN_ROWS or data.images is not None:
        return None
    observations, next_observations = (reader.observations(rows + k)[:, :MAX_WIDTH] for k in (0, 1))
    state = _features(observations)
    change = _standardize(next_observations.astype(np.float64) - observations)
    actions = [_encode_actions(reader, rows + lag) for lag in LAGS]
    next_state = _features(next_observations)
    previous = np.hstack([state, _features(reader.observations(rows - 1)[:, :MAX_WIDTH])])
    state_only = _explained_variance(state, change)
    without_action = (_explained_variance(previous, change), state_only, state_only)
    gains = [
        _explained_variance(np.hstack([known, action]), change) - explained
        for known, action, explained in zip(
            (previous, state, state), actions, without_action, strict=True
        )
    ]
    if _only_reacts(actions[2], state, next_state):
        gains[2] = np.zeros_like(gains[2])
    # The squared action: many rewards hold a quadratic control cost.
    features = np.hstack([state, next_state, actions[1], actions[1] ** 2])
    rewards = [_standardize(data.rewards[rows + lag][:, None]) for lag in LAGS]
    scores = [_explained_variance(features, reward) for reward in rewards]
    return Misalignment(
        action_r2_gain=[float(gain.max(initial=0.0)) for gain in gains],
        reward_r2=[float(score.max(initial=0.0)) for score in scores],
    )


def _only_reacts(following: Array, state: Array, next_state: Array) -> bool:
    """Return True if the following row's action depends on its observation, not on the transition.

    It then explains the change of the observation because it answers the new one; an action that
    was logged a step late is known better from both observations than from the new one alone.
    """
    actions = _standardize(following)
    alone = _explained_variance(next_state, actions)
    both = _explained_variance(np.hstack([next_state, state]), actions)
    unexplained = np.maximum(1 - alone, MIN_UNEXPLAINED)
    return bool(((both - alone) / unexplained < MIN_TRANSITION_SHARE).all())


def _inner_rows(reader: BlockReader) -> Array:
    """Return a sample of the rows whose previous and next row are in the same episode."""
    data = reader.transitions
    inner = np.ones(len(data), bool)
    inner[data.ends - 1] = inner[data.starts] = False
    rows = np.flatnonzero(inner)
    return rows[:: max(1, len(rows) // MAX_ROWS)]


def _standardize(values: Array) -> Array:
    """Return standardized columns, clipped at the outer 1%; constant columns are dropped."""
    clipped = values.astype(np.float64)
    # A single outlier would otherwise dominate the fit.
    clipped = np.clip(clipped, *np.quantile(clipped, CLIP_QUANTILES, axis=0))
    std = clipped.std(axis=0)
    scaled: Array = (clipped - clipped.mean(axis=0))[:, std > 0] / std[std > 0]
    return scaled


def _features(values: Array) -> Array:
    """Return standardized columns, their squares and a constant."""
    scaled = _standardize(values)
    return np.hstack([scaled, scaled**2, np.ones((len(scaled), 1))])


def _encode_actions(reader: BlockReader, rows: Array) -> Array:
    """Return continuous actions [n, A], or discrete ones one-hot encoded."""
    data = reader.transitions
    actions = data.rows[rows][:, data.columns.action].astype(np.float64)
    if not data.spaces.discrete:
        return actions
    one_hot: Array = actions == np.arange(min(data.spaces.action_dim, MAX_WIDTH))
    return one_hot.astype(np.float64)


def _explained_variance(features: Array, targets: Array) -> Array:
    """Return R² per target column on the odd rows after a fit to the even ones, clipped to [0, 1].

    A fit that is worse than the mean scores 0.
    """
    weights = np.linalg.lstsq(features[::2], targets[::2], rcond=1e-6)[0]
    error = targets[1::2] - features[1::2] @ weights
    variance = np.maximum(targets[1::2].var(axis=0), MIN_VARIANCE)
    r2: Array = 1 - (error**2).mean(axis=0) / variance
    return np.clip(r2, 0.0, 1.0)
