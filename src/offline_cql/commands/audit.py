"""`python audit.py`: the audit of a data set; and the short audit at the start of a run."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import apply_rules
from offline_cql.audit.statistics import FULL_PASSES, DatasetStatistics, Scores, compute_statistics
from offline_cql.audit.table import print_audit, print_summary
from offline_cql.commands.load_data import load_transitions
from offline_cql.commands.tables import print_text_table
from offline_cql.config import AuditConfig, DatasetConfig, EnvConfig, validate_config
from offline_cql.config.hydra_internals import split_arguments
from offline_cql.errors import ConfigError, DataError
from offline_cql.features import Features
from offline_cql.io import write_atomically, write_json
from offline_cql.ope.actions import Comparison
from offline_cql.render.command import command
from offline_cql.render.numbers import format_count
from offline_cql.render.progress import ProgressBar
from offline_cql.render.table import Table
from offline_cql.render.terminal import Terminal
from offline_cql.report.tables import action_tables
from offline_cql.runs.folder import ACTION_NAMES, AUDIT, create_run_dir, read_metadata
from offline_cql.simulation.environments import import_package
from offline_cql.simulation.evaluation import behavior_return, normalized_score
from offline_cql.transitions import Spaces, Transitions

JSON, HTML = AUDIT, "audit.html"
AUDIT_KEYS = ("out", "run", "infer", "strict")  # keys that train.py does not have


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
    for table in tables_of(result.actions):
        print_text_table(terminal, table)
    if settings.run:
        terminal.print_field("policy", f"the last one of {settings.run}")
    terminal.print_field("page", str(result.folder / HTML))
    terminal.print_field("json", str(result.folder / JSON))
    raise_for_findings(result.findings, result.dataset_id, strict=settings.strict)
    terminal.print_field("next", next_command(sys.argv[1:]))


@dataclass(frozen=True)
class Audit:
    """The statistics of a data set, its problems, and the folder of audit.html and audit.json.

    actions: with run=FOLDER, those of its policy beside the logged ones.
    """

    dataset_id: str
    folder: Path
    statistics: DatasetStatistics
    findings: list[Finding]
    actions: Comparison | None = None


def audit_dataset(settings: AuditConfig) -> Audit:
    """Audit the data set and write the files."""
    import_package(settings.env.package)
    transitions = load_transitions(settings.env, settings.dataset)
    statistics = compute_with_progress(transitions, settings)
    findings = apply_rules(statistics)
    actions = compare_policy(Path(settings.run), transitions) if settings.run else None
    folder = write_audit(Path(settings.out), statistics, findings, actions)
    return Audit(transitions.dataset_id, folder, statistics, findings, actions)


def compare_policy(run: Path, transitions: Transitions) -> Comparison:
    """Compare the actions of a run's last policy with the logged ones.

    Raises ConfigError for data with other observations or actions than the run's.
    """
    from offline_cql.commands.load_run import load_agent, run_features  # late: they need torch
    from offline_cql.commands.off_policy import compare_with_data

    config, agent = load_agent(run)
    policy = interface(agent.spaces, run_features(run), read_metadata(run).get(ACTION_NAMES))
    data = interface(transitions.spaces, transitions.features, transitions.action_names)
    if different := [part for part, value in data.items() if policy[part] != value]:
        raise ConfigError(
            f"run={run} does not fit these data: its {different[0]} differ from theirs; name data "
            f"of env={config.env.name} with the settings of dataset in the run's config.yaml"
        )
    return compare_with_data(agent, transitions)


def interface(
    spaces: Spaces, features: Features | None, action_names: Sequence[str] | None
) -> dict[str, Any]:
    """Return what data and a policy must have in common; the bounds of actions may differ."""
    return {
        "observations": (spaces.observation_dim, None if features is None else features.to_json()),
        "actions": (spaces.action_dim, spaces.discrete, tuple(action_names or ())),
    }


def tables_of(actions: Comparison | None) -> list[Table]:
    """Return the tables of what a policy does, [] without one."""
    return [] if actions is None else action_tables(actions, "states of the data")


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


def write_audit(
    out: Path,
    statistics: DatasetStatistics,
    findings: Sequence[Finding],
    actions: Comparison | None = None,
) -> Path:
    """Write audit.json and audit.html to a new folder at `out` and return it."""
    from offline_cql.audit.page import audit_page  # imported late: a run needs no plots

    folder = create_run_dir(out, setting="out")
    write_statistics(folder, statistics, findings, actions)
    page = audit_page(statistics, findings, tables_of(actions))
    write_atomically(folder / HTML, page.encode())
    return folder


def write_statistics(
    folder: Path,
    statistics: DatasetStatistics,
    findings: Sequence[Finding],
    actions: Comparison | None = None,
) -> None:
    """Write audit.json: the statistics, `findings`, and of a policy's actions `policy`."""
    content = asdict(statistics) | {"findings": [vars(finding) for finding in findings]}
    content |= {} if actions is None else {"policy": asdict(actions)}
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
