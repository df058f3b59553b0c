"""Mapping of columns: the names and patterns of dataset.columns matched with a file's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from offline_cql.config import ColumnsConfig
from offline_cql.config.data import LISTS, OPTIONAL, SEQUENCE
from offline_cql.errors import DataError
from offline_cql.features import EXPRESSION, Feature
from offline_cql.readers.table.files import match_columns
from offline_cql.readers.table.inference import Inference
from offline_cql.readers.table.user_sql import closest, shorten
from offline_cql.render.command import command, shell_word

REQUIRED = ("observation", "action", "reward")


@dataclass(frozen=True)
class Mapping:
    """The columns of each part of a transition; None or empty: there are none.

    `=` and an expression stand for a column that is computed: of an observation by `features`, of
    other parts by SQL.
    """

    observation: tuple[str, ...]
    action: tuple[str, ...]
    reward: str
    episode: str | None
    step: str | None
    terminated: str | None
    truncated: str | None
    next_observation: tuple[str, ...]
    propensity: str | None

    def part(self, role: str) -> list[str]:
        """Return the columns of a part of a transition; of an expression those it needs."""
        value = getattr(self, role)
        entries = value if isinstance(value, tuple) else (value,)
        names = [name for name in entries if name is not None]
        if role not in ("observation", "next_observation"):
            return names
        return [column for name in names for column in Feature(name).columns]

    def names(self) -> list[str]:
        """Return every column that is read, once."""
        parts = (self.part(field.name) for field in fields(self))
        return list(dict.fromkeys(name for part in parts for name in part))

    def computed(self) -> list[str]:
        """Return the expressions in SQL."""
        return [name for name in self.names() if name.startswith(EXPRESSION)]


def map_columns(
    columns: ColumnsConfig, schema: Any, path: str, *, one_step: bool = False
) -> Mapping:
    """Return the columns that dataset.columns selects in an Arrow schema. Raises DataError.

    one_step: every row is an episode, so that no column says how rows follow each other.
    """
    names: list[str] = schema.names
    set_of_names = set(names)  # there may be 100,000
    parts: dict[str, Any] = {}
    for role in (field.name for field in fields(Mapping)):
        setting = None if one_step and role in SEQUENCE else getattr(columns, role)
        patterns = setting if isinstance(setting, list) else [setting] if setting else []
        found = [_search(pattern, names) for pattern in patterns]
        missing = [each for each, m in zip(patterns, found, strict=True) if m is None]
        matches = [name for m in found if m is not None for name in m]
        if missing or (not matches and role in REQUIRED):
            requested = missing[0] if missing else ", ".join(p.rstrip(OPTIONAL) for p in patterns)
            suggestion = Inference.of(path, schema).settings(one_step=one_step)
            raise _missing(role, requested, names, path, suggestion)
        if role in LISTS:
            parts[role] = tuple(dict.fromkeys(matches))
        elif len(matches) > 1:
            listed = ", ".join(matches)
            raise DataError(f"{path}: dataset.columns.{role}={setting} matches {listed}: name one")
        else:
            parts[role] = matches[0] if matches else None
    mapping = Mapping(**parts)
    _refuse_names(mapping, set_of_names, path)
    for role in ("observation", "next_observation"):
        unknown = [name for name in mapping.part(role) if name not in set_of_names]
        if unknown:  # in an expression
            raise _missing(role, unknown[0], names, path, None)
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


def list_columns(names: Sequence[str]) -> str:
    """Return `columns: a, b, c` for a message."""
    return f"columns: {shorten(names)}"


def inference_command(path: str) -> str:
    """Return the command that suggests a mapping."""
    return command("audit.py", "env=logged", "dataset=table", ("dataset.path", path), "infer=true")


def _search(pattern: str, names: Sequence[str]) -> list[str] | None:
    """Return the matching columns; None if there are none and the pattern does not end in `?`."""
    if pattern.startswith(EXPRESSION) and pattern not in names:
        return [pattern]
    matches = match_columns(pattern, names)
    if not matches and pattern.endswith(OPTIONAL):
        return match_columns(pattern.removesuffix(OPTIONAL), names)
    return matches or None


def _missing(
    role: str, requested: str, names: Sequence[str], path: str, suggestion: list[str] | None
) -> DataError:
    """Return the error. suggestion: settings by the names of other libraries, None: no guess."""
    close = closest(requested, names)
    if close is None:
        close = next((name for name in names if requested.lower() in name.lower()), None)
    hint = f"did you mean {close}? " if close is not None else ""
    settings = " ".join(map(shell_word, suggestion or ()))
    mapping = (
        f"by their names, set {settings}; to see why" if settings else "for a suggested mapping"
    )
    return DataError(
        f"{path} has no column {requested} (dataset.columns.{role}); {hint}{list_columns(names)}; "
        f"{mapping}: {inference_command(path)}"
    )


def _refuse_names(mapping: Mapping, names: set[str], path: str) -> None:
    """Raise DataError for a column whose name would be an expression."""
    roles = (getattr(mapping, field.name) for field in fields(mapping))
    entries = [entry for role in roles for entry in (role if isinstance(role, tuple) else (role,))]
    for name in entries:
        if name is not None and name.startswith(EXPRESSION) and name in names:
            raise DataError(
                f"{path}: the name of column {name} begins with {EXPRESSION}, as expressions do: "
                "rename it"
            )


def _refuse_duplicates(mapping: Mapping, path: str) -> None:
    """Raise DataError for a column with two uses: a policy must not observe action or reward.

    The step may be observed, and a column in several expressions.
    """
    uses: dict[str, str] = {}
    for field in fields(mapping):
        for name in mapping.part(field.name):
            first_use = uses.setdefault(name, field.name)
            if first_use != field.name and (first_use, field.name) != ("observation", "step"):
                raise DataError(
                    f"{path}: column {name} is both dataset.columns.{first_use} and "
                    f"dataset.columns.{field.name}: remove it from one of them"
                )
