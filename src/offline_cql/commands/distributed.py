"""Distributed runs: one process tree per run, started by torchrun.

Lightning's own launcher would start the whole command line again in each rank, grid included.
`python -m offline_cql.commands.distributed FOLDER` is one rank: it reads the run folder and trains.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from offline_cql.callbacks.checkpoints import STOP_SIGNALS
from offline_cql.commands.launchers import torchrun_environment
from offline_cql.config import HardwareConfig
from offline_cql.errors import WorkerError
from offline_cql.io import locked


def launch(folder: Path, hardware: HardwareConfig, *, resume: bool) -> None:
    """Train in `hardware.devices` processes over the folder. Raises WorkerError when one fails."""
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // hardware.devices)
    command = [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", f"--nproc-per-node={hardware.devices}"),
        f"--signals-to-handle={','.join(number.name for number in STOP_SIGNALS)},SIGHUP,SIGQUIT",
        *("-m", "offline_cql.commands.distributed", str(folder)),
        *(["--resume"] if resume else []),
    ]
    process = subprocess.Popen(command, env=torchrun_environment(threads))
    with forward_signals(process):
        code = process.wait()
    if code:
        raise WorkerError(f"{folder}: a rank failed (exit code {code}); its error is above")


@contextmanager
def forward_signals(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Forward the signals that stop a run to the ranks, which save first."""

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    handlers = {n: signal.signal(n, forward) for n in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def main() -> None:
    import torch

    from offline_cql.commands.fit import fit
    from offline_cql.commands.load_data import load_transitions
    from offline_cql.commands.load_run import load_config
    from offline_cql.runs.checkpoint import newest_checkpoint

    folder, resume, rank = Path(sys.argv[1]), "--resume" in sys.argv, int(os.environ["RANK"])
    config = load_config(folder)
    transitions = load_transitions(config.env, config.dataset)
    state = newest_checkpoint(folder) if resume else None
    # Rank 0 locks the folder, because it may outlive the process that launched it.
    with locked(folder) if rank == 0 else nullcontext():
        fit(config, folder, transitions, state=state, rank=rank)
    # Its threads would abort the process if they still ran when Python ends: exit code -6.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
