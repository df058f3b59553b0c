"""Rolls out the policy of a finished run; python evaluate.py --help says what can be set."""

import signal
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end, no traceback

import hydra
from omegaconf import DictConfig

from offline_cql.config import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> Any:
    """Returns what the runner returns."""
    from offline_cql.commands.evaluate import evaluate  # late: torch takes seconds, --help must not

    return command_line.job(evaluate, config)


if __name__ == "__main__":
    command_line.run(main)
