"""An audit as one HTML page that needs nothing else: its style and its plots stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from offline_cql.audit.describe import kind, lines
from offline_cql.audit.finding import Finding, figure
from offline_cql.audit.plots import plots
from offline_cql.audit.statistics import Figures

MOST_ROWS = 200  # of the table of columns

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


def page(figures: Figures, found: Sequence[Finding]) -> str:
    """The whole document."""
    own = figures.identity
    size = f"{own.transitions:,} transitions · {own.episodes:,} episodes · {kind(figures)}"
    body = [
        f"<h1>{escape(own.dataset_id)}</h1>",
        f'<p class="soft">{escape(size)}<br>sha256 {own.sha256[:16]}…</p>',
        "<h2>What was found</h2>",
        *(_finding(finding) for finding in found),
        *(["<p>Nothing was found wrong.</p>"] if not found else []),
        "<h2>Figures</h2>",
        f'<div class="grid">{"".join(_groups(figures))}</div>',
        "<h2>Plots</h2>",
        f'<div class="grid">{"".join(_plots(figures))}</div>',
        "<h2>Observation columns</h2>",
        _columns(figures),
        '<p class="soft">docs/data.md explains every line; audit.json holds all figures.</p>',
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(own.dataset_id)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{chr(10).join(body)}</main></body></html>\n"
    )


def _finding(finding: Finding) -> str:
    return (
        f'<div class="card finding {finding.level}"><p><span class="level">{finding.level}</span>'
        f'{escape(finding.message)}</p><p class="soft">{escape(finding.remedy)}</p></div>'
    )


def _groups(figures: Figures) -> list[str]:
    return [
        f'<section class="card"><h3>{escape(heading)}</h3><dl>'
        + "".join(f"<dt>{escape(x.label)}</dt><dd>{escape(x.value)}</dd>" for x in group)
        + "</dl></section>"
        for heading, group in lines(figures).items()
        if group
    ]


def _plots(figures: Figures) -> list[str]:
    return [
        f'<section class="card"><h3>{escape(title)}</h3>{svg}</section>'
        for title, svg in plots(figures).items()
    ]


def _columns(figures: Figures) -> str:
    headings = ("column", "mean", "std", "min", "median", "max", "> 20 std", "what it is")
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    hot = {name for group in figures.columns.one_hot for name in group}
    rows = []
    for column in figures.columns.columns[:MOST_ROWS]:
        kinds = {
            "constant": column.constant,
            "nearly constant": column.nearly_constant,
            "one-hot": column.name in hot,
            "0 or 1": column.binary and not column.constant and column.name not in hot,
            "whole numbers": column.whole and not column.binary and not column.constant,
            "grows": column.grows,
            "fixed in episodes": column.fixed_in_episodes,
            f"repeats {column.same_as}": column.same_as is not None,
        }
        what = ", ".join(name for name, true in kinds.items() if true)
        numbers = (column.mean, column.std, column.min, column.quantiles[2], column.max)
        cells = [escape(column.name), *map(figure, numbers), f"{column.far:,}", escape(what)]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    left = figures.columns.total - len(rows)
    more = f'<p class="soft">and {left:,} more</p>' if left else ""
    return (
        f'<div class="card wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}'
        f"</tbody></table></div>{more}"
    )
