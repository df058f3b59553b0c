"""The mathematics of conservative Q-learning: log-densities, values, gaps and losses.

Pure functions over plain tensors; samples come in as arguments.

Shapes: E critics, B states, N sampled actions, M actions of a backup, A action dimensions,
K discrete actions. Q-values, gaps and losses are in reward units, log-densities in nats.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class ShapeError(ValueError):
    """A tensor whose shape is not the one that a function declares."""


def check_shapes(**tensors: tuple[Tensor, str]) -> None:
    """Raise ShapeError unless every tensor has its axes and equal letters mean equal sizes.

    Each argument is (tensor, axes), axes such as "E B N"; "" is a scalar. No axis may be empty.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (tensor, axes) in tensors.items():
        letters = axes.split()
        declared = f"{name} has shape {list(tensor.shape)}, expected [{', '.join(letters)}]"
        if tensor.dim() != len(letters):
            raise ShapeError(declared)
        for letter, size in zip(letters, tensor.shape, strict=True):
            expected, source = sizes.setdefault(letter, (size, name))
            if size == 0:
                raise ShapeError(f"{declared} with {letter} >= 1")
            if size != expected:
                raise ShapeError(f"{declared} with {letter}={expected} as in {source}")


def _constant(name: str, value: float | Tensor) -> float | Tensor:
    """Return a scalar without gradient; a tensor with axes would broadcast silently."""
    if not isinstance(value, Tensor):
        return value
    check_shapes(**{name: (value, "")})
    return value.detach()


# --- Log-densities ---------------------------------------------------------------------------


def tanh_gaussian_log_prob(pre_tanh: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-density of tanh(pre_tanh) in [-1, 1]^A for pre_tanh ~ N(mean, exp(log_std)).

    N(u) - sum over A of 2 (log 2 - u - softplus(-2u)); SAC, Haarnoja et al. 2018, appendix C.
    pre_tanh [..., A]; mean and log_std as pre_tanh, or 1 where they repeat (never in A, and never
    with fewer axes). Returns [...], in nats. Raises ShapeError.
    """
    for name, parameter in (("mean", mean), ("log_std", log_std)):
        # Aligning missing axes from the right would read [B, A] as [N, A] whenever B = N.
        matches = parameter.dim() == pre_tanh.dim() >= 1 and all(
            size in (1, full) for size, full in zip(parameter.shape, pre_tanh.shape, strict=True)
        )
        if not matches or parameter.shape[-1] != pre_tanh.shape[-1]:
            raise ShapeError(
                f"{name} has shape {list(parameter.shape)}, expected {list(pre_tanh.shape)}"
                " or 1 on axes before the last"
            )
    standardized = (pre_tanh - mean) * torch.exp(-log_std)
    gaussian = -0.5 * standardized.square() - log_std - 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2) as written would be -inf from |u| = 9 on in float32.
    log_slope = 2 * (math.log(2) - pre_tanh - F.softplus(-2 * pre_tanh))
    return (gaussian - log_slope).sum(dim=-1)


def uniform_log_prob(low: Tensor, high: Tensor) -> Tensor:
    """Return the log-density of the uniform distribution over a box, -sum log(high - low).

    low, high [A], finite, low < high. Returns a scalar, in nats. Raises ShapeError.
    """
    check_shapes(low=(low, "A"), high=(high, "A"))
    return -torch.log(high - low).sum()  # a product of widths would underflow in many dimensions


# --- Values of the next state and the temporal difference ---------------------------------------


def sampled_value(
    q_target: Tensor, log_prob: Tensor | None, *, temperature: float | Tensor = 0.0
) -> Tensor:
    """Return the value of the next state from actions that the policy samples there.

    The minimum over critics is taken per action, the maximum over actions after it: M = 1 is the
    sampled backup, M > 1 the max backup. With log_prob it is the entropy backup,
    Q - temperature * log_prob, for M = 1 only; without it the temperature has no effect.
    q_target [E, B, M]; log_prob [B, 1] in nats or None. Returns [B]. Raises ShapeError.
    """
    check_shapes(q_target=(q_target, "E B M"))
    value = q_target.amin(dim=0)
    if log_prob is not None:
        check_shapes(q_target=(q_target, "E B M"), log_prob=(log_prob, "B M"))
        if log_prob.shape[1] != 1:
            raise ShapeError(f"log_prob has shape {list(log_prob.shape)}, expected [B, 1]")
        value = value - _constant("temperature", temperature) * log_prob
    return value.amax(dim=1)


def discrete_value(
    q_target: Tensor, q_online: Tensor, *, target: str, temperature: float | Tensor
) -> Tensor:
    """Return the value of the next state over K discrete actions; minima over critics per action.

    target "max": the largest target value; "double": the target value of the online critics' best
    action (van Hasselt et al. 2016); "expected": the mean target value under the policy
    softmax(Q_online / temperature); only this one uses the temperature (> 0, reward units).
    q_target, q_online [E, B, K]. Returns [B]. Raises ShapeError; ValueError on another target.
    """
    check_shapes(q_target=(q_target, "E B K"), q_online=(q_online, "E B K"))
    q, q_policy = q_target.amin(dim=0), q_online.amin(dim=0)  # [B, K]
    if target == "max":
        return q.amax(dim=1)
    if target == "double":
        return action_value(q, q_policy.argmax(dim=1))
    if target == "expected":
        policy = torch.softmax(q_policy / _constant("temperature", temperature), dim=1)
        return (policy * q).sum(dim=1)
    raise ValueError(f"target={target!r} must be one of 'max', 'double', 'expected'")


def bellman_target(reward: Tensor, discount: Tensor, value: Tensor) -> Tensor:
    """Return the one-step target, reward + discount * value of the next state.

    discount is gamma, or 0 after a terminal state; a truncated episode keeps gamma.
    reward, discount, value [B]. Returns [B]. Raises ShapeError.
    """
    check_shapes(reward=(reward, "B"), discount=(discount, "B"), value=(value, "B"))
    return reward + discount * value


def td_error(q: Tensor, target: Tensor) -> Tensor:
    """Return each critic's squared distance to the common target, which receives no gradient.

    q [E, B]; target [B]. Returns [E, B], in squared reward units, without 1/2. Raises ShapeError.
    """
    check_shapes(q=(q, "E B"), target=(target, "B"))
    return (q - target.detach()).square()


def critic_td_loss(q: Tensor, target: Tensor) -> Tensor:
    """Return the temporal-difference loss: td_error, mean over B, sum over E.

    q [E, B]; target [B]. Returns a scalar. Raises ShapeError.
    """
    return td_error(q, target).mean(dim=1).sum()


# --- The gap -------------------------------------------------------------------------------------


def conservative_gap(
    q_sampled: Tensor, log_prob: Tensor, q_logged: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return how far the critics rate sampled actions above the logged one, in reward units.

    CQL(H), Kumar et al. 2020: temperature * logsumexp_j(Q_j / temperature - log mu_j) - Q_logged,
    an integral over actions estimated by importance sampling. The constant temperature * log N of
    a mean over samples is left out, as in the publication, so that published thresholds hold.
    q_sampled [E, B, N]; log_prob [B, N] in nats, each action under the sampler that drew it,
    without gradient to the sampler; q_logged [E, B]; temperature > 0.
    Returns [E, B], not scaled by alpha. Raises ShapeError.
    """
    check_shapes(
        q_sampled=(q_sampled, "E B N"), log_prob=(log_prob, "B N"), q_logged=(q_logged, "E B")
    )
    # The weight of a sample is 1 / mu at any temperature: only Q is divided by it.
    exponent = q_sampled / temperature - log_prob.detach()
    return temperature * torch.logsumexp(exponent, dim=2) - q_logged


def unweighted_gap(q_sampled: Tensor, q_logged: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return how far the critics rate sampled and logged actions above the logged one.

    temperature * logsumexp over Q_sampled / temperature and Q_logged / temperature, minus Q_logged:
    no densities, and never negative, because the logged action is one of the actions. The form
    "version 2" of the code of Kumar et al. 2020; a log-sum-exp over these actions, not an estimate
    of the integral over all.
    q_sampled [E, B, N]; q_logged [E, B]; temperature > 0, reward units.
    Returns [E, B], not scaled by alpha. Raises ShapeError.
    """
    check_shapes(q_sampled=(q_sampled, "E B N"), q_logged=(q_logged, "E B"))
    q = torch.cat([q_sampled, q_logged.unsqueeze(2)], dim=2)
    return temperature * torch.logsumexp(q / temperature, dim=2) - q_logged


def calibrated_value(q: Tensor, return_to_go: Tensor) -> Tensor:
    """Return max(q, return_to_go): no gradient lowers a value below the return that followed.

    Cal-QL, Nakamoto et al. 2023: bounds Q of the policy's actions in the gap by the value of the
    behavior policy, here estimated by the logged return-to-go.
    q [E, B, N]; return_to_go [B], reward units. Returns [E, B, N]. Raises ShapeError.
    """
    check_shapes(q=(q, "E B N"), return_to_go=(return_to_go, "B"))
    return torch.maximum(q, return_to_go[:, None])


def expectation_gap(q_sampled: Tensor, q_logged: Tensor) -> Tensor:
    """Return how far the critics rate the average sampled action above the logged one.

    The simplified penalty, E_mu Q - Q_logged, for N actions sampled from mu, in reward units.
    q_sampled [E, B, N]; q_logged [E, B]. Returns [E, B], not scaled by alpha. Raises ShapeError.
    """
    check_shapes(q_sampled=(q_sampled, "E B N"), q_logged=(q_logged, "E B"))
    return q_sampled.mean(dim=2) - q_logged


def action_value(values: Tensor, action: Tensor) -> Tensor:
    """Return the value of one action per state, from the values of all K actions.

    values [..., B, K]; action [B] int64. Returns [..., B].
    """
    return values.gather(-1, action.expand(values.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def discrete_gap(
    q: Tensor, action: Tensor, *, temperature: float = 1.0, return_to_go: Tensor | None = None
) -> Tensor:
    """Return how far the critics rate all actions above the logged one, in reward units.

    CQL(H), Kumar et al. 2020: temperature * log sum_a exp(Q(s, a) / temperature) - Q(s, action).
    With a return_to_go [B] every Q in the sum is bounded by it from below (`calibrated_value`).
    q [E, B, K] or [B, K] for one critic; action [B] int64; temperature > 0.
    Returns [E, B] or [B], not scaled by alpha. Raises ShapeError.
    """
    axes = "B K" if q.dim() == 2 else "E B K"
    check_shapes(q=(q, axes), action=(action, "B"))
    summed = q
    if return_to_go is not None:
        check_shapes(q=(q, axes), return_to_go=(return_to_go, "B"))
        summed = torch.maximum(q, return_to_go[:, None])
    return temperature * torch.logsumexp(summed / temperature, dim=-1) - action_value(q, action)


def clip_gap(gap: Tensor, *, minimum: float | None, maximum: float | None) -> Tensor:
    """Return the gap clipped to [minimum, maximum], elementwise; None is no limit on that side.

    gap of any shape, minimum <= maximum. Returns the same shape; no gradient outside the limits.
    """
    if minimum is None and maximum is None:
        return gap
    return gap.clamp(min=minimum, max=maximum)


# --- The conservative loss and its multiplier ----------------------------------------------------


def conservative_loss(
    gap: Tensor,
    *,
    alpha: float | Tensor,
    multiplier: float | Tensor = 1.0,
    target_gap: float = 0.0,
) -> Tensor:
    """Return the critics' conservative loss: multiplier * alpha * (gap - target_gap).

    Mean over B, sum over E. The multiplier and alpha receive no gradient here.
    gap [E, B]; alpha, multiplier >= 0, scalars. Returns a scalar. Raises ShapeError.
    """
    check_shapes(gap=(gap, "E B"))
    weight = _constant("multiplier", multiplier) * _constant("alpha", alpha)
    return weight * (gap.mean(dim=1) - target_gap).sum()


def multiplier_loss(
    multiplier: Tensor, gap: Tensor, *, alpha: float | Tensor, target_gap: float
) -> Tensor:
    """Return the Lagrange multiplier's loss; it raises the multiplier while gap > target_gap.

    The conservative loss with the opposite sign; only the multiplier receives a gradient here.
    multiplier: a scalar tensor > 0; gap [E, B]; alpha >= 0. Returns a scalar. Raises ShapeError.
    """
    check_shapes(multiplier=(multiplier, ""), gap=(gap, "E B"))
    excess = (gap.detach().mean(dim=1) - target_gap).sum()
    return -multiplier * _constant("alpha", alpha) * excess


# --- The policy ----------------------------------------------------------------------------------


def actor_loss(q: Tensor, log_prob: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Return the soft policy loss: mean over B of temperature * log_prob - min over critics of Q.

    SAC, Haarnoja et al. 2018. q [E, B] of actions that carry the policy's gradient; log_prob
    [B] of the same actions, in nats; temperature >= 0 (reward units per nat), without gradient.
    Returns a scalar. Raises ShapeError.
    """
    check_shapes(q=(q, "E B"), log_prob=(log_prob, "B"))
    return (_constant("temperature", temperature) * log_prob - q.amin(dim=0)).mean()


def cloning_actor_loss(
    q: Tensor, log_prob: Tensor, *, bc_weight: Tensor, q_scale: Tensor
) -> Tensor:
    """Return the loss of a policy that maximizes Q and clones the behavior at the same time.

    mean over B of -min over critics of Q / q_scale - bc_weight * log_prob, without entropy.
    With q_scale = mean |min Q| the weight means the same for rewards of any size (TD3+BC, Fujimoto
    & Gu 2021; ReBRAC, Tarasov et al. 2023, with squared distances instead of the log-density).
    q [E, B] of actions that carry the policy's gradient; log_prob [B] of the logged actions, in
    nats, times their weights if there are any; bc_weight >= 0 and q_scale > 0, scalars without
    gradient. Returns a scalar.
    Raises ShapeError.
    """
    check_shapes(q=(q, "E B"), log_prob=(log_prob, "B"))
    scale, weight = _constant("q_scale", q_scale), _constant("bc_weight", bc_weight)
    return -(q.amin(dim=0).mean() / scale) - weight * log_prob.mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, *, target_entropy: float) -> Tensor:
    """Return the temperature's loss; it raises the temperature while entropy < target_entropy.

    -exp(log_temperature) * mean(log_prob + target_entropy); SAC, Haarnoja et al. 2018.
    log_temperature: a scalar tensor; log_prob [B] in nats, without gradient; target_entropy in
    nats. Returns a scalar. Raises ShapeError.
    """
    check_shapes(log_temperature=(log_temperature, ""), log_prob=(log_prob, "B"))
    return -log_temperature.exp() * (log_prob.detach() + target_entropy).mean()


def behavior_cloning_loss(log_prob: Tensor) -> Tensor:
    """Return the negative mean log-density of the logged actions under the policy, in nats.

    log_prob [B]. Returns a scalar. Raises ShapeError.
    """
    check_shapes(log_prob=(log_prob, "B"))
    return -log_prob.mean()


def discrete_behavior_cloning_loss(logits: Tensor, action: Tensor) -> Tensor:
    """Return the logged actions' negative mean log-probability under softmax(logits), in nats.

    logits [B, K]; action [B] int64. Returns a scalar. Raises ShapeError.
    """
    check_shapes(logits=(logits, "B K"), action=(action, "B"))
    return F.cross_entropy(logits, action)
