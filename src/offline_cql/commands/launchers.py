"""Launchers around a run (torchrun, srun, mpirun) and Lightning's view of the processes.

A run of one process is the same under a launcher's variables as without them. Lightning would read
them: it takes a SLURM job for one of several nodes, requeues it and writes its own checkpoint.
"""

import os
from dataclasses import dataclass
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_utilities.core.rank_zero import rank_zero_only

from offline_cql.config import HardwareConfig
from offline_cql.errors import ConfigError
from offline_cql.render.message import print_message

# Launcher, variable with the index of the process, variable with the number of processes.
LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
# Prefixes of the variables that torchrun takes its own arguments and state from.
TORCHRUN_PREFIXES = ("PET_", "TORCHELASTIC_")


@dataclass(frozen=True)
class Launch:
    """A launcher that started several processes, and the index of this one."""

    launcher: str
    process: int
    processes: int
    variables: tuple[str, str]

    def __str__(self) -> str:
        return f"process {self.process} of {self.processes} of {self.launcher}"


def find_launch() -> Launch | None:
    """Return the launcher whose variables say that this is one of several processes."""
    for launcher, process, processes in LAUNCHERS:
        numbers = [os.environ.get(name, "") for name in (process, processes)]
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 1:
            return Launch(launcher, int(numbers[0]), int(numbers[1]), (process, processes))
    return None


def check_launcher(hardware: HardwareConfig) -> None:
    """Raise ConfigError when a launcher would train the same run several times.

    A distributed run starts its own ranks, and torchrun is for nothing else. With srun and mpirun
    several runs of one process are common (`seed=${oc.env:SLURM_PROCID}`): they are named.
    """
    launch = find_launch()
    if launch is None:
        return
    if hardware.strategy == "ddp" or "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(
            f"start train.py without {launch.launcher}: hardware=ddp starts the "
            f"processes itself, and this is {launch}; "
            f"if it is not, unset {' '.join(launch.variables)}"
        )
    print_message(f"note: this is {launch}; each of them trains a run of its own")


def torchrun_environment(threads: int | str | None) -> dict[str, str]:
    """Return the variables of the ranks, without those that torchrun reads its arguments from."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(TORCHRUN_PREFIXES)}
    return kept | {"OMP_NUM_THREADS": str(threads or 1)}


class OneProcess(LightningEnvironment):
    """Lightning's environment of a run of one process: no variable is read or removed."""

    creates_processes_externally = False

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return 0

    def teardown(self) -> None:
        """Keep WORLD_SIZE, which is not ours."""


def choose_environment(hardware: HardwareConfig) -> ClusterEnvironment:
    """Return the environment that Lightning takes the rank from, instead of detecting one."""
    return TorchElasticEnvironment() if hardware.strategy == "ddp" else OneProcess()


def set_lightning_rank(rank: int) -> None:
    """Set the rank of Lightning's loggers, which they take from a variable when imported."""
    loggers: Any = rank_zero_only  # a function, on which Lightning keeps the rank
    loggers.rank = rank
