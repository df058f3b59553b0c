"""Trains a policy from a fixed data set; python train.py --help says what can be set."""

import signal
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end, no traceback

import hydra
from omegaconf import DictConfig

from offline_cql.config import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> Any:
    """Returns the metric that a sweeper optimizes."""
    from offline_cql.commands.train import train  # late: torch takes seconds, --help must not

    return command_line.job(train, config)


if __name__ == "__main__":
    command_line.run(main)
