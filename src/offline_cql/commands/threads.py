"""The number of CPU threads of a run: settled once, from sizes and cores, never from the load.

It decides the order in which sums are rounded, so it is part of the run: config.yaml has it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from offline_cql.config import TrainConfig
from offline_cql.transitions import Spaces

CGROUPS = Path("/sys/fs/cgroup")
THREAD_FLOPS = 1e9  # of an update, per thread
SHARE = 2  # of so many cores one is used, so that other work finds room


def choose_threads(config: TrainConfig, spaces: Spaces, *, gpu: bool, cores: int) -> int:
    """Return the CPU threads of each process of a run; cores: of all its processes.

    auto: one per GFLOP of an update, at most half of the cores.
    """
    threads = config.hardware.threads
    if isinstance(threads, int):
        return threads
    if gpu:
        return 1
    limit = cores // (SHARE * config.hardware.devices)
    return max(1, min(limit, ceil(update_flops(config, spaces) / THREAD_FLOPS)))


def update_flops(config: TrainConfig, spaces: Spaces) -> float:
    """Return roughly the operations of the matrix products of one update, on each device."""
    network, inputs = config.network, spaces.observation_dim + spaces.action_dim
    samples = 0 if spaces.discrete else getattr(config.algorithm_section(), "n_action_samples", 0)
    critic = network.n_critics * _weights([inputs, *network.critic_hidden, 1])
    actor = _weights([spaces.observation_dim, *network.actor_hidden, 2 * spaces.action_dim])
    states = config.batch_size // config.hardware.devices
    return 6.0 * states * ((1 + 3 * samples) * critic + actor)  # forward, and two gradients


def _weights(widths: list[int]) -> int:
    return sum(a * b for a, b in pairwise(widths))


def allowed_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the cores that this process may use: its affinity, and the quota of its cgroups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    groups = [cgroups]
    if own.exists():  # "0::/user.slice/job.scope"; each group above limits it too
        names = [line[3:].strip("/") for line in own.read_text().splitlines() if line[:3] == "0::"]
        groups += [cgroups / path for name in names for path in (Path(name), *Path(name).parents)]
    quotas = []
    for group in groups:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
            quotas += [] if quota == "max" else [max(1, ceil(int(quota) / int(period)))]
    return min([cores or 1, *quotas])


def run_cores() -> int:
    """Return the cores for one run: hydra/launcher=joblib runs n_jobs of a grid at once."""
    cores = allowed_cores()
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return cores
    jobs = int(HydraConfig.get().launcher.get("n_jobs") or 1)
    return cores // max(1, jobs if jobs > 0 else cores + 1 + jobs)


@contextmanager
def cpu_threads(count: int | Literal["auto"] | None) -> Iterator[None]:
    """Compute with so many threads inside the context, whatever OMP_NUM_THREADS says.

    auto, which no run folder has, and None keep torch's number.
    """
    before = torch.get_num_threads()
    if isinstance(count, int):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
