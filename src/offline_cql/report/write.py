"""The files of a report: the page, the tables, the plots, and everything for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_cql.io import write_atomically, write_json
from offline_cql.render.svg import Plot, rendered
from offline_cql.report import aggregate, plots, tables
from offline_cql.report.messages import checkpoint_file, commands, sentences
from offline_cql.report.model_selection import Limits, Pair, Selection
from offline_cql.report.page import page
from offline_cql.report.summary import Overview
from offline_cql.report.task import Task

HTML, MARKDOWN, LATEX, JSON = "report.html", "report.md", "report.tex", "report.json"


def write(
    folder: Path,
    found: Overview,
    limits: Limits,
    *,
    docs: Path | None,
    resamples: int,
    seed: int,
) -> None:
    """All files. docs: the folder of the project's documents, to link to."""
    drawn: list[tuple[str, list[tuple[Plot, str]]]] = []
    for name, own in _plots(found, limits, resamples=resamples, seed=seed).items():
        pairs = []
        for plot in own:
            svg, image = rendered(plot)
            (folder / f"{plot.stem}.png").write_bytes(image)
            pairs.append((plot, svg))
        drawn.append((name, pairs))
    text = page(found, drawn, out=folder, docs=docs)
    _write(folder / HTML, text)
    _write(folder / MARKDOWN, markdown(found))
    _write(folder / LATEX, latex(found))
    write_json(folder / JSON, finite(plain(found)))


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


def _plots(found: Overview, limits: Limits, *, resamples: int, seed: int) -> dict[str, list[Plot]]:
    """By the name of their task; '' for those over all tasks."""
    result = {}
    for number, (name, runs) in enumerate(found.tasks.items(), start=1):
        slug = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-").lower()
        task = Task(
            stem=f"{number}-{slug}",
            runs=[run for run in runs if run.finished],
            methods=found.methods,
            selections=list(found.selections_of(runs).values()),
            share_limit=limits.above_best_share,
            resamples=resamples,
            seed=seed,
        )
        result[name] = plots.plots(task)
    return result | {"": aggregate.plots(found.aggregates, resamples=resamples, seed=seed)}


def markdown(found: Overview) -> str:
    """The recommendation, then every table."""
    names = {run.name: run.name for run in found.runs}
    parts = ["# What to ship, and why\n"]
    for name, selection in found.selections.items():
        lines = [*sentences(selection), *selection.notes]
        if (file := checkpoint_file(selection)) is not None:
            lines.append(f"`{file}`")
        lines += [f"make the estimates: `{command}`" for command in commands(selection)]
        parts.append(f"**{name}**\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
    every = [tables.choices(found.selections), *_judged(found), tables.scores(found.aggregates)]
    every += [
        tables.runs(found.runs, names, tables.own_settings(found.runs)),
        tables.left_out(found.left_out),
    ]
    return "\n".join(parts + [tables.markdown(table) for table in every if table.rows])


def latex(found: Overview) -> str:
    """The tables that a text would quote, for the package booktabs."""
    every = [tables.choices(found.selections), tables.scores(found.aggregates), *_judged(found)]
    parts = [tables.latex(table) for table in every if table.rows]
    return "\n".join(["% needs \\usepackage{booktabs}", *parts])


def _judged(found: Overview) -> list[tables.Table]:
    return [tables.judged(each, name) for name, each in found.selections.items()]


def plain(found: Overview) -> dict[str, Any]:
    """report.json."""
    return {
        "runs": [
            {
                "run": run.name,
                "task": run.task_name,
                "sha256": run.sha256,
                "method": found.methods[run.name],
                "alpha": run.alpha,
                "seed": run.seed,
                "status": run.status,
                "updates": run.updates,
                "return_mean": run.simulated.return_mean,
                "normalized_score": run.simulated.normalized_score,
            }
            for run in found.runs
        ],
        "left_out": [vars(each) for each in found.left_out],
        "selections": {name: _selection(each) for name, each in found.selections.items()},
        "over_tasks": [
            {
                "method": each.method,
                "scores": {task: scores.tolist() for task, scores in each.scores.items()},
                "iqm": each.iqm,
                "mean": each.mean,
            }
            for each in found.aggregates
        ],
    }


def _selection(found: Selection) -> dict[str, Any]:
    policy, behavior = found.policy, found.behavior
    chosen = None
    if policy is not None and behavior is not None:
        chosen = {
            "run": policy.run,
            "file": policy.file,
            "alpha": policy.alpha,
            "seed": policy.seed,
            "updates": policy.updates,
            "estimate": vars(policy.estimate),
            "behavior": vars(behavior),
        }
    return {
        "words": sentences(found),
        "ship": found.ship,
        "chosen": chosen,
        "too_small": _by_alpha(found.too_small),
        "too_large": _by_alpha(found.too_large),
        "turns": _by_alpha(found.turns),
        "without_estimates": found.without,
        "notes": found.notes,
        "pairs": [_pair(each) for each in found.pairs],
    }


def _by_alpha(words: Any) -> dict[str, str]:
    return {f"{alpha:g}": text for alpha, text in words.items()}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "alpha": pair.alpha,
        "updates": pair.updates,
        "runs": [policy.run for policy in pair.policies],
        "value": pair.value,
        "low": pair.low,
        "too_small": pair.too_small,
        "incomplete": pair.incomplete,
    }


def finite(value: Any) -> Any:
    """The same without nan and infinity, which JSON does not have: None."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
