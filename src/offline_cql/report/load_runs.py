"""Run folders as plain values; a folder that cannot be read is listed with its reason.

A run that is in progress or was killed may end in half a row; that is not an error here.
"""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from offline_cql.audit.finding import Finding
from offline_cql.config.keys import leaves
from offline_cql.errors import ConfigError, DataError, UnreadableRunError
from offline_cql.io import read_bytes, read_config, read_json
from offline_cql.ope.actions import (
    ActionComparison,
    ActionShare,
    Comparison,
    ContinuousComparison,
    ContinuousRegion,
    DimensionComparison,
    Region,
    Spread,
)
from offline_cql.ope.estimate import Estimate
from offline_cql.render.command import command
from offline_cql.report.run import UPDATE, Curves, Offline, Run, Simulated, SkippedFolder
from offline_cql.runs.folder import (
    AUDIT,
    CONFIG,
    EVALUATION,
    METADATA,
    METRICS,
    OPE,
    RESULT,
    VALIDATION,
    kept_updates,
    package_words,
)

MARKER_FILES = (CONFIG, METADATA, RESULT, METRICS)
REQUIRED_SETTINGS = ("seed", "env.name", "algorithm", "cql.alpha")
REPORTED_STATUSES = ("finished", "diverged")
FQE, VALIDATION_FRACTION = "fqe", "dataset.validation_fraction"


@dataclass(frozen=True)
class LoadedRuns:
    """The runs that can be reported, and the folders that cannot."""

    runs: list[Run]
    left_out: list[SkippedFolder]


def load_runs(pattern: str) -> LoadedRuns:
    """Load every run folder below a folder, or below each folder that matches a pattern.

    A folder of exactly this name comes first: its name may look like a pattern. Raises ConfigError
    when there is no run folder.
    """
    matches = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern))
    roots = [Path(path) for path in matches]
    folders = [folder for root in roots for folder in run_folders(root)]
    if not folders:
        reason = "contains no run folder" if roots else "does not exist"
        raise ConfigError(f"runs={pattern} {reason}; train.py creates run folders in outputs/")
    runs, left_out = [], []
    for folder in dict.fromkeys(folders):
        try:
            runs.append(load_run(folder))
        except UnreadableRunError as error:
            left_out.append(SkippedFolder(name=str(folder), reason=str(error)))
    return LoadedRuns(runs, left_out)


def run_folders(root: Path) -> Iterator[Path]:
    """Yield the run folders at any depth, the root included; none is inside another."""
    for path, folders, files in os.walk(root):
        folders.sort()
        if set(MARKER_FILES) & set(files):
            folders.clear()
            yield Path(path)


def load_run(folder: Path) -> Run:
    """Load one run. Raises UnreadableRunError."""
    settings = _settings(folder / CONFIG)
    result = _result(folder)
    metadata, audit = _json(folder / METADATA), _json(folder / AUDIT, needed=False)
    try:
        return Run(
            name=str(folder),
            status=result["status"],
            updates=int(result["updates"]),
            settings=settings,
            dataset_id=metadata["dataset"]["id"],
            sha256=metadata["dataset"]["sha256"],
            findings=tuple(
                Finding(**{name: each[name] for name in ("level", "name", "message", "remedy")})
                for each in audit.get("findings", [])
            ),
            offline=_offline_results(folder, settings),
            simulated=Simulated(
                evaluation=_columns(folder / EVALUATION),
                return_mean=result["return_mean"],
                normalized_score=result["normalized_score"],
                behavior_return=result["behavior_return"],
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnreadableRunError(f"a value is missing or has the wrong type: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UnreadableRunError(f"{path.name} is missing")
    try:
        content = OmegaConf.to_container(read_config(path), resolve=False)
    except (DataError, OSError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    settings = dict(leaves(content))
    if missing := [key for key in REQUIRED_SETTINGS if settings.get(key) is None]:
        raise UnreadableRunError(f"{path.name} lacks {missing[0]}")
    return settings


def _result(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    if not path.exists():
        raise UnreadableRunError(f"{path.name} is missing: the run is in progress or was killed")
    result = _json(path)
    status = result.get("status")
    if status == "preempted":
        resume = command("train.py", ("resume", folder), *package_words(folder))
        raise UnreadableRunError(
            f"the run was preempted after {result.get('updates')} updates; continue it: {resume}"
        )
    if status not in REPORTED_STATUSES:
        raise UnreadableRunError(
            f"status {status}: {_line(result.get('error') or 'unknown reason')}"
        )
    return result


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise UnreadableRunError(f"{path.name} is missing") from error
    except (DataError, OSError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    return content


def _offline_results(folder: Path, settings: Mapping[str, Any]) -> Offline:
    written = _json(folder / OPE, needed=False)
    outdated = bool(written) and "validation_episodes" not in written
    ope = {} if outdated else written
    by_updates = {
        int(updates): _estimate(content)
        for updates, estimates in ope.get("checkpoints", {}).items()
        for content in estimates
        if content["method"] == FQE
    }
    behavior = ope["behavior"] if by_updates else None
    return Offline(
        validation=_columns(folder / VALIDATION),
        estimates={k: by_updates[k] for k in kept_updates(folder) if k in by_updates},
        actions={int(k): _comparison(each) for k, each in ope.get("actions", {}).items()},
        behavior=None if behavior is None else _estimate(behavior),
        best_return=ope.get("best_return"),
        validation_fraction=float(settings.get(VALIDATION_FRACTION) or 0.0),
        outdated=outdated,
    )


def _estimate(content: dict[str, Any]) -> Estimate:
    return Estimate(
        method=content["method"],
        assumptions=tuple(content["assumptions"]),
        extrapolated=float(content.get("extrapolated", 0.0)),
        **{name: float(content[name]) for name in ("value", "low", "high")},
    )


def _comparison(content: dict[str, Any]) -> Comparison:
    return _continuous(content) if "dimensions" in content else _discrete(content)


def _continuous(content: dict[str, Any]) -> ContinuousComparison:
    return ContinuousComparison(
        states=int(content["states"]),
        dimensions=[
            DimensionComparison(
                name=str(each["name"]),
                logged=_spread(each["logged"]),
                chosen=_spread(each["chosen"]),
                difference=float(each["difference"]),
            )
            for each in content["dimensions"]
        ],
        regions=[
            ContinuousRegion(
                conditions=[str(condition) for condition in each["conditions"]],
                dimension=str(each["dimension"]),
                **{name: float(each[name]) for name in ("share", "distance", "shift")},
            )
            for each in content["regions"]
        ],
    )


def _spread(content: dict[str, Any]) -> Spread:
    return Spread(**{name: float(content[name]) for name in ("mean", "std", "low", "high")})


def _discrete(content: dict[str, Any]) -> ActionComparison:
    numbers = ("logged", "chosen")
    return ActionComparison(
        states=int(content["states"]),
        agreement=float(content["agreement"]),
        actions=[
            ActionShare(name=str(each["name"]), **{name: float(each[name]) for name in numbers})
            for each in content["actions"]
        ],
        regions=[
            Region(
                conditions=[str(condition) for condition in each["conditions"]],
                logged=None if each["logged"] is None else str(each["logged"]),
                chosen=None if each["chosen"] is None else str(each["chosen"]),
                **{name: float(each[name]) for name in ("share", "agreement", "pair_share")},
            )
            for each in content["regions"]
        ],
    )


def _columns(path: Path) -> Curves:
    """Return the columns of a CSV file of numbers; {} when it does not exist."""
    if not path.exists():
        return {}
    try:
        lines = read_bytes(path).decode().splitlines()
        header, *rows = list(csv.reader(lines)) or [[]]
        if not header or header[0] != UPDATE:
            raise UnreadableRunError(f"{path.name} lacks the column {UPDATE}")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise UnreadableRunError(f"{path.name} is truncated in line {number}")
        values = np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
    except (ValueError, csv.Error, DataError, OSError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    return dict(zip(header, values.T, strict=True))


def _line(error: object) -> str:
    return " ".join(str(error).split())
