"""`python report.py runs=…`: the recommendation, the runs, and the files of the report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from offline_cql.commands.run_loggers import send_results
from offline_cql.commands.tables import print_text_table
from offline_cql.config import LoggerConfig, ReportConfig, validate_config
from offline_cql.render.terminal import Terminal
from offline_cql.report import tables
from offline_cql.report.load_runs import load_runs
from offline_cql.report.messages import checkpoint_file, commands, export_command, sentences
from offline_cql.report.model_selection import Candidate, Limits, Selection
from offline_cql.report.page import FEW_RUNS, MANY_GRIDS
from offline_cql.report.summary import Summary, summarize
from offline_cql.runs.folder import create_run_dir

DOCS = Path(__file__).resolve().parents[3] / "docs"  # in a checkout
COLORS = {True: "bold green", False: "bold red", None: "bold yellow"}


def report(config: DictConfig) -> None:
    """Print the recommendation and the runs, then write the page, the tables and the plots."""
    settings = validate_config(ReportConfig, config)
    limits, sampling = rule(settings)
    summary = summarize(load_runs(settings.runs), limits, **sampling)
    terminal = Terminal()
    whole = len(summary.selections) < MANY_GRIDS
    for name, selection in summary.selections.items():
        print_selection(terminal, name, selection, whole=whole)
    if not whole:
        terminal.print_line("The reasons are on the page.")
    if len(summary.runs) <= FEW_RUNS:
        print_runs(terminal, summary)
    else:
        for task in summary.tasks:
            print_text_table(terminal, tables.method_table(task))
    for folder in summary.left_out:
        terminal.print_line(f"left out {folder.name}: {folder.reason}", "yellow")
    for file in write_report(settings, summary):
        terminal.print_field("file", str(file))


def rule(settings: ReportConfig) -> tuple[Limits, dict[str, int]]:
    """Return the limits of the selection rule, and the settings of the bootstrap."""
    limits = Limits(above_best_share=settings.above_best_share, bc_margin=settings.bc_margin)
    return limits, {"resamples": settings.resamples, "seed": settings.seed}


def write_report(settings: ReportConfig, summary: Summary) -> list[Path]:
    """Write the files of a report to a new folder; return them, the page first."""
    from offline_cql.report.write import HTML, JSON, LATEX, MARKDOWN, write  # late: matplotlib

    limits, sampling = rule(settings)
    folder = create_run_dir(Path(settings.out), setting="out")
    write(folder, summary, limits, docs=DOCS if DOCS.is_dir() else None, **sampling)
    files = [folder / name for name in (HTML, MARKDOWN, LATEX, JSON)]
    settings_of = {run.name: run.settings for run in summary.runs}
    for selection in summary.selections.values():
        if selection.chosen is not None:
            send_verdict(selection, selection.chosen, settings_of[selection.chosen.run], files)
    return files


def send_verdict(
    selection: Selection, chosen: Candidate, settings: Mapping[str, Any], files: list[Path]
) -> None:
    """Add the verdict, and the files, to the run at W&B that the report recommends.

    settings: of that run, flat.
    """
    if "wandb" not in settings.get("logger.names", ()):
        return
    start = "logger."
    section = {k.removeprefix(start): v for k, v in settings.items() if k.startswith(start)}
    logger = LoggerConfig.model_validate(section)
    figures = {
        "report/verdict": sentences(selection)[0],
        "report/ship": selection.ship,
        "report/checkpoint": chosen.updates,
    }
    send_results(Path(chosen.run), logger, figures=figures, files={"report": files})


def print_selection(terminal: Terminal, name: str, selection: Selection, *, whole: bool) -> None:
    """Print the verdict and, of the whole, its reasons and the commands that follow from it."""
    verdict, *lines = sentences(selection)
    terminal.print_line(name, "bold")
    terminal.print_line(f"  {verdict}", COLORS[selection.ship])
    if not whole:
        return
    if (file := checkpoint_file(selection)) is not None:
        lines.append(file)
    lines += [f"note: {note}" for note in selection.notes]
    if (command := export_command(selection)) is not None:
        lines.append(command)
    for command in commands(selection):
        lines += ["compute the missing estimates:", command]
    for line in lines:
        terminal.print_line(f"  {line}")
    for table in tables.chosen_actions(selection):
        print_text_table(terminal, table)
    terminal.print()


def print_runs(terminal: Terminal, summary: Summary) -> None:
    """Print one row per run, with paths relative to their common folder."""
    folders = [run.name for run in summary.runs]
    if not folders:
        return
    root = os.path.commonpath(folders) if len(folders) > 1 else ""
    names = {name: os.path.relpath(name, root) if root else name for name in folders}
    methods = {
        run.name: summary.methods[run.name] + ("" if run.finished else f", {run.status}")
        for run in summary.runs
    }
    title = f"runs in {root}" if root else "runs"
    table = tables.run_table(summary.runs, names, methods, title=title)
    print_text_table(terminal, table, without=("status", "updates"))
