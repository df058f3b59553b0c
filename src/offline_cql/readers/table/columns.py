"""Which column of a table is what: the settings' names and patterns against the names found.

Knows nothing of files and values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches

from offline_cql.config import ColumnsConfig
from offline_cql.errors import DataError
from offline_cql.readers.table.files import natural

OPTIONAL = "?"  # at the end of a name: taken when it is there
SHOWN = 30  # columns that a message lists


@dataclass(frozen=True)
class Mapping:
    """The columns of each part of a step, by name; None or empty: there are none."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    reward: str
    episode: str | None
    step: str | None
    terminated: str | None
    truncated: str | None
    next_observation: tuple[str, ...]
    propensity: str | None

    def names(self) -> list[str]:
        """Every column that is read, once."""
        parts = (getattr(self, field.name) for field in fields(self))
        each = (part if isinstance(part, tuple) else (part,) for part in parts)
        return list(dict.fromkeys(name for part in each for name in part if name is not None))


def mapped(columns: ColumnsConfig, found: Sequence[str], place: str) -> Mapping:
    """The settings applied to the columns that a file has. Raises DataError."""
    search = _Search(found, place)
    mapping = Mapping(
        observation=search.several("observation", columns.observation, needed=True),
        action=search.several("action", columns.action, needed=True),
        reward=search.one("reward", columns.reward, needed=True) or "",
        episode=search.one("episode", columns.episode),
        step=search.one("step", columns.step),
        terminated=search.one("terminated", columns.terminated),
        truncated=search.one("truncated", columns.truncated),
        next_observation=search.several("next_observation", columns.next_observation or []),
        propensity=search.one("propensity", columns.propensity),
    )
    _refuse_double_use(mapping, place)
    following = len(mapping.next_observation)
    if following not in (0, len(mapping.observation)):
        raise DataError(
            f"{place}: dataset.columns.next_observation names {following} columns, "
            f"dataset.columns.observation {len(mapping.observation)}: they must fit one by one"
        )
    if not (mapping.episode or mapping.step or mapping.terminated or mapping.truncated):
        raise DataError(
            f"{place}: no episode ends and no episode length given: name a column by "
            f"dataset.columns.episode, step, terminated or truncated; {listed(found)}"
        )
    return mapping


def matches(pattern: str, found: Sequence[str]) -> list[str]:
    """The columns that a name or a pattern means, a pattern's in natural order."""
    if pattern in found:  # as it is written, whatever is in it
        return [pattern]
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return sorted((name for name in found if expression.fullmatch(name)), key=natural)


def listed(found: Sequence[str]) -> str:
    """found: a, b, c"""
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return f"found: {', '.join(found[:SHOWN])}{more}"


def infer_command(path: str) -> str:
    """What to type for a guess at the mapping."""
    return f"python audit.py env=logged dataset=table dataset.path={path} infer=true"


class _Search:
    def __init__(self, found: Sequence[str], place: str):
        self.found, self.place = found, place

    def several(self, role: str, patterns: list[str], *, needed: bool = False) -> tuple[str, ...]:
        names = [name for pattern in patterns for name in self._present(role, pattern)]
        if needed and not names:
            raise self._absent(role, ", ".join(pattern.rstrip(OPTIONAL) for pattern in patterns))
        return tuple(dict.fromkeys(names))

    def one(self, role: str, pattern: str | None, *, needed: bool = False) -> str | None:
        names = [] if pattern is None else self._present(role, pattern)
        if len(names) > 1:
            raise DataError(
                f"{self.place}: dataset.columns.{role}={pattern} fits {', '.join(names)}: name one"
            )
        if needed and not names:
            raise self._absent(role, str(pattern))
        return names[0] if names else None

    def _present(self, role: str, pattern: str) -> list[str]:
        names = matches(pattern, self.found)
        if names or not pattern.endswith(OPTIONAL):
            if not names:
                raise self._absent(role, pattern)
            return names
        return matches(pattern.removesuffix(OPTIONAL), self.found)

    def _absent(self, role: str, wanted: str) -> DataError:
        folded = {name.lower(): name for name in self.found}
        close = get_close_matches(wanted.lower(), list(folded), n=1)
        close = close or [name for name in folded if wanted.lower() in name]
        hint = f"did you mean {folded[close[0]]}? " if close else ""
        return DataError(
            f"{self.place} has no column {wanted} (dataset.columns.{role}); {hint}"
            f"{listed(self.found)}; {infer_command(self.place)} suggests a mapping"
        )


def _refuse_double_use(mapping: Mapping, place: str) -> None:
    """A policy that sees the action or the reward would learn nothing; time it may see."""
    used: dict[str, str] = {}
    for field in fields(mapping):
        part = getattr(mapping, field.name)
        for name in part if isinstance(part, tuple) else (part,):
            before = used.get(name)
            if before is not None and (before, field.name) != ("observation", "step"):
                raise DataError(
                    f"{place}: column {name} is both dataset.columns.{before} and "
                    f"dataset.columns.{field.name}: leave it out of one of them"
                )
            if name is not None:
                used[name] = field.name
