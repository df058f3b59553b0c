"""The two-column table that a command prints."""

from rich.table import Table


def key_value_table(title: str) -> Table:
    """Return an empty table of names and right-aligned values, for a Terminal."""
    table = Table(title=title, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    return table
