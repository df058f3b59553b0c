"""Compute every loss of one update in float64 NumPy from weights, a batch and its noise.

Composed from reference.py alone, not from the package. Gradients: reference.numerical_gradient.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from support.reference import (
    Array,
    Network,
    actor_loss,
    bellman_target,
    clip_gap,
    conservative_gap,
    conservative_loss,
    critic_td_loss,
    discrete_gap,
    discrete_value,
    mlp,
    multiplier_loss,
    sampled_value,
    tanh_gaussian_log_prob,
    temperature_loss,
    uniform_log_prob,
)


def gaussian_policy(
    observation: Array, actor: Network, log_std_limits: tuple[float, float]
) -> tuple[Array, Array]:
    """Return mean and log std [..., A]: the halves of the network's output, log std clipped."""
    output = mlp(observation, *actor)
    half = output.shape[-1] // 2
    return output[..., :half], np.clip(output[..., half:], *log_std_limits)


def sample_actions(
    observation: Array, actor: Network, noise: Array, log_std_limits: tuple[float, float]
) -> tuple[Array, Array]:
    """Return actions [B, N, A] and their log-probabilities [B, N] from normal noise [B, N, A]."""
    mean, log_std = gaussian_policy(observation, actor, log_std_limits)
    pre_tanh = mean[:, None] + np.exp(log_std[:, None]) * noise
    return np.tanh(pre_tanh), tanh_gaussian_log_prob(pre_tanh, mean[:, None], log_std[:, None])


def critic_values(observation: Array, actions: Array, critics: Sequence[Network]) -> Array:
    """Return Q [E, B, N] of actions [B, N, A] at the observations [B, D]."""
    states, samples, _ = actions.shape
    q = np.zeros((len(critics), states, samples))
    for e, critic in enumerate(critics):
        for b in range(states):
            for j in range(samples):
                q[e, b, j] = mlp(np.concatenate([observation[b], actions[b, j]]), *critic)[0]
    return q


def continuous_losses(
    batch: Mapping[str, Array],
    *,
    actor: Network,
    critics: Sequence[Network],
    target_critics: Sequence[Network],
    noise: Mapping[str, Array],
    alpha: float,
    temperature: float,
    multiplier: float = 1.0,
    target_gap: float = 0.0,
    target_entropy: float | None = None,
    gap_temperature: float = 1.0,
    gap_limits: tuple[float | None, float | None] = (None, None),
    backup: str = "sampled",
    log_std_limits: tuple[float, float] = (-20.0, 2.0),
) -> dict[str, float]:
    """Return the losses of a continuous update with penalty=logsumexp, all at the same parameters.

    batch: observation, action (in [-1, 1]), reward, discount, next_observation.
    noise, standard normal but for `uniform`: `actor` [B, A] for the policy's loss, `backup`
    [B, M, A], `current` and `next` [B, n, A] and the actions `uniform` [B, n, A] for the gap.
    Keys of the result: td, gap (mean over critics and states), conservative, critic, actor,
    temperature, multiplier. numerical_gradient of it gives the gradients.
    """
    state, next_state = batch["observation"], batch["next_observation"]
    width = batch["action"].shape[1]

    backup_actions, backup_log_prob = sample_actions(
        next_state, actor, noise["backup"], log_std_limits
    )
    value = sampled_value(
        critic_values(next_state, backup_actions, target_critics),
        backup_log_prob if backup == "entropy" else None,
        temperature,
    )
    q_logged = critic_values(state, batch["action"][:, None], critics)[..., 0]
    td = critic_td_loss(q_logged, bellman_target(batch["reward"], batch["discount"], value))

    uniform = noise["uniform"]
    current, current_log_prob = sample_actions(state, actor, noise["current"], log_std_limits)
    next_action, next_log_prob = sample_actions(next_state, actor, noise["next"], log_std_limits)
    uniform_log_probs = np.full(uniform.shape[:2], uniform_log_prob([-1] * width, [1] * width))
    gap = conservative_gap(
        critic_values(state, np.concatenate([uniform, current, next_action], axis=1), critics),
        np.concatenate([uniform_log_probs, current_log_prob, next_log_prob], axis=1),
        q_logged,
        gap_temperature,
    )
    gap = clip_gap(gap, *gap_limits)
    conservative = conservative_loss(gap, alpha, multiplier, target_gap)

    action, log_prob = sample_actions(state, actor, noise["actor"][:, None], log_std_limits)
    entropy = -float(width) if target_entropy is None else target_entropy
    return {
        "td": td,
        "gap": float(gap.mean()),
        "conservative": conservative,
        "critic": td + conservative,
        "actor": actor_loss(
            critic_values(state, action, critics)[..., 0], log_prob[:, 0], temperature
        ),
        "temperature": temperature_loss(math.log(temperature), log_prob[:, 0], entropy),
        "multiplier": multiplier_loss(multiplier, gap, alpha, target_gap),
    }


def discrete_losses(
    batch: Mapping[str, Array],
    *,
    critics: Sequence[Network],
    target_critics: Sequence[Network],
    target: str,
    alpha: float,
    temperature: float = 1.0,
    multiplier: float = 1.0,
    target_gap: float = 0.0,
    gap_temperature: float = 1.0,
    gap_limits: tuple[float | None, float | None] = (None, None),
) -> dict[str, float]:
    """Return the losses of one discrete update; critics map an observation to K values."""
    state, next_state, action = batch["observation"], batch["next_observation"], batch["action"]
    q = np.stack([mlp(state, *critic) for critic in critics])
    value = discrete_value(
        np.stack([mlp(next_state, *critic) for critic in target_critics]),
        np.stack([mlp(next_state, *critic) for critic in critics]),
        target,
        temperature,
    )
    q_logged = np.array([[row[b, int(a)] for b, a in enumerate(action)] for row in q])
    td = critic_td_loss(q_logged, bellman_target(batch["reward"], batch["discount"], value))
    gap = clip_gap(discrete_gap(q, action, gap_temperature), *gap_limits)
    conservative = conservative_loss(gap, alpha, multiplier, target_gap)
    return {
        "td": td,
        "gap": float(gap.mean()),
        "conservative": conservative,
        "critic": td + conservative,
        "multiplier": multiplier_loss(multiplier, gap, alpha, target_gap),
    }
