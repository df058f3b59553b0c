"""Conservative Q-Learning: from a fixed data set to a policy one can judge before running it.

    from offline_cql import Dataset, train, load_policy

The names are imported when they are used: torch takes seconds. docs/python.md has examples.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offline_cql.api.agent import make_agent
    from offline_cql.api.dataset import Dataset, collect
    from offline_cql.api.policy import Policy, load_policy
    from offline_cql.api.run import Report, Run, train
    from offline_cql.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        DivergedError,
        ExportError,
        IncompleteRunError,
        PolicyError,
        SimulatorError,
    )

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Dataset",
    "DivergedError",
    "ExportError",
    "IncompleteRunError",
    "Policy",
    "PolicyError",
    "Report",
    "Run",
    "SimulatorError",
    "collect",
    "load_policy",
    "make_agent",
    "train",
]
MODULES = {
    **{"Dataset": "api.dataset", "collect": "api.dataset", "make_agent": "api.agent"},
    **dict.fromkeys(("Policy", "load_policy"), "api.policy"),
    **dict.fromkeys(("Report", "Run", "train"), "api.run"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
