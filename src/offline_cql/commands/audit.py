"""`python audit.py`: the audit of a data set, and its short form at the start of a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from offline_cql.audit.finding import Finding, plural
from offline_cql.audit.rules import findings
from offline_cql.audit.statistics import FULL_PASSES, Figures, Scores, measured
from offline_cql.audit.table import print_audit, print_short
from offline_cql.commands.load_data import load_transitions
from offline_cql.config import AuditConfig, EnvConfig, TrainConfig, typed_as
from offline_cql.errors import DataError
from offline_cql.io import write_atomically, write_json
from offline_cql.render.progress import ProgressBar
from offline_cql.runs.folder import create_run_dir
from offline_cql.simulation.evaluation import behavior_return, normalized_score
from offline_cql.transitions import Transitions

JSON, HTML = "audit.json", "audit.html"
OWN = ("gamma", "out", "infer", "strict")  # keys that train.py does not have


def audit(config: DictConfig) -> None:
    """Measure, print the table, write audit.json and audit.html.

    Raises DataError for data that the gate refuses, for an error that was found, and with
    strict=true for a warning; the files are written before.
    """
    settings = typed_as(AuditConfig, config)
    if settings.infer:
        from offline_cql.readers.table.inference import inferred

        assert settings.dataset.path is not None  # the schema wants one of a table
        print(inferred(settings.dataset.path).text())
        return
    transitions = load_transitions(settings.env, settings.dataset)
    title = f"auditing {transitions.dataset_id}"
    with ProgressBar(title, FULL_PASSES * len(transitions)) as bar:
        figures = measured(
            transitions,
            settings.dataset,
            scores(transitions, settings.env),
            gamma=settings.gamma,
            short=False,
            advance=bar.advance,
        )
    from offline_cql.audit.page import page  # late: a run's short audit needs no plots

    found = findings(figures)
    folder = create_run_dir(Path(settings.out))
    write(folder, figures, found)
    write_atomically(folder / HTML, page(figures, found).encode())
    console = Console()
    print_audit(console, figures, found)
    console.print(f"page    {folder / HTML}", soft_wrap=True, highlight=False)
    console.print(f"figures {folder / JSON}", soft_wrap=True, highlight=False)
    refused = ("error", "warning") if settings.strict else ("error",)
    if bad := [finding for finding in found if finding.level in refused]:
        raise DataError(
            f"{transitions.dataset_id}: {plural(len(bad), bad[0].level)}, the first: "
            f"{bad[0].message}; {bad[0].remedy}"
        )
    console.print(f"next    {following(sys.argv[1:])}", soft_wrap=True, highlight=False)


def short_audit(
    settings: TrainConfig, transitions: Transitions, folder: Path, *, shown: bool
) -> None:
    """The fast figures of a new run into its folder; with `shown` a few lines on stderr too."""
    figures = measured(
        transitions,
        settings.dataset,
        scores(transitions, settings.env),
        gamma=settings.cql.gamma,
        short=True,
    )
    found = findings(figures)
    write(folder, figures, found)
    if shown:
        print_short(Console(stderr=True), figures, found)


def write(folder: Path, figures: Figures, found: list[Finding]) -> None:
    """audit.json: the figures, and under `findings` what was found."""
    listed = [vars(finding) for finding in found]
    write_json(folder / JSON, figures.plain() | {"findings": listed})


def scores(transitions: Transitions, env: EnvConfig) -> Scores:
    """The behavior's return, and its score where the task has references."""
    mean = behavior_return(transitions)
    return Scores(
        behavior_return=mean,
        normalized_score=normalized_score(mean, env),
        reference_min=env.reference_min,
        reference_max=env.reference_max,
        reference_source=env.reference_source,
    )


def following(words: list[str]) -> str:
    """The command that trains on the audited data: what was typed, without the audit's own keys."""
    kept = [word for word in words if "=" in word and word.partition("=")[0] not in OWN]
    return shlex.join(["python", "train.py", *kept])
