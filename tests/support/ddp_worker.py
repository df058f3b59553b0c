"""Train one rank of distributed runs, started by torchrun: `ddp_worker.py RUN_FOLDER …`.

It trains as `offline_cql.commands.distributed` does and saves rank-<n>.pt in each run folder: the
weights of this rank and the files that it wrote.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from offline_cql import io
from offline_cql.agents import Agent
from offline_cql.commands import fit
from offline_cql.commands.load_data import load_transitions
from offline_cql.commands.load_run import load_config
from offline_cql.runs import checkpoint
from offline_cql.runs.folder import CsvFile

WRITERS = (
    (io, "write_atomically"),
    (checkpoint, "write_atomically"),
    (CsvFile, "append"),
)


def main() -> None:
    """Train in each run folder of sys.argv."""
    rank, wrote, agents = int(os.environ["RANK"]), [], []

    def log_calls(name: str, write: Any) -> Any:
        return lambda *args: (wrote.append(name), write(*args))

    for owner, name in WRITERS:
        setattr(owner, name, log_calls(name, getattr(owner, name)))
    make = fit.create_agent

    def create_and_keep_agent(*args: Any) -> Agent:
        agents.append(make(*args))
        return agents[-1]

    fit.create_agent = create_and_keep_agent
    for folder in map(Path, sys.argv[1:]):
        wrote.clear()
        config = load_config(folder)
        transitions = load_transitions(config.env, config.dataset)
        fit.fit(config, folder, transitions, state=None, rank=rank)
        state = {"agent": agents[-1].state_dict(), "noise": agents[-1].noise.get_state()}
        torch.save({**state, "wrote": list(wrote)}, folder / f"rank-{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
