"""Coverage of fitted Q evaluation on a process with a known value: 100 data sets of each size.

A random table of 10 states and 3 actions, gamma 0.9; the behavior follows the policy with chance
0.3. Prints how many 95 % intervals cover the truth, the error and the width, as a Markdown table.
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

from offline_cql.ope.estimate import Estimate
from offline_cql.ope.fqe import FittedQEvaluation, policy_actions


def estimate(process: Process, *, seed: int, episodes: int, updates: int) -> Estimate:
    """One data set, one estimate; a linear critic on one-hot states is a table."""
    data, _ = log_episodes(process, seed=seed, episodes=episodes)
    policy = torch.from_numpy(process.policy)
    actions = policy_actions(data, lambda observation: policy[observation.argmax(dim=1)])
    evaluation = FittedQEvaluation(
        data,
        actions,
        ensemble_size=20,
        hidden=[],
        updates=updates,
        batch_size=256,
        learning_rate=0.01,
        polyak=0.05,
        gamma=process.gamma,
        seed=seed,
    )
    return evaluation.fit().estimate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=100)
    parser.add_argument("--episodes", type=int, nargs="+", default=[25, 100, 400])
    parser.add_argument("--updates", type=int, default=1_500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    process = random_process(0)
    print(f"true value {process.value:.3f}\n")
    print("| episodes | covered | root mean square error | mean width | seconds each |")
    print("|--:|--:|--:|--:|--:|")
    for episodes in arguments.episodes:
        start, found = time.perf_counter(), []
        for seed in range(arguments.data_sets):
            found.append(estimate(process, seed=seed, episodes=episodes, updates=arguments.updates))
            print(f"{episodes} episodes: {seed + 1}", end="\r", file=sys.stderr)
        each = (time.perf_counter() - start) / len(found)
        covered = sum(one.low <= process.value <= one.high for one in found)
        error = np.sqrt(np.mean([(one.value - process.value) ** 2 for one in found]))
        width = np.mean([one.high - one.low for one in found])
        print(
            f"| {episodes} | {covered} of {len(found)} | {error:.3f} | {width:.3f} | {each:.1f} |"
        )


if __name__ == "__main__":
    main()
