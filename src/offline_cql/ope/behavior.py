"""The behavior's probabilities of discrete actions, fitted where they were not logged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from offline_cql import losses
from offline_cql.errors import DataError
from offline_cql.networks import StackedMLP
from offline_cql.transitions import Transitions

BEHAVIOR_STREAM = 0xBE
HIDDEN, BATCH, RATE = [64, 64], 512, 1e-3
LEAST = 1e-3  # probability that a logged action is given at least: it did happen


def fitted_propensities(
    transitions: Transitions, *, seed: int, updates: int = 3_000
) -> npt.NDArray[np.float64]:
    """Probability of each logged discrete action under a network fitted to the data, [N].

    Two networks, each fitted to the episodes that the other is asked about: one that had seen the
    very action would call it too likely. Raises DataError for continuous actions.
    """
    spaces = transitions.spaces
    if not spaces.discrete:
        raise DataError("the behavior's probabilities can be fitted for discrete actions only")
    draw = np.random.default_rng([seed, BEHAVIOR_STREAM])
    generator = torch.Generator().manual_seed(int(draw.integers(2**31)))
    half = torch.from_numpy(draw.permutation(len(transitions.ends)) % 2)
    side = half[torch.from_numpy(transitions.episodes).long()]
    observations = torch.from_numpy(np.array(transitions.observations, np.float32))
    observations = (observations - observations.mean(0)) / observations.std(0).clamp(min=1e-3)
    actions = torch.from_numpy(transitions.actions)
    result = torch.empty(len(actions), dtype=torch.float64)
    for own in (0, 1):
        # With one episode there is nothing to hold back.
        rows = torch.nonzero(side == own).squeeze(1) if len(half) > 1 else torch.arange(len(side))
        network = _classifier(spaces.observation_dim, spaces.action_dim, generator)
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=1e-4)
        for _ in range(updates):
            batch = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
            loss = functional.cross_entropy(network(observations[batch])[0], actions[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        others = torch.nonzero(side != own).squeeze(1) if len(half) > 1 else rows
        with torch.no_grad():
            chances = network(observations[others])[0].double().softmax(dim=1)
        result[others] = losses.chosen(chances, actions[others])
    return result.clamp(min=LEAST).numpy()


def _classifier(inputs: int, outputs: int, generator: torch.Generator) -> StackedMLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return StackedMLP(1, inputs, HIDDEN, outputs, orthogonal=False, bf16=False)
