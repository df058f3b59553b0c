"""`python audit.py`: the audit of a data set; and the short audit at the start of a run."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import apply_rules
from offline_cql.audit.statistics import FULL_PASSES, DatasetStatistics, Scores, compute_statistics
from offline_cql.audit.table import print_audit, print_summary
from offline_cql.commands.load_data import load_transitions
from offline_cql.config import AuditConfig, DatasetConfig, EnvConfig, validate_config
from offline_cql.config.hydra_internals import split_arguments
from offline_cql.errors import DataError
from offline_cql.io import write_atomically, write_json
from offline_cql.render.command import command
from offline_cql.render.numbers import format_count
from offline_cql.render.progress import ProgressBar
from offline_cql.render.terminal import Terminal
from offline_cql.runs.folder import AUDIT, create_run_dir
from offline_cql.simulation.environments import import_package
from offline_cql.simulation.evaluation import behavior_return, normalized_score
from offline_cql.transitions import Transitions

JSON, HTML = AUDIT, "audit.html"
AUDIT_KEYS = ("out", "infer", "strict")  # keys that train.py does not have


def audit(config: DictConfig) -> None:
    """Audit the data set: print the table, write audit.json and audit.html.

    Raises DataError when the data cannot be read, when an error is found, and with strict=true when
    a warning is found; the files are written before the last two.
    """
    settings = validate_config(AuditConfig, config)
    if settings.infer:
        print_inferred_columns(settings)
        return
    result = audit_dataset(settings)
    terminal = Terminal()
    print_audit(terminal, result.statistics, result.findings)
    terminal.print_field("page", str(result.folder / HTML))
    terminal.print_field("json", str(result.folder / JSON))
    raise_for_findings(result.findings, result.dataset_id, strict=settings.strict)
    terminal.print_field("next", next_command(sys.argv[1:]))


@dataclass(frozen=True)
class Audit:
    """The statistics of a data set, its problems, and the folder of audit.html and audit.json."""

    dataset_id: str
    folder: Path
    statistics: DatasetStatistics
    findings: list[Finding]


def audit_dataset(settings: AuditConfig) -> Audit:
    """Audit the data set and write the files."""
    import_package(settings.env.package)
    transitions = load_transitions(settings.env, settings.dataset)
    statistics = compute_with_progress(transitions, settings)
    findings = apply_rules(statistics)
    folder = write_audit(Path(settings.out), statistics, findings)
    return Audit(transitions.dataset_id, folder, statistics, findings)


def print_inferred_columns(settings: AuditConfig) -> None:
    """Print which columns of a table would become observation, action, reward and so on."""
    from offline_cql.readers.table.inference import infer_columns

    assert settings.dataset.path is not None  # required by the config of a table
    print(infer_columns(settings.dataset.path, settings.dataset.encoding).text())


def compute_with_progress(transitions: Transitions, settings: AuditConfig) -> DatasetStatistics:
    """Return all statistics; shows a progress bar."""
    title = f"auditing {transitions.dataset_id}"
    with ProgressBar(title, FULL_PASSES * len(transitions)) as bar:
        return compute_statistics(
            transitions,
            settings.dataset,
            scores(transitions, settings.env),
            gamma=settings.gamma,
            short=False,
            on_rows=bar.advance,
        )


def write_audit(out: Path, statistics: DatasetStatistics, findings: Sequence[Finding]) -> Path:
    """Write audit.json and audit.html to a new folder at `out` and return it."""
    from offline_cql.audit.page import audit_page  # imported late: a run needs no plots

    folder = create_run_dir(out, setting="out")
    write_statistics(folder, statistics, findings)
    write_atomically(folder / HTML, audit_page(statistics, findings).encode())
    return folder


def write_statistics(
    folder: Path, statistics: DatasetStatistics, findings: Sequence[Finding]
) -> None:
    """Write audit.json: the statistics, and the findings under `findings`."""
    content = asdict(statistics) | {"findings": [vars(finding) for finding in findings]}
    write_json(folder / JSON, content)


def raise_for_findings(findings: Sequence[Finding], dataset_id: str, *, strict: bool) -> None:
    """Raise DataError when there is an error, with `strict` also when there is a warning."""
    levels = ("error", "warning") if strict else ("error",)
    if problems := [finding for finding in findings if finding.level in levels]:
        first = problems[0]
        count = sum(finding.level == first.level for finding in problems)
        raise DataError(
            f"{dataset_id}: {format_count(count, first.level)}, the first: "
            f"{first.message}; {first.remedy}"
        )


def short_audit(
    transitions: Transitions,
    folder: Path,
    *,
    env: EnvConfig,
    dataset: DatasetConfig,
    gamma: float,
    irrelevant: Collection[str] = (),
    verbose: bool,
) -> None:
    """Write the short audit of a new run to its folder; `verbose`: print a summary to stderr.

    irrelevant: rules that the run's settings make pointless.
    """
    statistics = compute_statistics(
        transitions, dataset, scores(transitions, env), gamma=gamma, short=True
    )
    findings = [f for f in apply_rules(statistics) if f.name not in irrelevant]
    write_statistics(folder, statistics, findings)
    if verbose:
        print_summary(Terminal(stderr=True), statistics, findings)


def scores(transitions: Transitions, env: EnvConfig) -> Scores:
    """Return the behavior policy's mean return, normalized where the task has references."""
    mean = behavior_return(transitions)
    return Scores(
        behavior_return=mean,
        normalized_score=normalized_score(mean, env),
        reference_min=env.reference_min,
        reference_max=env.reference_max,
        reference_source=env.reference_source,
    )


def next_command(arguments: Sequence[str]) -> str:
    """Return the training command for the audited data: the arguments without AUDIT_KEYS."""
    folder, overrides = split_arguments(arguments)
    kept = [word for word in overrides if word.partition("=")[0].lstrip("+~") not in AUDIT_KEYS]
    return command("train.py", *folder, *kept)
