"""The terminal that commands print tables and lines to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from offline_cql.render.message import printable


class Terminal(Console):
    """rich's console for text of other origin.

    Text is printed as it is: [brackets] are no markup, :names: no emoji, and control characters
    are visible. Colors come from `style` and from Text.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        """Open stdout or stderr; further options are Console's."""
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            error.filename = error.filename or ("stderr" if self.stderr else "stdout")
            raise

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, segment.text.split("\n"))))

    def print_line(self, text: str, style: str = "") -> None:
        """Print one line that can be pasted: a narrow terminal does not break or cut it."""
        self.print(Text(printable(text), style=style), soft_wrap=True)

    def print_table(self, table: Table) -> None:
        """Print a table below its title, which a narrow table does not break."""
        self.print_line(str(table.title), style="italic")
        table.title = None
        self.print(table)

    def print_field(self, label: str, text: str) -> None:
        """Print a path or a command below a table."""
        self.print_line(f"{label:<7} {text}")
