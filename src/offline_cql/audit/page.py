"""The audit as one HTML page that contains its style and plots and needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from offline_cql.audit.columns import ColumnStatistics
from offline_cql.audit.describe import describe, describe_spaces
from offline_cql.audit.finding import Finding, format_number
from offline_cql.audit.plots import draw_plots
from offline_cql.audit.statistics import DatasetStatistics

MAX_ROWS = 200  # of the table of columns
STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #5b636d; --line: #dfe3e8; --paper: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .7rem; }
h3 { font-size: .95rem; margin: 0 0 .4rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem; }
.grid { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.finding { border-left: 5px solid; margin: .6rem 0; padding: .6rem 1rem; overflow-wrap: anywhere; }
.error { border-left-color: #c0392b; } .warning { border-left-color: #d99a00; }
.note { border-left-color: #5a8fc7; }
.level { font-weight: 600; margin-right: .4rem; }
dl { display: grid; grid-template-columns: minmax(8rem, auto) 1fr; gap: .25rem .9rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; }
.wide { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
""".strip()


def render_page(statistics: DatasetStatistics, findings: Sequence[Finding]) -> str:
    """Return the whole document."""
    identity = statistics.identity
    size = f"{identity.transitions:,} transitions · {identity.episodes:,} episodes"
    body = [
        f"<h1>{escape(identity.dataset_id)}</h1>",
        f'<p class="soft">{size} · {escape(describe_spaces(statistics))}<br>'
        f"sha256 {identity.sha256[:16]}…</p>",
        "<h2>Findings</h2>",
        *(_finding(finding) for finding in findings),
        *(["<p>None.</p>"] if not findings else []),
        "<h2>Statistics</h2>",
        f'<div class="grid">{"".join(_groups(statistics))}</div>',
        "<h2>Plots</h2>",
        f'<div class="grid">{"".join(_plots(statistics))}</div>',
        "<h2>Observation columns</h2>",
        _columns(statistics),
        '<p class="soft">docs/data.md explains every line; audit.json holds all numbers.</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(identity.dataset_id)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{chr(10).join(body)}</main></body></html>\n"
    )


def _finding(finding: Finding) -> str:
    return (
        f'<div class="card finding {finding.level}"><p><span class="level">{finding.level}</span>'
        f'{escape(finding.message)}</p><p class="soft">{escape(finding.remedy)}</p></div>'
    )


def _groups(statistics: DatasetStatistics) -> list[str]:
    return [
        f'<section class="card"><h3>{escape(heading)}</h3><dl>'
        + "".join(f"<dt>{escape(x.label)}</dt><dd>{escape(x.value)}</dd>" for x in lines)
        + "</dl></section>"
        for heading, lines in describe(statistics).items()
        if lines
    ]


def _plots(statistics: DatasetStatistics) -> list[str]:
    return [
        f'<section class="card"><h3>{escape(title)}</h3>{svg}</section>'
        for title, svg in draw_plots(statistics).items()
    ]


def _columns(statistics: DatasetStatistics) -> str:
    headings = ("column", "mean", "std", "min", "median", "max", "> 20 std", "kind")
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    one_hot = {name for group in statistics.observations.one_hot_groups for name in group}
    rows = []
    for column in statistics.observations.columns[:MAX_ROWS]:
        numbers = (column.mean, column.std, column.min, column.quantiles[2], column.max)
        kinds = ", ".join(column_kinds(column, one_hot=column.name in one_hot))
        texts = [column.name, *map(format_number, numbers), f"{column.outliers:,}", kinds]
        rows.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>")
    others = statistics.observations.total - len(rows)
    more = f'<p class="soft">and {others:,} more</p>' if others else ""
    return (
        f'<div class="card wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}'
        f"</tbody></table></div>{more}"
    )


def column_kinds(column: ColumnStatistics, *, one_hot: bool) -> list[str]:
    """Return what is special about an observation column, in words."""
    kinds = {
        "constant": column.constant,
        "nearly constant": column.nearly_constant,
        "one-hot": one_hot,
        "binary": column.binary and not column.constant and not one_hot,
        "integer": column.integer and not column.binary and not column.constant,
        "increasing": column.increasing,
        "constant per episode": column.constant_per_episode,
        f"repeats {column.same_as}": column.same_as is not None,
    }
    return [name for name, applies in kinds.items() if applies]
