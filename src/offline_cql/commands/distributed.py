"""Distributed runs: one process tree per run, started by torchrun.

Lightning's own launcher would start the whole command line again in each rank, grid included.
`python -m offline_cql.commands.distributed FOLDER` is one rank: it reads the run folder and trains.
"""

import logging
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from offline_cql.commands.launchers import torchrun_environment
from offline_cql.config import HardwareConfig
from offline_cql.errors import PreemptedError, WorkerError, explain
from offline_cql.io import locked
from offline_cql.render.message import print_message
from offline_cql.stop_signals import STOP_SIGNALS, deferred, end_with, handle_stop_signals

TORCHRUN = "torchrun"  # the argument of the process that runs torchrun
PARENT = "OFFLINE_CQL_PARENT"  # variable with the process id of the parent, which to end with


def launch(
    folder: Path, hardware: HardwareConfig, *, resume: bool, package: str | None = None
) -> None:
    """Train in `hardware.devices` processes over the folder. Raises WorkerError when one fails.

    package: of the simulator, which this process has imported.
    A stop signal is forwarded to the ranks, which save, and raises PreemptedError after they ended.
    """
    command = [
        *(sys.executable, "-m", __name__, TORCHRUN),
        *("--standalone", f"--nproc-per-node={hardware.devices}"),
        f"--signals-to-handle={','.join(number.name for number in STOP_SIGNALS)},SIGHUP,SIGQUIT",
        *("-m", __name__, str(folder)),
        *(["--resume"] if resume else []),
        *(["--package", package] if package is not None else []),
    ]
    # In a session of its own: Ctrl-C reaches this process alone, and the ranks once, through it.
    environment = torchrun_environment(hardware.threads) | {PARENT: str(os.getpid())}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except PreemptedError as stop:
        with deferred():
            process.send_signal(stop.signal_number)
            code = process.wait()
        if code:
            raise
    if code < 0:
        raise WorkerError(f"{folder}: torchrun {ended_by(-code)}")
    if code:
        raise WorkerError(f"{folder}: a rank failed; its error is above")


def train_rank() -> None:
    """Train as one rank that torchrun started: FOLDER [--resume] [--package NAME]."""
    import torch

    from offline_cql.commands.fit import fit
    from offline_cql.commands.load_data import load_transitions
    from offline_cql.commands.load_run import load_config
    from offline_cql.commands.threads import cpu_threads
    from offline_cql.runs.checkpoint import newest_checkpoint
    from offline_cql.simulation.environments import import_package

    folder, resume, rank = Path(sys.argv[1]), "--resume" in sys.argv, int(os.environ["RANK"])
    config = load_config(folder)
    if "--package" in sys.argv:
        import_package(sys.argv[sys.argv.index("--package") + 1])
    transitions = load_transitions(config.env, config.dataset)
    state = newest_checkpoint(folder) if resume else None
    # Rank 0 locks the folder, because it may outlive the process that launched it.
    lock = locked(folder) if rank == 0 else nullcontext()
    with lock, cpu_threads(config.hardware.threads):
        fit(config, folder, transitions, state=state, rank=rank)
    # Its threads would abort the process if they still ran when Python ends: exit code -6.
    torch.distributed.destroy_process_group()


def main() -> None:
    """Run torchrun with the arguments after `torchrun`, or train as a rank of it."""
    end_with(int(os.environ[PARENT]))
    if sys.argv[1] == TORCHRUN:
        os.environ[PARENT] = str(os.getpid())
        logging.disable(logging.ERROR)  # torchrun tells each signal, and what `ended_by` tells
        try:
            torchrun(sys.argv[2:])
        except SignalException as stop:
            sys.exit(128 + stop.sigval)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                print_message(f"rank {rank} {ended_by(-failure.exitcode)}")
            sys.exit(1)
        return
    try:
        with handle_stop_signals():
            train_rank()
    except BaseException as error:
        if (explanation := explain(error)) is None:
            raise
        line, exit_code = explanation
        if not isinstance(error, PreemptedError):  # train.py says that
            print_message(f"rank {os.environ['RANK']}: {line}")
        sys.exit(exit_code)


def ended_by(number: int) -> str:
    """Say which signal ended a process; of a rank, most often the system's without memory."""
    return f"was ended by {signal.Signals(number).name}"


if __name__ == "__main__":
    main()
