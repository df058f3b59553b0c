"""The behavior policy: its value, its action probabilities, and the support of other actions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from offline_cql import losses
from offline_cql.data.returns import continued_returns, returns_to_go
from offline_cql.data.statistics import sample_statistics
from offline_cql.errors import DataError
from offline_cql.networks import StackedMLP
from offline_cql.ope.estimate import Estimate, bootstrap_counts, bootstrap_interval
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Spaces, Transitions

N_REPLICATES = 100
CONTINUED = "truncated episodes would have continued at their mean reward"
HIDDEN, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = [64, 64], 512, 1e-3, 1e-4
LOG_STD = (-5.0, 2.0)  # of a Gaussian of actions in [-1, 1]
N_QUANTILES = 200
CHECK_EVERY = 100  # updates
MIN_PROBABILITY = 1e-3  # a logged action did happen; bounds the importance ratios by 1,000


def discounted_returns(transitions: Transitions, *, gamma: float) -> npt.NDArray[np.float64]:
    """Return the discounted return of each logged episode [E].

    A truncated episode is continued at its mean reward, because FQE bootstraps there too.
    """
    returns = continued_returns(
        transitions.rewards,
        transitions.terminated,
        transitions.ends,
        gamma=transitions.discounts(gamma),
    )
    first: npt.NDArray[np.float64] = returns[transitions.starts]
    return first


def behavior_value(transitions: Transitions, *, gamma: float, seed: int) -> Estimate:
    """Return the mean of the logged episodes' discounted returns, with a bootstrap interval."""
    returns = discounted_returns(transitions, gamma=gamma)
    discounts = transitions.discounts(gamma)
    logged = returns_to_go(transitions.rewards, transitions.ends, gamma=discounts)
    observed = logged[transitions.starts].mean()
    rng = np.random.default_rng([seed, RandomStream.LOGGED_RETURNS])
    counts = bootstrap_counts(len(returns), N_REPLICATES, rng)
    _, low, high = bootstrap_interval(counts @ returns / len(returns))
    return Estimate(
        method="logged returns",
        value=float(returns.mean()),
        low=low,
        high=high,
        assumptions=(CONTINUED,) if transitions.truncated.any() else (),
        extrapolated=float(returns.mean() - observed),
    )


def fit_behavior_probabilities(
    transitions: Transitions, *, seed: int, updates: int = 3_000
) -> npt.NDArray[np.float64]:
    """Return the probability of each logged discrete action under a fitted classifier, [N].

    Cross-fitted: the episodes are split into two folds, and each fold is scored by the classifier
    of the other one, because a classifier overrates actions that it was fitted to. Raises
    DataError for continuous actions.
    """
    spaces = transitions.spaces
    if not spaces.discrete:
        raise DataError("behavior probabilities can be fitted for discrete actions only")
    rng = np.random.default_rng([seed, RandomStream.FITTED_BEHAVIOR])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    n_episodes = len(transitions.ends)
    folds = torch.from_numpy(rng.permutation(n_episodes) % 2)
    row_folds = folds[torch.from_numpy(transitions.episodes).long()]
    observations = torch.from_numpy(np.array(transitions.observations, np.float32))
    mean, std = sample_statistics(observations)
    observations = (observations - mean) / std
    actions = torch.from_numpy(transitions.actions)
    probabilities = torch.empty(len(actions), dtype=torch.float64)
    for fold in (0, 1):
        train = test = torch.arange(len(actions))
        if n_episodes > 1:  # a single episode cannot be split
            train, test = (torch.nonzero(row_folds == k).squeeze(1) for k in (fold, 1 - fold))
        classifier = _fit(
            observations[train],
            actions[train],
            spaces.action_dim,
            _cross_entropy,
            updates=updates,
            generator=generator,
        )
        with torch.no_grad():
            action_probabilities = classifier(observations[test])[0].double().softmax(dim=1)
        probabilities[test] = losses.action_value(action_probabilities, actions[test])
    return probabilities.clamp(min=MIN_PROBABILITY).numpy()


class Support(nn.Module):
    """How well the data support an action in a state, [B] in [0, 1].

    Discrete: the behavior policy's probability of the action, by a classifier. Continuous: the
    share of logged actions, of episodes that the model was not fitted to, that had a lower density
    where they were taken; the model is a Gaussian per state, so that an action between two usual
    ones counts as usual. observation [B, D] and action [B, A] or [B] in the environment's units.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    quantiles: Tensor

    def __init__(self, spaces: Spaces, network: StackedMLP, mean: Tensor, std: Tensor):
        super().__init__()
        self.discrete, self.network = spaces.discrete, network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("low", torch.tensor(spaces.action_low))
        self.register_buffer("high", torch.tensor(spaces.action_high))
        self.register_buffer("quantiles", torch.zeros(0))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        outputs = self.network((observation - self.mean) / self.std)[0]
        if self.discrete:
            # An action of -1 stands for none.
            return losses.action_value(outputs.softmax(dim=1), action.clamp(min=0))
        internal = 2.0 * (action - self.low) / (self.high - self.low) - 1.0
        density = _log_density(outputs, internal)
        return (density.unsqueeze(1) >= self.quantiles).to(density.dtype).mean(dim=1)


def fit_support(
    transitions: Transitions,
    *,
    seed: int,
    updates: int = 3_000,
    on_update: Callable[[], None] = lambda: None,
) -> Support:
    """Fit the behavior policy to four fifths of the episodes.

    The others say when more updates would only memorize the logged actions, and give the quantiles
    of densities. With fewer than five episodes they are the same.
    """
    spaces = transitions.spaces
    rng = np.random.default_rng([seed, RandomStream.FITTED_BEHAVIOR])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    kept = torch.from_numpy(rng.permutation(len(transitions.ends)) < len(transitions.ends) // 5)
    is_kept = kept[torch.from_numpy(transitions.episodes).long()]
    observations = torch.from_numpy(np.array(transitions.observations, np.float32))
    actions = torch.from_numpy(np.array(transitions.actions))
    mean, std = sample_statistics(observations)
    observations = (observations - mean) / std
    others = is_kept if kept.any() else ~is_kept
    network = _fit(
        observations[~is_kept],
        actions[~is_kept],
        spaces.action_dim * (1 if spaces.discrete else 2),
        _cross_entropy if spaces.discrete else lambda o, a: -_log_density(o, a).mean(),
        updates=updates,
        generator=generator,
        held_out=(observations[others], actions[others]),
        on_update=on_update,
    )
    support = Support(spaces, network, mean, std)
    if not spaces.discrete:
        with torch.no_grad():
            densities = _log_density(network(observations[others])[0], actions[others])
        levels = torch.linspace(0.0, 1.0, N_QUANTILES + 1, dtype=torch.float64)[1:]
        quantiles = np.quantile(densities.double().numpy(), levels.numpy())
        support.quantiles = torch.from_numpy(quantiles).float()
    return support.requires_grad_(False).eval()


def _cross_entropy(outputs: Tensor, actions: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, actions)


def _log_density(outputs: Tensor, actions: Tensor) -> Tensor:
    """Return the log density [B] of actions [B, A] under Gaussians, without the constant.

    outputs [B, 2 A]: means, then log standard deviations, which are clamped.
    """
    mean, log_std = outputs.chunk(2, dim=-1)
    log_std = log_std.clamp(*LOG_STD)
    density: Tensor = -(0.5 * ((actions - mean) / log_std.exp()) ** 2 + log_std).sum(dim=-1)
    return density


def _fit(
    observations: Tensor,
    actions: Tensor,
    n_outputs: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    updates: int,
    generator: torch.Generator,
    held_out: tuple[Tensor, Tensor] | None = None,
    on_update: Callable[[], None] = lambda: None,
) -> StackedMLP:
    """Return a network with a small loss_of(its outputs, the logged actions).

    held_out: observations and actions; the weights with the smallest loss on them are returned.
    """
    with torch.random.fork_rng(devices=[]):  # leaves torch's global generator untouched
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        sizes = (observations.shape[1], HIDDEN, n_outputs)
        network = StackedMLP(1, *sizes, orthogonal=False, bf16=False)
    parameters = network.parameters()
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, weights = math.inf, network.state_dict()
    for update in range(updates):
        rows = torch.randint(len(actions), (BATCH_SIZE,), generator=generator)
        loss = loss_of(network(observations[rows])[0], actions[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_update()
        if held_out is not None and (update + 1) % CHECK_EVERY == 0:
            with torch.no_grad():
                loss = loss_of(network(held_out[0])[0], held_out[1])
            if float(loss) < best:
                best, weights = float(loss), copy.deepcopy(network.state_dict())
    if held_out is not None:
        network.load_state_dict(weights)
    return network
