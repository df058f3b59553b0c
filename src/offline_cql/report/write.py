"""The files of a report: the page, the tables, the plots, and report.json for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offline_cql.io import write_atomically, write_json
from offline_cql.render.svg import render_plot
from offline_cql.render.table import Table, to_latex, to_markdown
from offline_cql.report import tables
from offline_cql.report.messages import checkpoint_file, commands, sentences
from offline_cql.report.model_selection import GridPoint, Limits, Selection
from offline_cql.report.page import report_page
from offline_cql.report.plots import score_plots, task_plots
from offline_cql.report.summary import Summary

HTML, MARKDOWN, LATEX, JSON = "report.html", "report.md", "report.tex", "report.json"


def write(
    folder: Path, summary: Summary, limits: Limits, *, docs: Path | None, resamples: int, seed: int
) -> None:
    """Write all files. docs: the folder of the project's documentation, to link to."""
    bootstrap = {"resamples": resamples, "seed": seed}
    drawn = {
        task.name: task_plots(task, share_limit=limits.above_best_share, **bootstrap)
        for task in summary.tasks
    }
    drawn[""] = score_plots(summary.aggregates, **bootstrap)  # over all tasks
    plots = {name: list(map(render_plot, group)) for name, group in drawn.items()}
    for rendered in (each for group in plots.values() for each in group):
        write_atomically(folder / f"{rendered.plot.stem}.png", rendered.png)
    page = report_page(summary, plots, out=folder, docs=docs)
    texts = {HTML: page, MARKDOWN: markdown(summary), LATEX: latex(summary)}
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    write_json(folder / JSON, replace_non_finite(report_json(summary)))


def markdown(summary: Summary) -> str:
    """Return the recommendations, then every table."""
    names = {run.name: run.name for run in summary.runs}
    settings = tables.settings_by_run(summary.runs)
    run_tables = [
        tables.run_table(task.runs, names, settings, title=f"Runs: {task.name}")
        for task in summary.tasks
    ]
    parts = ["# Which policy to ship, and why\n"]
    for name, selection in summary.selections.items():
        lines = [*sentences(selection), *selection.notes]
        if (file := checkpoint_file(selection)) is not None:
            lines.append(f"`{file}`")
        lines += [f"Compute the missing estimates: `{line}`" for line in commands(selection)]
        parts.append(f"**{name}**\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
        parts += [to_markdown(table) for table in tables.chosen_actions(selection)]
    all_tables = [
        tables.recommendations(summary.selections),
        *_grid_points(summary),
        tables.scores(summary.aggregates),
        *run_tables,
        tables.skipped_folders(summary.left_out),
    ]
    return "\n".join(parts + [to_markdown(table) for table in all_tables if table.rows])


def latex(summary: Summary) -> str:
    """Return the tables that a paper would quote, for the package booktabs."""
    all_tables = [
        tables.recommendations(summary.selections),
        tables.scores(summary.aggregates),
        *_grid_points(summary),
    ]
    parts = [to_latex(table) for table in all_tables if table.rows]
    return "\n".join(["% needs \\usepackage{booktabs}", *parts])


def _grid_points(summary: Summary) -> list[Table]:
    return [tables.grid_points(each, name) for name, each in summary.selections.items()]


def report_json(summary: Summary) -> dict[str, Any]:
    """Return the content of report.json."""
    return {
        "runs": [
            {
                "run": run.name,
                "task": run.task_name,
                "sha256": run.sha256,
                "method": summary.methods[run.name],
                "alpha": run.alpha,
                "seed": run.seed,
                "status": run.status,
                "updates": run.updates,
                "return_mean": run.simulated.return_mean,
                "normalized_score": run.simulated.normalized_score,
            }
            for run in summary.runs
        ],
        "left_out": [asdict(each) for each in summary.left_out],
        "selections": {name: _selection(each) for name, each in summary.selections.items()},
        "aggregates": [
            {
                "method": each.method,
                "scores": {task: scores.tolist() for task, scores in each.scores.items()},
                "iqm": each.iqm,
                "mean": each.mean,
            }
            for each in summary.aggregates
        ],
    }


def _selection(selection: Selection) -> dict[str, Any]:
    chosen, behavior = selection.chosen, selection.behavior
    return {
        "sentences": sentences(selection),
        "ship": selection.ship,
        "chosen": None
        if chosen is None or behavior is None
        else asdict(chosen) | {"behavior": asdict(behavior)},
        "too_small": _by_alpha(selection.too_small),
        "too_large": _by_alpha(selection.too_large),
        "td_error_minimum": {
            alpha: asdict(each) for alpha, each in _by_alpha(selection.td_error_minimum).items()
        },
        "without_estimates": selection.without_estimates,
        "notes": selection.notes,
        "grid_points": [_grid_point(point) for point in selection.points],
    }


def _by_alpha(values: Mapping[float, Any]) -> dict[str, Any]:
    return {f"{alpha:g}": value for alpha, value in values.items()}


def _grid_point(point: GridPoint) -> dict[str, Any]:
    return {
        "alpha": point.alpha,
        "updates": point.updates,
        "runs": [candidate.run for candidate in point.candidates],
        "value": point.value,
        "low": point.low,
        "too_small": point.too_small,
        "incomplete": point.incomplete,
    }


def replace_non_finite(value: Any) -> Any:
    """Return the value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
