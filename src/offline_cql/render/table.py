"""A table that is written as HTML, Markdown or LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
    "−": "--",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under named columns.

    align: l (text) or r (number) per column; the last letter applies to all further ones.
    hints: explanations of columns by name, shown as tooltips of the heading.
    links: targets of first cells by their text.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str = "lr"
    hints: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def alignment(self) -> str:
        """One letter per column."""
        return self.align.ljust(len(self.columns), self.align[-1])


def to_markdown(table: Table) -> str:
    """Return a heading and a pipe table."""
    rule = tuple("---" if letter == "l" else "---:" for letter in table.alignment)
    rows = [table.columns, rule, *table.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"## {table.title}\n\n" + "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Return a table environment for the package booktabs."""
    head, *rows = (
        " & ".join(map(_escape_latex, row)) + r" \\" for row in (table.columns, *table.rows)
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{table.alignment}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape_latex(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], text)
