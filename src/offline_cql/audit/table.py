"""The audit in the terminal: the full table with findings, and the summary before a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from offline_cql.audit.describe import describe, describe_spaces
from offline_cql.audit.finding import Finding
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.message import printable
from offline_cql.render.numbers import format_count, format_number, format_share
from offline_cql.render.terminal import Terminal

COLORS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
MAX_FINDINGS = 3  # of the summary


def print_audit(
    terminal: Terminal, statistics: DatasetStatistics, findings: Sequence[Finding]
) -> None:
    """Print all lines in groups, then each finding with its remedy."""
    title = printable(f"audit of {statistics.identity.dataset_id}")
    table = Table(title=title, show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for heading, lines in describe(statistics).items():
        table.add_section()
        table.add_row(Text(heading, style="bold"), "")
        for label, value in lines.items():
            table.add_row(f"  {printable(label)}", printable(value))
    terminal.print(table)
    for finding in findings:
        terminal.print(format_finding(finding), soft_wrap=True)
        terminal.print_line(f"         {finding.remedy}", "dim")
    if not findings:
        terminal.print_line("no findings")


def print_summary(
    terminal: Terminal, statistics: DatasetStatistics, findings: Sequence[Finding]
) -> None:
    """Print two lines of statistics, then the first errors and warnings: at most six lines."""
    identity, episodes = statistics.identity, statistics.episodes
    size = f"{identity.transitions:,} transitions in {format_count(identity.episodes, 'episode')}"
    score = statistics.scores.normalized_score
    mean = f"behavior return {format_number(statistics.scores.behavior_return)}"
    normalized = f" (score {format_number(score)})" if score is not None else ""
    length = f"length {format_number(episodes.length.mean)}"
    ends = f"{format_share(episodes.terminated / episodes.count)} terminated"
    texts = [
        Text(printable(f"data     {identity.dataset_id} · {size} · {describe_spaces(statistics)}")),
        Text(f"         {mean}{normalized} · {length} · {ends}"),
    ]
    problems = [finding for finding in findings if finding.level != "note"]
    texts += [format_finding(finding) for finding in problems[:MAX_FINDINGS]]
    if (others := len(problems) - MAX_FINDINGS) > 0:
        texts.append(Text(f"         and {others} more in audit.json; audit.py shows all"))
    for text in texts:
        terminal.print(text, soft_wrap=True)


def format_finding(finding: Finding) -> Text:
    """Return the level in its color, then the message."""
    level = Text(f"{finding.level:<9}", style=COLORS[finding.level])
    return level.append(printable(finding.message), style="default")
