"""An audit in the terminal: the table, the findings, and the short form before a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offline_cql.audit.describe import kind, lines
from offline_cql.audit.finding import Finding, figure, plural, share
from offline_cql.audit.statistics import Figures

COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
MOST_SHOWN = 3  # findings of the short form


def print_audit(console: Console, figures: Figures, found: Sequence[Finding]) -> None:
    """All lines in groups, then each finding with its remedy."""
    table = Table(title=Text(f"audit of {figures.identity.dataset_id}"), show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for heading, group in lines(figures).items():
        if group:
            table.add_section()
            table.add_row(Text(heading, style="bold"), "")
        for line in group:
            table.add_row(Text(f"  {line.label}"), Text(line.value))
    console.print(table)
    for finding in found:
        console.print(worded(finding), soft_wrap=True)
        console.print(Text(f"         {finding.remedy}", style="dim"), soft_wrap=True)
    if not found:
        console.print("nothing was found wrong")


def print_short(console: Console, figures: Figures, found: Sequence[Finding]) -> None:
    """Two lines of figures, then the first errors and warnings: at most six lines."""
    own, episodes = figures.identity, figures.episodes
    size = f"{own.transitions:,} transitions in {plural(own.episodes, 'episode')}"
    returns, score = episodes.undiscounted, figures.scores.normalized_score
    spread = f"return {figure(returns.mean)} ± {figure(returns.std)}"
    scored = f" (score {figure(score)})" if score is not None else ""
    length = f"length {figure(episodes.length.mean)}"
    ends = f"{share(episodes.terminal / episodes.count)} end terminal"
    texts = [
        Text(f"data     {own.dataset_id} · {size} · {kind(figures)}"),
        Text(f"         {spread}{scored} · {length} · {ends}"),
    ]
    wrong = [finding for finding in found if finding.level != "note"]
    texts += [worded(finding) for finding in wrong[:MOST_SHOWN]]
    if more := len(wrong) - MOST_SHOWN:
        hint = f"and {more} more, in audit.json; python audit.py shows all"
        texts += [Text(f"         {hint}")] if more > 0 else []
    for text in texts:
        console.print(text, soft_wrap=True, highlight=False)


def worded(finding: Finding) -> Text:
    """The level in its color, then the message."""
    level = Text(f"{finding.level:<9}", style=COLORS[finding.level])
    return level.append(finding.message, style="default")
