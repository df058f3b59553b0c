"""The tables that commands print."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from offline_cql.render.message import printable
from offline_cql.render.table import Table as TextTable
from offline_cql.render.terminal import Terminal

MIN_TEXT_WIDTH = 20  # letters that a column of text keeps on a narrow terminal


def key_value_table(title: str) -> Table:
    """Return an empty table of names and right-aligned values, for a Terminal."""
    table = Table(title=title, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    return table


def print_text_table(terminal: Terminal, text: TextTable, without: Sequence[str] = ()) -> None:
    """Print a table, without some of its columns. Long text is folded, numbers never are."""
    indices = [k for k, name in enumerate(text.columns) if name not in without]
    table = Table(title=text.title)
    for k in indices:
        if text.alignment[k] == "r":
            table.add_column(text.columns[k], justify="right", no_wrap=True)
            continue
        widest = max((len(row[k]) for row in text.rows), default=0)
        table.add_column(text.columns[k], overflow="fold", min_width=min(MIN_TEXT_WIDTH, widest))
    for row in text.rows:
        table.add_row(*(Text(printable(row[k])) for k in indices))
    terminal.print_table(table)
