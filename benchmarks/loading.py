"""Measure time and memory of loading a million Hopper-sized transitions from a Minari store.

Beside Minari's own iteration (joined to arrays) and, if --d3rlpy names a Python that has it (`make
bench-loading` creates one), d3rlpy's loader. Each load is a process of its own; the loaders run
alternately, and medians are printed. The data set: random numbers, 1,000 episodes of 1,000 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from offline_cql.runs.provenance import processor

EPISODES, STEPS, OBSERVATION, ACTION = 1_000, 1_000, 11, 3
DATASET = "bench/hopper/random-v0"
PACKED = 4 * EPISODES * STEPS * (2 * OBSERVATION + ACTION + 2)  # bytes

OURS = f"""
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader
def run():
    data = load(MinariReader({DATASET!r}))
    return len(data), float(data.rewards.sum(dtype="float64"))
"""
MINARI = f"""
import minari, numpy as np
def run():
    episodes = list(minari.load_dataset({DATASET!r}).iterate_episodes())
    observations = np.concatenate([e.observations[:-1] for e in episodes])
    next_observations = np.concatenate([e.observations[1:] for e in episodes])
    actions = np.concatenate([e.actions for e in episodes])
    rewards = np.concatenate([e.rewards for e in episodes])
    terminated = np.concatenate([e.terminations for e in episodes])
    return len(observations), float(rewards.sum(dtype="float64"))
"""
D3RLPY = f"""
import minari
from d3rlpy.datasets import get_minari
def run():
    data, environment = get_minari({DATASET!r})
    return data.transition_count, float(sum(e.rewards.sum() for e in data.episodes))
"""
# Peak memory is reset after the imports, so that only loading counts.
MEASURE = """
import json, time, os
def resident(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before, start = resident("VmRSS"), time.perf_counter()
size, total = run()
took = time.perf_counter() - start
peak = resident("VmHWM") - before
print(json.dumps({"seconds": took, "peak": peak, "size": size, "total": total}))
"""


def make_store() -> None:
    """Write random transitions as a Minari data set to $MINARI_DATASETS_PATH."""
    import gymnasium as gym
    import minari
    import numpy as np
    from minari.data_collector import EpisodeBuffer

    generator = np.random.default_rng(0)

    def episode(number: int) -> EpisodeBuffer:
        last = np.arange(STEPS) == STEPS - 1
        return EpisodeBuffer(
            observations=generator.standard_normal((STEPS + 1, OBSERVATION)),
            actions=generator.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32),
            rewards=generator.standard_normal(STEPS),
            terminations=last & (number % 2 == 0),
            truncations=last & (number % 2 == 1),
            infos={},
        )

    minari.create_dataset_from_buffers(
        DATASET,
        [episode(number) for number in range(EPISODES)],
        env="Hopper-v5",
        observation_space=gym.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float64),
        action_space=gym.spaces.Box(-1, 1, (ACTION,), np.float32),
        algorithm_name="random numbers",
        author="benchmarks/loading.py",
        author_email="none",
        code_permalink="none",
    )


def measure(python: str, program: str) -> dict[str, float]:
    """Load once in a process of its own; return seconds, peak memory, size and sum of rewards."""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program + MEASURE], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"loading failed:\n{done.stderr[-2_000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--d3rlpy", help="a Python that has d3rlpy")
    arguments = parser.parse_args()
    loaders = {
        "offline_cql, from the source": (sys.executable, OURS),
        "offline_cql, from the cache": (sys.executable, OURS),
        "minari.iterate_episodes": (sys.executable, MINARI),
    }
    if arguments.d3rlpy:
        loaders["d3rlpy.datasets.get_minari"] = (arguments.d3rlpy, D3RLPY)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in loaders}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = f"{folder}/datasets"
        print("writing the data set …", file=sys.stderr)
        make_store()
        for repeat in range(arguments.repeats):
            os.environ["OFFLINE_CQL_CACHE"] = f"{folder}/cache-{repeat}"
            for name, (python, program) in loaders.items():
                results[name].append(measure(python, program))
                print(f"{repeat + 1}/{arguments.repeats} {name}", file=sys.stderr)
    report(results)


def report(results: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians as a Markdown table; memory as a multiple of the packed transitions."""
    base = statistics.median(run["seconds"] for run in results["minari.iterate_episodes"])
    totals = {round(run["total"], 1) for runs in results.values() for run in runs}
    print(f"{processor()}, {time.strftime('%Y-%m-%d')}")
    print(f"{EPISODES * STEPS:,} transitions, {PACKED / 1e6:.0f} MB packed; totals {totals}\n")
    print("| loader | seconds | rows/s | peak memory / packed | time / Minari's |")
    print("|---|--:|--:|--:|--:|")
    for name, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        peak = statistics.median(run["peak"] for run in runs) / PACKED
        rows = EPISODES * STEPS / seconds
        print(f"| {name} | {seconds:.3f} | {rows:,.0f} | {peak:.2f} | {seconds / base:.2f} |")


if __name__ == "__main__":
    main()
