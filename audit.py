"""Says what is in a data set and what is wrong with it; python audit.py --help says how."""

import signal
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end, no traceback

import hydra
from omegaconf import DictConfig

from offline_cql.config import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="audit")
def main(config: DictConfig) -> Any:
    """Returns what the runner returns."""
    from offline_cql.commands.audit import audit  # late: --help must not wait for it

    return command_line.job(audit, config)


if __name__ == "__main__":
    command_line.run(main)
