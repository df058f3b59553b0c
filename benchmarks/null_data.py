"""Count wrong verdicts and missed intervals on data where every policy earns the same.

The reward is 1 with probability 0.3 whatever is observed and done: one-step decisions with 10
choices, episodes of 10 steps with 3 choices, and episodes of 10 steps with a continuous action.
Each draw trains CQL on four fifths of the episodes and estimates its policy on the others. Prints
per kind how often the lower bound of fitted Q evaluation is above the behavior's value ("ship", at
most 1 of 20 is right) and how many 95 % intervals cover the true value (at least 16 of 20).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.builders import build, fit, settings  # small agents, trained by Lightning's Trainer
from support.config import settings as settings_of

from offline_cql.commands.fit import silence_lightning
from offline_cql.commands.off_policy import behavior_probabilities, estimate_policy
from offline_cql.data.split import split_episodes
from offline_cql.ope.behavior import behavior_value
from offline_cql.ope.episodes import select_episodes
from offline_cql.transitions import Spaces, Transitions

PROBABILITY, GAMMA = 0.3, 0.9
KINDS = {"one-step": (1, 10), "sequential": (10, 3), "continuous": (10, 0)}  # steps, choices
COMMON = (f"gamma={GAMMA}", "batch_size=64", "dataset.validation_fraction=0.2", "log_every=100")


def null_data(kind: str, seed: int, *, size: int) -> Transitions:
    """Draw `size` rows; the observation is 5 random numbers and the step, the only cause of it."""
    steps, choices = KINDS[kind]
    rng = np.random.default_rng(seed)
    step = np.arange(size) % steps
    observations = np.column_stack([rng.normal(size=(size, 5)), step / steps])
    following = np.column_stack([np.roll(observations[:, :5], -1, axis=0), (step + 1) / steps])
    if choices:
        spaces = Spaces(6, choices, True, (), ())
        actions = rng.integers(0, choices, size)
    else:
        spaces = Spaces(6, 1, False, (-1.0,), (1.0,))
        actions = rng.uniform(-1, 1, (size, 1)).astype(np.float32)
    data = Transitions.pack(
        observations=observations,
        actions=actions,
        rewards=(rng.random(size) < PROBABILITY).astype(np.float32),
        next_observations=following,
        terminated=step == steps - 1,
        episodes=np.arange(size) // steps,
        spaces=spaces,
        dataset_id=f"null/{kind}-v0",
    )
    if not choices:
        return data
    return dataclasses.replace(data, propensities=np.full(size, 1 / choices, np.float32))


def count(kind: str, seed: int, arguments: argparse.Namespace) -> Counter[str]:
    """Return 1 for each thing that happened in one draw: "ship", and the intervals that cover."""
    steps, choices = KINDS[kind]
    truth = PROBABILITY * (1 - GAMMA**steps) / (1 - GAMMA)
    data = null_data(kind, seed, size=arguments.rows * steps)
    config = settings(*COMMON, *(["env=cartpole"] if choices else []), f"seed={seed}")
    split = split_episodes(data, config.dataset)
    training, unseen = (select_episodes(data, part) for part in (split.training, split.validation))
    agent = build(config, data.spaces, seed=seed)
    fit(config, training, updates=arguments.updates, agent=agent)
    ope = settings_of(
        f"ope={'all' if choices else 'fqe'}",
        *("run=unused", "evaluation.episodes=0", f"ope.updates={arguments.ope_updates}"),
        entry_point="evaluate",
    ).ope
    estimates = estimate_policy(
        agent.eval(), unseen, behavior_probabilities(unseen, ope), ope, gamma=GAMMA, title="null"
    )
    behavior = behavior_value(unseen, gamma=GAMMA, seed=0)
    covered = [e.method for e in (*estimates, behavior) if e.low <= truth <= e.high]
    return Counter(covered + (["ship"] if estimates[0].low > behavior.value else []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rows", type=int, default=1_500, help="episodes of each data set")
    parser.add_argument("--updates", type=int, default=1_000, help="of the policy")
    parser.add_argument("--ope-updates", type=int, default=2_000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    silence_lightning()
    torch.set_num_threads(1)
    print("| kind | draws | ship | covered: fqe | wis | dr | logged returns | seconds per draw |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for kind in arguments.kinds:
        start = time.perf_counter()
        counts = sum((count(kind, seed, arguments) for seed in range(arguments.draws)), Counter())
        names = ("ship", "fqe", *(("wis", "dr") if KINDS[kind][1] else ()), "logged returns")
        cells = [str(counts[name]) if name in names else "–" for name in ("ship", "fqe", "wis")]
        cells += [str(counts[n]) if n in names else "–" for n in ("dr", "logged returns")]
        seconds = (time.perf_counter() - start) / arguments.draws
        print(f"| {kind} | {arguments.draws} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
