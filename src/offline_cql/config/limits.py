"""Ranges of settings: how they are declared on a field, and how a violation reads.

Knows nothing about which settings there are. Every error is one line: key, value, range, remedy.
"""

import math
import operator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from offline_cql.errors import ConfigError

LARGEST_SEED = "<= 4294967295"  # NumPy's legacy generator takes 32 bits
COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def within(*bounds: str) -> dict[str, tuple[str, ...]]:
    """Field metadata of a number, or of each number of a list: within(">= 0", "< 1")."""
    return {"bounds": bounds}


def one_of(*choices: str) -> dict[str, tuple[str, ...]]:
    """Field metadata of a string that has to be one of the choices."""
    return {"choices": choices}


def shown(value: object) -> str:
    """A value as it is written on the command line: null, false, 5, [256, 256]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    return str(value)


def _numbers(value: object) -> list[float]:
    """The numbers in a setting's value, lists of lists included."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _holds(number: float, bound: str) -> bool:
    sign, limit = bound.split()
    return bool(COMPARISONS[sign](number, float(limit)))


@dataclass(kw_only=True)
class Section:
    """A group of settings that checks itself when it is made: each range, then `check`."""

    prefix: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_range(field.name, **field.metadata)
        self.check()

    def check(self) -> None:
        """Raises ConfigError when settings do not fit each other."""

    def key(self, name: str) -> str:
        """The setting's full key, cql.alpha."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def setting(self, name: str) -> str:
        """The setting as it is written on the command line, cql.alpha=5."""
        return f"{self.key(name)}={shown(getattr(self, name))}"

    def require(self, holds: bool, name: str, complaint: str) -> None:
        """Raises ConfigError `key=value complaint` unless the condition holds."""
        if not holds:
            raise ConfigError(f"{self.setting(name)} {complaint}")

    def _check_range(
        self, name: str, bounds: tuple[str, ...] = (), choices: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        value: Any = getattr(self, name)
        numbers = _numbers(value)
        # nan passes every check of the form "refuse if x < 0", inf most of them.
        self.require(all(map(math.isfinite, numbers)), name, "must be finite")
        allowed = all(_holds(number, bound) for number in numbers for bound in bounds)
        self.require(allowed, name, f"must be {' and '.join(bounds)}{hint}")
        known = value is None or not choices or value in choices
        self.require(known, name, f"must be one of {', '.join(choices)}")
