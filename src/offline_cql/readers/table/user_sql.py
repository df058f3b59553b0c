"""SQL of the user's, after `=`: the columns it names, and why it is invalid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from offline_cql.errors import DataError
from offline_cql.readers.table.database import LONGEST_REASON

OTHER_ROWS = re.compile(r"\bover\b|\bunnest\b", re.IGNORECASE)
MAX_LISTED = 30  # columns in a message


def shorten(names: Sequence[str]) -> str:
    """Return `a, b, c` for a message, on one line."""
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(on_one_line, names[:MAX_LISTED])) + more


def closest(name: str, names: Sequence[str]) -> str | None:
    """Return the name that is most like another, in any case, if one is like it."""
    folded = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), list(folded), n=1)
    return folded[close[0]] if close else None


def on_one_line(text: str) -> str:
    """Return text of the user's for a message: quoted if it has a line break."""
    return text if text.isprintable() else repr(text)


def mentioned(sql: str, names: Sequence[str], label: str) -> list[str]:
    """Return the columns that SQL may name.

    SQL does not tell Dose from dose. Raises DataError, which begins with `label`, for two columns
    that differ only by case, unless just one of them is named exactly.
    """
    folded = sql.lower()
    groups: dict[str, list[str]] = {}
    for name in names:
        key = name.lower()
        # The first test is much faster: tables may have 100,000 columns.
        if key in folded and re.search(_word(name), sql, re.IGNORECASE):
            groups.setdefault(key, []).append(name)
    result = []
    for group in groups.values():
        exact = [name for name in group if re.search(_word(name), sql)]
        if len(group) > 1 and len(exact) != 1:
            raise DataError(
                f"{label} SQL does not tell the columns {' and '.join(group)} apart: rename one"
            )
        result += exact if len(group) > 1 else group
    return result


def _word(name: str) -> str:
    return rf"(?<!\w){re.escape(name)}(?!\w)"


def invalid_sql(message: str, names: Sequence[str]) -> str:
    """Return why SQL of the user's is invalid, without the names that only we use."""
    if match := re.search(r'Referenced column "(.*?)" not found', message):
        close = closest(match[1], names)
        hint = f"; did you mean {close}?" if close is not None else ""
        return f"there is no column {match[1]}{hint}; columns: {shorten(names)}"
    if "GROUP BY clause" in message:
        return "it needs several rows: add a column to the table"
    reason = re.split(r"\n+LINE |Candidate functions| at or near", message)[0]
    return " ".join(reason.split())[:LONGEST_REASON]
