"""What the first rows of a table say about its columns, for the suggested mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from offline_cql.readers.table.arrow_types import is_integer_or_float, is_number, is_text
from offline_cql.readers.table.files import Table, first_rows

MOST_COLUMNS = 500  # whose values are looked at


class Profile(NamedTuple):
    """What the first rows say about a column.

    runs: of one value. steps: rows that are one more than the row before; falls: that are less;
    missing: without a value.
    """

    rows: int
    distinct: int
    runs: int
    steps: int
    falls: int
    missing: int

    @property
    def stays(self) -> bool:
        """Whether each value stays for a run of rows and does not come back."""
        return self.distinct > 1 and self.runs == self.distinct <= self.rows / 2

    @property
    def numbers_rows(self) -> bool:
        """Whether the values count the rows."""
        return self.rows > 2 and self.steps == self.rows - 1

    def starts_again(self, runs: int | None) -> bool:
        """Return whether the values grow by one and fall, with each of `runs` of episodes.

        runs: None if episodes are unknown; then four rows on average make a run.
        """
        grow_or_fall = self.steps > 0 < self.falls and self.steps + self.falls == self.rows - 1
        are_runs = 4 * (self.falls + 1) <= self.rows if runs is None else self.falls == runs - 1
        return grow_or_fall and are_runs


def _first_rows(table: Table, names: Sequence[str], numeric: Sequence[str]) -> str:
    """Return SQL for the first rows of columns, c0, c1, …"""
    return f"({table.select(names, numeric, first_rows(len(table.columns)))})"


def profiles(table: Table) -> dict[str, Profile]:
    """Return the profiles of a table's columns of numbers and text, of at most MOST_COLUMNS."""
    columns = table.columns.items()
    names = [n for n, column in columns if is_number(column.type) or is_text(column.type)]
    if not names or len(names) > MOST_COLUMNS:
        return {}
    numeric = [name for name in names if is_number(table.columns[name].type)]
    before, parts = [], []
    for number, name in enumerate(names):
        c, p = f"c{number}", f"p{number}"
        before.append(f"lag({c}) OVER () AS {p}")
        parts.append(f"count(DISTINCT {c}), count(*) FILTER ({c} IS DISTINCT FROM {p})")
        if is_integer_or_float(table.columns[name].type):
            parts.append(f"count(*) FILTER ({c} = {p} + 1), count(*) FILTER ({c} < {p})")
        else:
            parts.append("0, 0")
        is_float = pa.types.is_floating(table.columns[name].type)
        nan = f" OR isnan({c})" if is_float else ""
        parts.append(f"count(*) FILTER ({c} IS NULL{nan})")
    with table.database.errors(table.path):
        rows, *values = table.database.fetch(
            f"SELECT count(*), {', '.join(parts)} FROM "
            f"(SELECT *, {', '.join(before)} FROM {_first_rows(table, names, numeric)})"
        )
    return {name: Profile(rows, *values[5 * k : 5 * k + 5]) for k, name in enumerate(names)}


def marks_last_rows(
    table: Table, mark: str, is_step: bool, flags: Sequence[str]
) -> tuple[bool | None, ...]:
    """Return for each flag whether it is 1 on most last rows of episodes and 0 elsewhere.

    mark: the column of episodes, or of steps, which start again.
    """
    goes_on = "c0 < lead(c0) OVER ()" if is_step else "c0 = lead(c0) OVER ()"
    checks = ", ".join(
        f"min(c{k}) = 0 AND max(c{k}) = 1 AND bool_and(last OR c{k} = 0) "
        f"AND 2 * sum(c{k}) >= count(*) FILTER (last)"
        for k in range(1, len(flags) + 1)
    )
    with table.database.errors(table.path):
        return table.database.fetch(
            f"SELECT {checks} FROM (SELECT *, coalesce(NOT {goes_on}, true) AS last "
            f"FROM {_first_rows(table, [mark, *flags], flags)})"
        )
