"""Measure the coverage of fitted Q evaluation on a tabular process whose value is known.

10 states, 3 actions, gamma 0.9; the behavior policy takes the policy's action with probability 0.3.
Prints how many 95 % intervals cover the true value, the error and the width, over 100 data sets per
size.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.tables import Process, log_episodes, random_process  # the process that the tests use

from offline_cql.config import OpeConfig
from offline_cql.ope.estimate import Estimate
from offline_cql.ope.fqe import FittedQEvaluation


def estimate(process: Process, *, seed: int, episodes: int, updates: int) -> Estimate:
    """Return the estimate from one data set; a linear critic on one-hot states is a table."""
    data, _ = log_episodes(process, seed=seed, episodes=episodes)
    actions = torch.from_numpy(process.policy)

    def policy(observation: torch.Tensor) -> torch.Tensor:
        return actions[observation.argmax(dim=1)]

    ope = OpeConfig(
        method="fqe",
        ensemble_size=20,
        hidden=[],
        updates=updates,
        batch_size=256,
        learning_rate=0.01,
        polyak=0.05,
        seed=seed,
    )
    return FittedQEvaluation(data, policy, ope, gamma=process.gamma).fit().estimate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=100)
    parser.add_argument("--episodes", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--updates", type=int, default=1_500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    process = random_process(0)
    print(f"true value {process.value:.3f}\n")
    print("| episodes | covered | root mean square error | mean width | seconds per estimate |")
    print("|--:|--:|--:|--:|--:|")
    for episodes in arguments.episodes:
        start, estimates = time.perf_counter(), []
        for seed in range(arguments.data_sets):
            estimates.append(
                estimate(process, seed=seed, episodes=episodes, updates=arguments.updates)
            )
            print(f"{episodes} episodes: {seed + 1}", end="\r", file=sys.stderr)
        seconds = (time.perf_counter() - start) / len(estimates)
        covered = sum(e.low <= process.value <= e.high for e in estimates)
        error = np.sqrt(np.mean([(e.value - process.value) ** 2 for e in estimates]))
        width = np.mean([e.high - e.low for e in estimates])
        print(
            f"| {episodes} | {covered} of {len(estimates)} | {error:.3f} | {width:.3f} "
            f"| {seconds:.1f} |"
        )


if __name__ == "__main__":
    main()
