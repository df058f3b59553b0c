"""A finished run as plain values, as its folder tells them; how runs belong together.

Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.audit.finding import Finding
from offline_cql.ope.estimate import Estimate

Array = npt.NDArray[np.float64]
Curves = Mapping[str, Array]  # column -> one value a row
CQL, CLONING = "cql", "bc"
UPDATE = "update"
# What does not change which policy is learned from which data, up to chance.
NEUTRAL = ("seed", "run_dir", "resume", "log_every", "checkpoint_every")
NEUTRAL_SECTIONS = ("logger", "hardware", "evaluation")
ALPHA = "cql.alpha"


@dataclass(frozen=True, kw_only=True)
class Offline:
    """What the data alone say about a run's policies: all that a selection may see.

    validation: columns of validation.csv, empty without validation episodes. kept: the file of the
    policy in the run's folder, by updates. estimates: by updates, only of kept ones; behavior and
    best_return: the mean and the largest return of the logged episodes, discounted as they are.
    """

    validation: Curves
    kept: Mapping[int, str]
    estimates: Mapping[int, Estimate]
    behavior: Estimate | None
    best_return: float | None


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What the simulator said: columns of evaluation.csv, the last score; empty without one."""

    evaluation: Curves
    return_mean: float | None
    normalized_score: float | None
    behavior_return: float | None
    behavior_score: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. name: its folder as given; settings: the config as one flat mapping."""

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
        return str(self.settings["algorithm.name"])

    @property
    def alpha(self) -> float | None:
        """The weight of the gap; None for cloning, which has none."""
        return float(self.settings[ALPHA]) if self.algorithm == CQL else None

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def task(self) -> tuple[str, str]:
        """Environment and data: runs of one task can be compared."""
        return str(self.settings["env.name"]), self.sha256

    @property
    def task_name(self) -> str:
        return f"{self.settings['env.name']} · {self.dataset_id}"

    @property
    def finished(self) -> bool:
        return self.status == "finished"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A run folder that is not in the report, and why."""

    name: str
    reason: str


def matters(key: str) -> bool:
    """Whether a setting changes what is learned, beside the seed."""
    return key not in NEUTRAL and key.partition(".")[0] not in NEUTRAL_SECTIONS


def by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by environment and data set, in the order of their names, then by alpha and seed; data
    of one name that are not the same have the start of their sha256 in it."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (r.alpha is None, r.alpha or 0.0, r.seed, r.name)):
        found.setdefault(run.task, []).append(run)
    plain = [group[0].task_name for group in found.values()]
    names = {
        f"{group[0].task_name} {group[0].sha256[:8]}"
        if plain.count(group[0].task_name) > 1
        else group[0].task_name: group
        for group in found.values()
    }
    return dict(sorted(names.items()))


def grids(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of one task with an alpha, in groups that differ in alpha and seed only; by the
    settings that set a group apart, '' for the only one."""
    found: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        if run.alpha is not None:
            same = [(k, shown(v)) for k, v in run.settings.items() if matters(k) and k != ALPHA]
            found.setdefault(tuple(sorted(same)), []).append(run)
    shared = set.intersection(*map(set, found)) if found else set()
    return {
        " ".join(f"{key}={value}" for key, value in same if (key, value) not in shared): group
        for same, group in sorted(found.items())
    }


def differences(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """By run name: the settings that matter and are not the same in all runs of its task."""
    result: dict[str, dict[str, str]] = {}
    for group in by_task(runs).values():
        names = dict.fromkeys(key for run in group for key in run.settings if matters(key))
        for key in names:
            values = {run.name: shown(run.settings.get(key)) for run in group}
            if len(set(values.values())) > 1:
                for name, value in values.items():
                    result.setdefault(name, {})[key] = value
        for run in group:
            result.setdefault(run.name, {})
    return result


def methods(runs: Sequence[Run]) -> dict[str, str]:
    """By run name: the algorithm or its alpha, and the settings that are not the same in all runs
    of this algorithm and task."""
    found = {}
    for algorithm in {run.algorithm for run in runs}:
        group = [run for run in runs if run.algorithm == algorithm]
        own = differences(group)
        for run in group:
            parts = [algorithm if run.alpha is None else f"alpha={shown(run.alpha)}"]
            others = {key: value for key, value in own[run.name].items() if key != ALPHA}
            parts += [f"{key.rpartition('.')[2]}={value}" for key, value in others.items()]
            found[run.name] = " ".join(parts)
    return found


def mean_by_update(runs: Sequence[Offline], column: str) -> dict[int, float]:
    """A validation figure at each update that all of the runs have, its mean over them."""
    rows = [validation_rows(run, column) for run in runs]
    shared = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {k: float(np.mean([row[k] for row in rows])) for k in sorted(shared)}


def validation_rows(offline: Offline, column: str) -> dict[int, float]:
    """A validation figure by updates; {} when the run has none."""
    if column not in offline.validation:
        return {}
    updates = offline.validation[UPDATE].astype(int).tolist()
    return dict(zip(updates, offline.validation[column].tolist(), strict=True))


def true_returns(run: Run) -> dict[int, Array]:
    """The simulated episodes' returns by updates."""
    rows = run.simulated.evaluation
    if not rows:
        return {}
    return {int(k): rows["return"][rows[UPDATE] == k] for k in np.unique(rows[UPDATE])}


def shown(value: object) -> str:
    """A setting as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
