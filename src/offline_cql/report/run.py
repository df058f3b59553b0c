"""A finished run as plain values, and groups of runs that can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.audit.finding import Finding
from offline_cql.config.algorithms import ALGORITHMS
from offline_cql.config.section import format_value
from offline_cql.ope.actions import Comparison
from offline_cql.ope.estimate import Estimate

Array = npt.NDArray[np.float64]
Curves = Mapping[str, Array]  # column: one value per row
BEHAVIOR_CLONING = "bc"  # the reference for an alpha that is too large
UPDATE = "update"
# Settings that do not change which policy is learned from which data, except by chance.
NEUTRAL = ("seed", "run_dir", "resume", "log_every", "checkpoint_every")
NEUTRAL_SECTIONS = ("logger", "hardware", "evaluation")
ALPHA = "cql.alpha"
NOT_SET = "null"  # as format_value writes it


@dataclass(frozen=True, kw_only=True)
class Offline:
    """Results that come from the data alone: all that the model selection may use.

    validation: columns of validation.csv, empty without validation episodes. estimates: by
    updates, of kept policies only, from the validation episodes. behavior, best_return: mean
    discounted return of the validation episodes, largest one of all logged episodes. actions: what
    the policies do in these, by updates.
    validation_fraction: share of the episodes kept out of training. outdated: ope.json holds
    estimates from the training episodes, which are not loaded.
    """

    validation: Curves
    estimates: Mapping[int, Estimate]
    actions: Mapping[int, Comparison]
    behavior: Estimate | None
    best_return: float | None
    validation_fraction: float
    outdated: bool


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Results from a simulator; empty or None without one.

    evaluation: columns of evaluation.csv. return_mean, normalized_score: of the last evaluation.
    behavior_return: of the logged episodes.
    """

    evaluation: Curves
    return_mean: float | None
    normalized_score: float | None
    behavior_return: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. name: its folder, as typed; settings: the config as one flat mapping."""

    name: str
    status: str
    updates: int
    settings: Mapping[str, Any]
    dataset_id: str
    sha256: str
    findings: Sequence[Finding]
    offline: Offline
    simulated: Simulated

    @property
    def algorithm(self) -> str:
        """The value of `algorithm`."""
        return str(self.settings["algorithm"])

    @property
    def alpha(self) -> float | None:
        """The weight of the gap; None for an algorithm without one."""
        algorithm = ALGORITHMS.get(self.algorithm)
        if algorithm is None or not algorithm.has_alpha:
            return None
        return float(self.settings[ALPHA])

    @property
    def seed(self) -> int:
        """The seed of training."""
        return int(self.settings["seed"])

    @property
    def task(self) -> tuple[str, str]:
        """Environment and data set; runs of one task can be compared."""
        return str(self.settings["env.name"]), self.sha256

    @property
    def task_name(self) -> str:
        """The environment and the data set's id."""
        return f"{self.settings['env.name']} · {self.dataset_id}"

    @property
    def finished(self) -> bool:
        """True unless the run diverged."""
        return self.status == "finished"


@dataclass(frozen=True, kw_only=True)
class SkippedFolder:
    """A run folder that cannot be reported, with the reason."""

    name: str
    reason: str


def affects_learning(key: str) -> bool:
    """Return whether a setting changes what is learned, apart from the seed."""
    return key not in NEUTRAL and key.partition(".")[0] not in NEUTRAL_SECTIONS


def by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by the name of their task, in the order of alpha and seed.

    Data sets that differ and share a name are distinguished by the start of their sha256.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.alpha is None, r.alpha or 0.0, r.seed, r.name)):
        groups.setdefault(run.task, []).append(run)
    names = [group[0].task_name for group in groups.values()]
    result = {}
    for group in groups.values():
        name = group[0].task_name
        result[f"{name} {group[0].sha256[:8]}" if names.count(name) > 1 else name] = group
    return dict(sorted(result.items()))


def grids(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of one task that have an alpha, in groups that differ in alpha and seed only.

    The key is the settings that set a group apart, "" for a single group.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        if run.alpha is not None:
            settings = [
                (key, format_value(value))
                for key, value in run.settings.items()
                if affects_learning(key) and key != ALPHA
            ]
            groups.setdefault(tuple(sorted(settings)), []).append(run)
    shared = set.intersection(*map(set, groups)) if groups else set()
    return {
        " ".join(f"{key}={value}" for key, value in settings if (key, value) not in shared): group
        for settings, group in sorted(groups.items())
    }


def differences(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Return by run name the settings that affect learning and differ within the run's task."""
    result: dict[str, dict[str, str]] = {run.name: {} for run in runs}
    for group in by_task(runs).values():
        keys = dict.fromkeys(key for run in group for key in run.settings if affects_learning(key))
        for key in keys:
            values = {run.name: format_value(run.settings.get(key)) for run in group}
            if len(set(values.values())) > 1:
                for name, value in values.items():
                    result[name][key] = value
    return result


def methods(runs: Sequence[Run]) -> dict[str, str]:
    """Return a label by run name: the alpha or the algorithm, and the settings that differ.

    Settings count as different within the runs of one algorithm and task.
    """
    result = {}
    for algorithm in {run.algorithm for run in runs}:
        group = [run for run in runs if run.algorithm == algorithm]
        settings = differences(group)
        for run in group:
            parts = [algorithm if run.alpha is None else f"alpha={format_value(run.alpha)}"]
            parts += [
                f"{key.rpartition('.')[2]}={value}"
                for key, value in settings[run.name].items()
                if key != ALPHA and value != NOT_SET  # the others have a value there
            ]
            result[run.name] = " ".join(parts)
    return result


def mean_by_update(runs: Sequence[Offline], column: str) -> dict[int, float]:
    """Return the mean of a validation metric at each update that all of the runs have."""
    rows = [validation_rows(run, column) for run in runs]
    shared = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {k: float(np.mean([row[k] for row in rows])) for k in sorted(shared)}


def validation_rows(offline: Offline, column: str) -> dict[int, float]:
    """Return a validation metric by updates; {} when the run does not have it."""
    if column not in offline.validation:
        return {}
    updates = offline.validation[UPDATE].astype(int).tolist()
    return dict(zip(updates, offline.validation[column].tolist(), strict=True))


def simulated_returns(run: Run) -> dict[int, Array]:
    """Return the returns of the simulated episodes by updates."""
    rows = run.simulated.evaluation
    if not rows:
        return {}
    return {int(k): rows["return"][rows[UPDATE] == k] for k in np.unique(rows[UPDATE])}
