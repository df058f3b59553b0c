"""Measure environment steps per second: several environments stepped together, and one alone.

Untrained policies of the same network; both run alternately, and medians are printed.
--environments sets how many are stepped together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import torch
from implementations import Sizes, prepare

from offline_cql.agents import Agent
from offline_cql.config import EnvConfig
from offline_cql.render.table import Table, to_markdown
from offline_cql.simulation.environments import make_simulators
from offline_cql.simulation.evaluation import greedy_policy
from offline_cql.simulation.rollouts import roll_out

STEPS = 2_000


def alone(agent: Agent, env: EnvConfig) -> float:
    """Return steps per second of one environment with a batch of one."""
    assert env.id is not None
    environment = gym.make(env.id)
    observation, _ = environment.reset(seed=0)
    start = time.perf_counter()
    for _ in range(STEPS):
        with torch.no_grad():
            action = agent.act(torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0))
        observation, _, terminated, truncated, _ = environment.step(action[0].numpy())
        if terminated or truncated:
            observation, _ = environment.reset()
    return STEPS / (time.perf_counter() - start)


def together(agent: Agent, env: EnvConfig, count: int) -> float:
    """Return steps per second of `count` environments with one forward pass."""
    environments = make_simulators(env, count)
    start = time.perf_counter()
    roll_out(environments, greedy_policy(agent), steps_each=STEPS // count, seed=0)
    return (STEPS // count) * count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    counts = arguments.environments
    rows = []
    for task in ("cartpole", "pendulum", "hopper"):
        config, _, agent = prepare(Sizes(task=task), "32")
        runs: list[Callable[[], float]] = [lambda a=agent, e=config.env: alone(a, e)]
        runs += [lambda a=agent, e=config.env, c=count: together(a, e, c) for count in counts]
        rates = [[run() for run in runs] for _ in range(arguments.repeats)]
        single, *others = (statistics.median(column) for column in zip(*rates, strict=True))
        cells = [cell for rate in others for cell in (f"{rate:,.0f}", f"{rate / single:.1f}")]
        rows.append((task, f"{single:,.0f}", *cells))
    names = [name for count in counts for name in (f"{count} together", "ratio")]
    columns = ("task", "alone", *names)
    print(to_markdown(Table(title="Environment steps/s", columns=columns, rows=rows)))


if __name__ == "__main__":
    main()
