"""Record logs of noisy behaviors: logs/<env>/noisy-v0 and noisy_dev-v0 of Minari.

Each episode draws one of the shipped behavior policies and a standard deviation of Gaussian noise
on its actions. Settings may be chosen on `noisy_dev`, which has other policies and less noise;
nothing is tuned on `noisy`. `benchmarks/learning.py` trains on the logs.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from offline_cql.config import CollectConfig, validate_config
from offline_cql.readers.minari.store import is_stored
from offline_cql.simulation.behavior import load_behavior
from offline_cql.simulation.collect import ENVIRONMENTS, record
from offline_cql.simulation.environments import make_environments, spaces_of
from offline_cql.transitions import Spaces

CONF = Path(__file__).parent.parent / "conf"
# Policies, and the largest standard deviation of the noise in units of half the action range.
LOGS = {
    "noisy": (("replay-3", "replay-4", "medium", "expert"), 0.6),
    "noisy_dev": (("replay-2", "replay-4", "expert"), 0.4),
}


class NoisyBehavior:
    """One policy and one amount of noise per environment and episode."""

    def __init__(self, env: str, spaces: Spaces, log: str) -> None:
        self.rng = np.random.default_rng(list(LOGS).index(log))
        levels, self.largest_noise = LOGS[log]
        self.policies = [load_behavior(env, level, spaces, self.rng) for level in levels]
        self.low, self.high = np.array(spaces.action_low), np.array(spaces.action_high)
        self.level = np.zeros(ENVIRONMENTS, int)
        self.noise = np.zeros(ENVIRONMENTS)

    def __call__(self, observations: Any, indices: Any, starts: Any) -> Any:
        begun = indices[starts]
        self.level[begun] = self.rng.integers(len(self.policies), size=len(begun))
        self.noise[begun] = self.rng.uniform(0.0, self.largest_noise, len(begun))
        actions = np.stack([policy(observations, indices, starts) for policy in self.policies])
        chosen = actions[self.level[indices], np.arange(len(indices))]
        scale = self.noise[indices, None] * (self.high - self.low) / 2
        noisy = chosen + scale * self.rng.standard_normal(chosen.shape)
        return np.clip(noisy, self.low, self.high).astype(np.float32)


def collect_settings(*overrides: str) -> CollectConfig:
    """Return the settings of `python collect.py <overrides>`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return validate_config(CollectConfig, compose("collect", list(overrides)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000)
    arguments = parser.parse_args()
    for env, log in itertools.product(("halfcheetah", "hopper", "walker2d"), LOGS):
        config = collect_settings(f"env={env}", f"dataset.size={arguments.steps}")
        name = f"logs/{env}/{log}-v0"
        if is_stored(name):
            print(f"{name} is there")
            continue
        (environment,) = make_environments(str(config.env.id), 1)
        behavior = NoisyBehavior(env, spaces_of(environment), log)
        environment.close()
        record(config.env, config.dataset, behavior=behavior, identifier=name)


if __name__ == "__main__":
    main()
