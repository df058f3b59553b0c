"""An independent reference for the formulas of conservative Q-learning, in float64 NumPy.

Written from the formulas; it does not import the package. Loops over single states, critics and
actions keep it plain. Axes are named as in the package: E critics, B states,
N sampled actions, A action dimensions, K discrete actions. A network is a pair (weights, biases)
of lists of arrays, weights [inputs, outputs]. Whole updates are in reference_update.py.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Network = tuple[Sequence[Array], Sequence[Array]]


# --- Building blocks -----------------------------------------------------------------------------


def mlp(x: Array, weights: Sequence[Array], biases: Sequence[Array]) -> Array:
    """Apply ReLU layers and a linear last one to x [..., inputs]."""
    hidden = np.asarray(x, dtype=np.float64)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = hidden @ np.asarray(weight, np.float64) + np.asarray(bias, np.float64)
        if layer < len(weights) - 1:
            hidden = np.where(hidden > 0, hidden, 0.0)
    return hidden


def logsumexp(values: Sequence[float] | Array) -> float:
    """Return log sum exp of a list of numbers."""
    largest = max(values)
    return float(largest + math.log(math.fsum(math.exp(v - largest) for v in values)))


def softmax(values: Sequence[float] | Array) -> list[float]:
    """Return exp(v) / sum exp."""
    total = logsumexp(values)
    return [math.exp(v - total) for v in values]


def numerical_gradient(
    function: Callable[[Array], float], at: Array, *, step: float = 1e-5
) -> Array:
    """Return central differences of a scalar function, one coordinate after the other."""
    point = np.array(at, dtype=np.float64)
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        middle = point[index]
        point[index] = middle + step
        above = function(point)
        point[index] = middle - step
        below = function(point)
        point[index] = middle
        gradient[index] = (above - below) / (2 * step)
    return gradient


# --- Log-probabilities ---------------------------------------------------------------------------


def log_cosh(u: float) -> float:
    """Return log cosh u = |u| + log(1 + exp(-2|u|)) - log 2, without overflow."""
    return abs(u) + math.log1p(math.exp(-2 * abs(u))) - math.log(2)


def tanh_gaussian_log_prob(pre_tanh: Array, mean: Array, log_std: Array) -> Array:
    """Return log N(u; mean, std) - log |d tanh(u) / du|, where the slope of tanh is 1 / cosh^2."""
    pre_tanh = np.asarray(pre_tanh, np.float64)
    mean = np.broadcast_to(mean, pre_tanh.shape)
    log_std = np.broadcast_to(log_std, pre_tanh.shape)
    result = np.zeros(pre_tanh.shape[:-1])
    for index in np.ndindex(pre_tanh.shape):
        std = math.exp(log_std[index])
        z = (pre_tanh[index] - mean[index]) / std
        normal = -0.5 * z * z - math.log(std * math.sqrt(2 * math.pi))
        result[index[:-1]] += normal + 2 * log_cosh(float(pre_tanh[index]))
    return result


def uniform_log_prob(low: Array, high: Array) -> float:
    """Return the log of one over the volume of the box."""
    return math.fsum(-math.log(float(h) - float(lo)) for lo, h in zip(low, high, strict=True))


# --- Values --------------------------------------------------------------------------------------


def sampled_value(
    q_target: Array, log_prob: Array | None = None, temperature: float = 0.0
) -> Array:
    """Return the value of the best action by its worst critic.

    The entropy backup subtracts temperature * log_prob.
    """
    critics, states, actions = q_target.shape
    values = np.zeros(states)
    for b in range(states):
        best = -math.inf
        for m in range(actions):
            worst = min(float(q_target[e, b, m]) for e in range(critics))
            if log_prob is not None:
                worst -= temperature * float(log_prob[b, m])
            best = max(best, worst)
        values[b] = best
    return values


def discrete_value(
    q_target: Array, q_online: Array, target: str, temperature: float = 1.0
) -> Array:
    """Return the `max`, `double` or `expected` value by the worst critic of every action."""
    critics, states, actions = q_target.shape
    values = np.zeros(states)
    for b in range(states):
        worst = [min(float(q_target[e, b, k]) for e in range(critics)) for k in range(actions)]
        online = [min(float(q_online[e, b, k]) for e in range(critics)) for k in range(actions)]
        if target == "max":
            values[b] = max(worst)
        elif target == "double":
            values[b] = worst[online.index(max(online))]
        elif target == "expected":
            policy = softmax([q / temperature for q in online])
            values[b] = sum(p * q for p, q in zip(policy, worst, strict=True))
        else:
            raise ValueError(target)
    return values


def bellman_target(reward: Array, discount: Array, value: Array) -> Array:
    """Return r + discount * V."""
    pairs = zip(reward, discount, value, strict=True)
    return np.array([float(r) + float(d) * float(v) for r, d, v in pairs])


def td_error(q: Array, target: Array) -> Array:
    """Return (Q - y)^2."""
    return np.array([[(float(v) - float(y)) ** 2 for v, y in zip(row, target, strict=True)]
                     for row in q])  # fmt: skip


def critic_td_loss(q: Array, target: Array) -> float:
    """Return the TD error, averaged over states and summed over critics."""
    return sum(math.fsum(row) / len(row) for row in td_error(q, target))


# --- Gaps and losses -----------------------------------------------------------------------------


def conservative_gap(
    q_sampled: Array, log_prob: Array, q_logged: Array, temperature: float = 1.0
) -> Array:
    """Return t * log sum_j exp(Q_j / t) / mu_j - Q_logged."""
    critics, states, samples = q_sampled.shape
    gap = np.zeros((critics, states))
    for e in range(critics):
        for b in range(states):
            exponents = [
                float(q_sampled[e, b, j]) / temperature - float(log_prob[b, j])
                for j in range(samples)
            ]
            gap[e, b] = temperature * logsumexp(exponents) - float(q_logged[e, b])
    return gap


def expectation_gap(q_sampled: Array, q_logged: Array) -> Array:
    """Return the mean over the samples minus the logged value."""
    critics, states, samples = q_sampled.shape
    gap = np.zeros((critics, states))
    for e in range(critics):
        for b in range(states):
            gap[e, b] = math.fsum(q_sampled[e, b]) / samples - float(q_logged[e, b])
    return gap


def discrete_gap(q: Array, action: Array, temperature: float = 1.0) -> Array:
    """Return t * log sum_a exp(Q_a / t) - Q_logged; q [E, B, K]."""
    critics, states, _ = q.shape
    gap = np.zeros((critics, states))
    for e in range(critics):
        for b in range(states):
            soft = temperature * logsumexp([float(v) / temperature for v in q[e, b]])
            gap[e, b] = soft - float(q[e, b, int(action[b])])
    return gap


def clip_gap(gap: Array, minimum: float | None, maximum: float | None) -> Array:
    """Return the gap clipped at each limit that is set."""
    low = -math.inf if minimum is None else minimum
    high = math.inf if maximum is None else maximum
    return np.array([[min(max(float(g), low), high) for g in row] for row in gap])


def conservative_loss(
    gap: Array, alpha: float, multiplier: float = 1.0, target_gap: float = 0.0
) -> float:
    """Return multiplier * alpha * (mean gap - target_gap), summed over critics."""
    return sum(multiplier * alpha * (math.fsum(row) / len(row) - target_gap) for row in gap)


def multiplier_loss(multiplier: float, gap: Array, alpha: float, target_gap: float) -> float:
    """Return the negative conservative loss."""
    return -conservative_loss(gap, alpha, multiplier, target_gap)


def actor_loss(q: Array, log_prob: Array, temperature: float) -> float:
    """Return the mean of temperature * log pi - the worst critic's Q."""
    states = len(log_prob)
    terms = [
        temperature * float(log_prob[b]) - min(float(row[b]) for row in q) for b in range(states)
    ]
    return math.fsum(terms) / states


def temperature_loss(log_temperature: float, log_prob: Array, target_entropy: float) -> float:
    """Return -temperature * mean(log pi + target entropy)."""
    mean = math.fsum(float(v) + target_entropy for v in log_prob) / len(log_prob)
    return -math.exp(log_temperature) * mean


def behavior_cloning_loss(log_prob: Array) -> float:
    """Return the negative log-likelihood."""
    return -math.fsum(log_prob) / len(log_prob)


def discrete_behavior_cloning_loss(logits: Array, action: Array) -> float:
    """Return the negative log-likelihood of a softmax."""
    terms = [math.log(softmax(row)[int(a)]) for row, a in zip(logits, action, strict=True)]
    return -math.fsum(terms) / len(terms)


def unweighted_gap(q_sampled: Array, q_logged: Array, temperature: float = 1.0) -> Array:
    """Return t * log (sum_j exp(Q_j / t) + exp(Q_logged / t)) - Q_logged."""
    critics, states, _ = q_sampled.shape
    gap = np.zeros((critics, states))
    for e in range(critics):
        for b in range(states):
            values = [*map(float, q_sampled[e, b]), float(q_logged[e, b])]
            soft = temperature * logsumexp([v / temperature for v in values])
            gap[e, b] = soft - float(q_logged[e, b])
    return gap


def cloning_actor_loss(q: Array, log_prob: Array, bc_weight: float, q_scale: float) -> float:
    """Return the mean of -the worst critic's Q / scale - weight * log pi(logged action)."""
    states = len(log_prob)
    terms = [
        -min(float(row[b]) for row in q) / q_scale - bc_weight * float(log_prob[b])
        for b in range(states)
    ]
    return math.fsum(terms) / states
