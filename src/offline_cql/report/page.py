"""A report as one HTML page that needs nothing else: its style and its plots stand in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from offline_cql.render.svg import Plot
from offline_cql.report import tables
from offline_cql.report.aggregate import too_few
from offline_cql.report.messages import (
    checkpoint_file,
    commands,
    counted,
    export_command,
    sentences,
)
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run
from offline_cql.report.summary import Overview
from offline_cql.report.tables import Table

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #5b636d; --line: #dfe3e8; --paper: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .7rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
a { color: #2b5f9e; }
code { font: .85em/1.4 ui-monospace, Menlo, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .88rem; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem; }
.card + .card, .grid + details, details + .grid { margin-top: 1rem; }
.grid > .card + .card { margin-top: 0; }
.grid { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.verdict { border-left: 5px solid #8a929b; }
.ship { border-left-color: #2e8b57; } .not { border-left-color: #c0392b; }
.verdict p:first-of-type { font-weight: 600; }
.error { border-left: 5px solid #c0392b; } .warning { border-left: 5px solid #d99a00; }
.note { border-left: 5px solid #5a8fc7; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; }
summary { cursor: pointer; padding: .3rem 0; }
.wide { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
.word { text-align: left; }
tr:last-child td { border-bottom: 0; }
""".strip()


def page(
    found: Overview,
    drawn: Sequence[tuple[str, Sequence[tuple[Plot, str]]]],
    *,
    out: Path,
    docs: Path | None,
) -> str:
    """The whole document. drawn: plots and their SVG under each task's name, those over tasks
    under ''; out: where the page will be; docs: the folder of the project's documents."""
    plots = dict(drawn)
    sizes = (counted(len(found.runs), "run"), counted(len(found.tasks), "task"))
    count = f"{' · '.join(sizes)} · {len(found.left_out)} left out"
    body = [
        "<h1>What to ship, and why</h1>",
        f'<p class="soft">{escape(count)}</p>',
        *(_verdict(name, each, out) for name, each in found.selections.items()),
        *(["<p>No runs with an alpha: nothing to choose.</p>"] if not found.selections else []),
    ]
    for name, runs in found.tasks.items():
        body += [f"<h2>{escape(name)}</h2>", *_audit(runs), _grid(plots.get(name, ()), out, docs)]
        body += [_judged(each) for each in found.selections_of(runs).values() if each.pairs]
    body += ["<h2>Over all tasks</h2>", *_over_tasks(found, plots.get("", ()), out, docs)]
    names = {run.name: str(place) for place, run in enumerate(found.runs, start=1)}
    links = {str(place): _link(run.name, out) for place, run in enumerate(found.runs, start=1)}
    body += [
        "<h2>Runs</h2>",
        _table(tables.runs(found.runs, names, tables.own_settings(found.runs)), links),
    ]
    if found.left_out:
        body += ["<h2>Left out</h2>", _table(tables.left_out(found.left_out), {})]
    rule = _document("selection.md", "docs/selection.md", out, docs)
    body.append(f'<p class="soft">{rule} explains the rule; report.json holds all figures.</p>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Report over {len(found.runs)} runs</title><style>{STYLE}</style></head>\n"
        f"<body><main>{chr(10).join(body)}</main></body></html>\n"
    )


def _verdict(name: str, selection: Selection, out: Path) -> str:
    lines = [f"<p>{escape(text)}</p>" for text in sentences(selection)]
    if (file := checkpoint_file(selection)) is not None:
        lines.append(f"<p>{_link(file, out)}</p>")
    if (command := export_command(selection)) is not None:
        lines.append(f"<p><code>{escape(command)}</code></p>")
    lines += [f"<p>make the estimates: <code>{escape(c)}</code></p>" for c in commands(selection)]
    lines += [f'<p class="soft">{escape(note)}</p>' for note in selection.notes]
    kind = {True: " ship", False: " not", None: ""}[selection.ship]
    return f'<section class="card verdict{kind}"><h3>{escape(name)}</h3>{"".join(lines)}</section>'


def _audit(runs: Sequence[Run]) -> list[str]:
    """Errors and warnings of the data's audit, each once."""
    found = dict.fromkeys(each for run in runs for each in run.findings if each.level != "note")
    return [
        f'<div class="card {each.level}"><p><b>{each.level}</b> of the data\'s audit: '
        f'{escape(each.message)}</p><p class="soft">{escape(each.remedy)}</p></div>'
        for each in found
    ]


def _grid(drawn: Sequence[tuple[Plot, str]], out: Path, docs: Path | None) -> str:
    if not drawn:
        return '<p class="soft">These runs have no figures to draw.</p>'
    cards = []
    for plot, svg in drawn:
        names = [
            _document("metrics.md", name, out, docs, anchor=name.replace("/", ""))
            for name in plot.metrics
        ]
        shown = f" {', '.join(names)}." if names else ""
        text = f'<p class="soft">{escape(plot.caption)}{shown}</p>'
        cards.append(f'<section class="card"><h3>{escape(plot.title)}</h3>{svg}{text}</section>')
    return f'<div class="grid">{"".join(cards)}</div>'


def _judged(selection: Selection) -> str:
    table = _table(tables.judged(selection, ""), {})
    count = f"{len(selection.pairs)} pairs of alpha and checkpoint, as the rule judged them"
    return f"<details><summary>{count}</summary>{table}</details>"


def _over_tasks(
    found: Overview, drawn: Sequence[tuple[Plot, str]], out: Path, docs: Path | None
) -> list[str]:
    reason = too_few(found.aggregates)
    body = [f'<p class="soft">{escape(reason)}.</p>'] if reason else [_grid(drawn, out, docs)]
    if found.aggregates:
        body.append("<br>" + _table(tables.scores(found.aggregates), {}))
    return body


def _table(table: Table, links: dict[str, str]) -> str:
    """links: HTML for cells of the first column."""
    kinds = [' class="word"' if k < table.words else "" for k in range(len(table.columns))]
    head = "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kinds, table.columns, strict=True))
    rows = []
    for first, *others in table.rows:
        cells = [links.get(first, escape(first)), *map(escape, others)]
        kinded = zip(kinds, cells, strict=True)
        rows.append("<tr>" + "".join(f"<td{k}>{cell}</td>" for k, cell in kinded) + "</tr>")
    return (
        f'<div class="card wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _link(path: str, out: Path) -> str:
    """A path as it was given, linked relative to the page."""
    return f'<a href="{escape(_relative(Path(path), out))}">{escape(path)}</a>'


def _document(
    name: str, text: str, out: Path, docs: Path | None, *, anchor: str | None = None
) -> str:
    shown = f"<code>{escape(text)}</code>"
    if docs is None:
        return shown
    place = _relative(docs / name, out) + (f"#{anchor}" if anchor else "")
    return f'<a href="{escape(place)}">{shown}</a>'


def _relative(path: Path, out: Path) -> str:
    return os.path.relpath(path.resolve(), out.resolve())
