"""Mapping of columns: the names and patterns of dataset.columns matched with a file's columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from offline_cql.config import ColumnsConfig
from offline_cql.config.data import OPTIONAL, SEQUENCE
from offline_cql.errors import DataError
from offline_cql.readers.table.files import natural_key
from offline_cql.render.command import command

LISTS = ("observation", "action", "next_observation")  # roles of several columns
REQUIRED = ("observation", "action", "reward")
MAX_LISTED = 30  # columns in a message


@dataclass(frozen=True)
class Mapping:
    """The columns of each part of a transition; None or empty: there are none."""

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
        """Return every column that is read, once."""
        values = (getattr(self, field.name) for field in fields(self))
        parts = (value if isinstance(value, tuple) else (value,) for value in values)
        return list(dict.fromkeys(name for part in parts for name in part if name is not None))


def map_columns(
    columns: ColumnsConfig, names: Sequence[str], path: str, *, one_step: bool = False
) -> Mapping:
    """Return the columns that dataset.columns selects among `names`. Raises DataError.

    one_step: every row is an episode, so that no column says how rows follow each other.
    """
    parts: dict[str, Any] = {}
    for role in (field.name for field in fields(Mapping)):
        setting = None if one_step and role in SEQUENCE else getattr(columns, role)
        patterns = setting if isinstance(setting, list) else [setting] if setting else []
        matches = [name for pattern in patterns for name in _search(role, pattern, names, path)]
        if not matches and role in REQUIRED:
            requested = ", ".join(pattern.rstrip(OPTIONAL) for pattern in patterns)
            raise _missing(role, requested, names, path)
        if role in LISTS:
            parts[role] = tuple(dict.fromkeys(matches))
        elif len(matches) > 1:
            listed = ", ".join(matches)
            raise DataError(f"{path}: dataset.columns.{role}={setting} matches {listed}: name one")
        else:
            parts[role] = matches[0] if matches else None
    mapping = Mapping(**parts)
    _refuse_duplicates(mapping, path)
    n_next = len(mapping.next_observation)
    if n_next not in (0, len(mapping.observation)):
        raise DataError(
            f"{path}: dataset.columns.next_observation has {n_next} columns, "
            f"dataset.columns.observation {len(mapping.observation)}: name as many, in the same "
            "order"
        )
    ends = (mapping.episode, mapping.step, mapping.terminated, mapping.truncated)
    if not one_step and not any(ends):
        raise DataError(
            f"{path}: the ends of episodes are unknown: set dataset.columns.episode, step, "
            "terminated or truncated; or dataset.one_step=true if every row is a decision of its "
            f"own; {list_columns(names)}"
        )
    return mapping


def match_columns(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the columns that match a name or a pattern with `*`, in natural order."""
    if pattern in names:  # an exact match, even if the name contains a `*`
        return [pattern]
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return sorted((name for name in names if expression.fullmatch(name)), key=natural_key)


def list_columns(names: Sequence[str]) -> str:
    """Return `columns: a, b, c` for a message."""
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return f"columns: {', '.join(names[:MAX_LISTED])}{more}"


def inference_command(path: str) -> str:
    """Return the command that suggests a mapping."""
    return command("audit.py", "env=logged", "dataset=table", ("dataset.path", path), "infer=true")


def _search(role: str, pattern: str, names: Sequence[str], path: str) -> list[str]:
    """Return the matching columns; only a pattern that ends in `?` may have none."""
    matches = match_columns(pattern, names)
    if not matches and pattern.endswith(OPTIONAL):
        return match_columns(pattern.removesuffix(OPTIONAL), names)
    if not matches:
        raise _missing(role, pattern, names, path)
    return matches


def _missing(role: str, requested: str, names: Sequence[str], path: str) -> DataError:
    folded = {name.lower(): name for name in names}
    close = get_close_matches(requested.lower(), list(folded), n=1)
    close = close or [name for name in folded if requested.lower() in name]
    hint = f"did you mean {folded[close[0]]}? " if close else ""
    return DataError(
        f"{path} has no column {requested} (dataset.columns.{role}); {hint}{list_columns(names)}; "
        f"for a suggested mapping: {inference_command(path)}"
    )


def _refuse_duplicates(mapping: Mapping, path: str) -> None:
    """Raise DataError for a column with two uses: a policy must not observe action or reward.

    The step may be observed.
    """
    uses: dict[str, str] = {}
    for field in fields(mapping):
        part = getattr(mapping, field.name)
        for name in part if isinstance(part, tuple) else (part,):
            first_use = uses.get(name)
            if first_use is not None and (first_use, field.name) != ("observation", "step"):
                raise DataError(
                    f"{path}: column {name} is both dataset.columns.{first_use} and "
                    f"dataset.columns.{field.name}: remove it from one of them"
                )
            if name is not None:
                uses[name] = field.name
