"""Writes the policy of a run as an ONNX file; python export.py --help says how."""

import signal
from typing import Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end, no traceback

import hydra
from omegaconf import DictConfig

from offline_cql.config import command_line


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
def main(config: DictConfig) -> Any:
    """Returns what the runner returns."""
    from offline_cql.commands.export import export  # late: torch takes seconds, --help must not

    return command_line.job(export, config)


if __name__ == "__main__":
    command_line.run(main)
