"""The two-column table that a command prints, and the lines below it."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def key_value_table(title: str) -> Table:
    """Return an empty table of names and right-aligned values."""
    table = Table(title=escape(title), show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    return table


def print_line(console: Console, label: str, text: str) -> None:
    """Print a path or a command below a table, where a narrow terminal does not cut it."""
    print_verbatim(console, f"{label:<7} {text}")


def print_verbatim(console: Console, text: str) -> None:
    """Print text that can be pasted: no line breaks, and [brackets] are not rich's markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
