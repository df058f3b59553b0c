"""`offline-cql COMMAND …` and `python -m offline_cql COMMAND …`: the entry points, installed.

`offline-cql train …` is `python train.py …`, with the configs of the installation.
"""

import difflib
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

COMMANDS = {
    "train": "train a policy on a fixed data set, or continue a run",
    "evaluate": "measure or estimate the return of a run's policy",
    "audit": "describe a data set and report its problems",
    "collect": "record a data set with a behavior policy",
    "report": "compare runs, and recommend an alpha and a checkpoint",
    "export": "write the policy of a run as an ONNX file",
}
HELP = "\n".join(
    [
        "usage: offline-cql COMMAND [KEY=VALUE ...]",
        "",
        *(f"  {name:<10}{description}" for name, description in COMMANDS.items()),
        "",
        "offline-cql COMMAND --help lists the settings of a command; --version prints the version.",
    ]
)


def main() -> None:
    """Run the command that is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports: an end, no traceback
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "--version"):
        print(HELP if name != "--version" else f"offline-cql {version('offline-cql')}")
    elif name in COMMANDS:
        from offline_cql.config import command_line  # late: Hydra takes half a second

        del sys.argv[1]
        command_line.run(entry_point(name))
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(COMMANDS)}"
        print(f"error: {name!r} is not a command; {hint}", file=sys.stderr)
        sys.exit(2)


def entry_point(name: str) -> Callable[[], Any]:
    """Return the @hydra.main function of NAME.py for an installation, which has no such file."""
    import hydra

    from offline_cql.config import command_line

    def job(config: Any) -> Any:
        from importlib import import_module  # here, for the processes of hydra/launcher=joblib

        command = import_module(f"offline_cql.commands.{name}")  # late: torch takes seconds
        return command_line.job(getattr(command, name), config)

    # Hydra takes the folder of configs, and the name of the job, from the script of the function.
    script = command_line.conf_folder().parent / f"{name}.py"
    job.__module__, job.__code__ = "__main__", job.__code__.replace(co_filename=str(script))
    function: Callable[[], Any] = hydra.main(
        version_base="1.3", config_path="conf", config_name=name
    )(job)
    return function


if __name__ == "__main__":
    main()
