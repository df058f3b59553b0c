"""The report as one HTML page: its style and its plots are inside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline_cql.render.html import render_page
from offline_cql.render.svg import RenderedPlot
from offline_cql.report import tables
from offline_cql.report.aggregate import too_few
from offline_cql.report.messages import checkpoint_file, commands, export_command, sentences
from offline_cql.report.metrics import HINTS
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run
from offline_cql.report.summary import Summary

MANY_GRIDS = 3  # and more: a table of the recommendations comes first
FEW_RUNS = 20  # are listed at once
CLASSES = {True: "good", False: "bad", None: ""}


def report_page(
    summary: Summary, plots: Mapping[str, Sequence[RenderedPlot]], *, out: Path, docs: Path | None
) -> str:
    """Return the page.

    plots: by the name of their task, "" for those over all tasks. out: the page's folder, for
    relative links; docs: the folder of the project's documentation, None where it is not installed.
    """
    numbers = {run.name: str(number) for number, run in enumerate(summary.runs, start=1)}
    links = {number: _relative(Path(name), out) for name, number in numbers.items()}
    settings = tables.settings_by_run(summary.runs)
    several = len(summary.selections) >= MANY_GRIDS
    return render_page(
        "report.html.j2",
        summary=summary,
        recommendations=[
            _recommendation(name, selection, out) for name, selection in summary.selections.items()
        ],
        tasks=[
            {
                "id": f"task-{number}",
                "name": task.name,
                "findings": _findings(task.runs),
                "runs": tables.run_table(
                    task.runs, numbers, settings, links, title=f"Runs: {task.name}"
                ),
                "plots": plots.get(task.name, ()),
                "points": [
                    tables.grid_points(each, name)
                    for name, each in task.selections.items()
                    if each.points
                ],
            }
            for number, task in enumerate(summary.tasks, start=1)
        ],
        score_plots=plots.get("", ()),
        too_few=too_few(summary.aggregates),
        scores=tables.scores(summary.aggregates) if summary.aggregates else None,
        overview=tables.recommendations(summary.selections) if several else None,
        few_runs=len(summary.runs) <= FEW_RUNS,
        left_out=tables.skipped_folders(summary.left_out) if summary.left_out else None,
        hints=HINTS,
        docs=None if docs is None else _relative(docs, out),
    )


def _recommendation(name: str, selection: Selection, out: Path) -> dict[str, Any]:
    verdict, *reasons = sentences(selection)
    file = checkpoint_file(selection)
    return {
        "name": name,
        "kind": CLASSES[selection.ship],
        "verdict": verdict,
        "reasons": reasons,
        "file": file,
        "target": None if file is None else _relative(Path(file), out),
        "export": export_command(selection),
        "commands": commands(selection),
        "notes": selection.notes,
        "actions": tables.chosen_actions(selection),
    }


def _findings(runs: Sequence[Run]) -> list[Any]:
    """Return the errors and warnings of the data's audit, each once."""
    return list(
        dict.fromkeys(each for run in runs for each in run.findings if each.level != "note")
    )


def _relative(path: Path, out: Path) -> str:
    return os.path.relpath(path.resolve(), out.resolve())
