"""Run folders as plain records; a folder that cannot be read is named with its reason.

A run that is going on, or was killed, may have half a row anywhere; nothing here raises for it.
"""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from offline_cql.audit.finding import Finding
from offline_cql.config.limits import shown
from offline_cql.errors import ConfigError, UnreadableRunError
from offline_cql.io import read_json
from offline_cql.ope.estimate import Estimate
from offline_cql.report.run import (
    UPDATE,
    Curves,
    Offline,
    Run,
    Simulated,
    SkippedFolder,
)
from offline_cql.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    EVALUATION,
    METADATA,
    METRICS,
    OPE,
    RESULT,
    VALIDATION,
)

AUDIT = "audit.json"
MARKS = (CONFIG, METADATA, RESULT, METRICS)
NEEDED = ("seed", "env.name", "algorithm.name", "cql.alpha")
USED = ("finished", "diverged")
FQE = "fqe"
LAST = f"{CHECKPOINTS}/last.ckpt"


@dataclass(frozen=True)
class LoadedRuns:
    """The runs that can be reported, by folder, and the others."""

    runs: list[Run]
    left_out: list[SkippedFolder]


def load_runs(pattern: str) -> LoadedRuns:
    """Every run folder under a folder, or under each that matches a pattern.

    Raises ConfigError when there is none at all.
    """
    roots = [Path(found) for found in sorted(glob.glob(pattern))]
    folders = [folder for root in roots for folder in run_folders(root)]
    if not folders:
        reason = "holds no run folder" if roots else "does not exist"
        raise ConfigError(f"runs={shown(pattern)} {reason}; train.py makes some, in outputs/")
    runs, left_out = [], []
    for folder in dict.fromkeys(folders):
        try:
            runs.append(load_run(folder))
        except UnreadableRunError as reason:
            left_out.append(SkippedFolder(name=str(folder), reason=str(reason)))
    return LoadedRuns(runs, left_out)


def run_folders(root: Path) -> Iterator[Path]:
    """The root or what is in it at any depth; nothing inside a run folder is one."""
    for place, folders, files in os.walk(root):
        folders.sort()
        if set(MARKS) & set(files):
            folders.clear()
            yield Path(place)


def load_run(folder: Path) -> Run:
    """One run. Raises UnreadableRunError."""
    settings = _settings(folder / CONFIG)
    result = _result(folder)
    record, audit = _json(folder / METADATA), _json(folder / AUDIT, needed=False)
    try:
        return Run(
            name=str(folder),
            status=result["status"],
            updates=int(result["updates"]),
            settings=settings,
            dataset_id=record["dataset"]["id"],
            sha256=record["dataset"]["sha256"],
            findings=tuple(
                Finding(**{name: each[name] for name in ("level", "name", "message", "remedy")})
                for each in audit.get("findings", [])
            ),
            offline=_offline(folder, int(result["updates"])),
            simulated=_simulated(folder, result, audit),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableRunError(f"a value is missing or of the wrong kind: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UnreadableRunError(f"no {path.name}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    settings = dict(_flat(content))
    if missing := [key for key in NEEDED if settings.get(key) is None]:
        raise UnreadableRunError(f"{path.name} has no {missing[0]}")
    return settings


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, dict) or not content:
        yield prefix, content
        return
    for key, value in content.items():
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _result(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    if not path.exists():
        raise UnreadableRunError(f"no {path.name}: the run is going on, or was killed")
    result = _json(path)
    status = result.get("status")
    if status == "preempted":
        again = f"python train.py resume={folder}"
        raise UnreadableRunError(f"status preempted after {result.get('updates')} updates; {again}")
    if status not in USED:
        raise UnreadableRunError(
            f"status {status}: {_line(result.get('error') or 'no reason was kept')}"
        )
    return result


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise UnreadableRunError(f"no {path.name}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    if not isinstance(content, dict):
        raise UnreadableRunError(f"{path.name} is no mapping")
    return content


def _offline(folder: Path, updates: int) -> Offline:
    kept = _kept(folder, updates)
    ope = _json(folder / OPE, needed=False)
    by_updates = {
        int(number): _estimate(each)
        for number, each_of in ope.get("checkpoints", {}).items()
        for each in each_of
        if each["method"] == FQE
    }
    behavior = ope["behavior"] if by_updates else None
    return Offline(
        validation=_columns(folder / VALIDATION),
        kept=kept,
        estimates={k: by_updates[k] for k in kept if k in by_updates},
        behavior=None if behavior is None else _estimate(behavior),
        best_return=ope.get("best_return"),
    )


def _kept(folder: Path, updates: int) -> dict[int, str]:
    """Files of policies by updates; the last one is that of the whole run."""
    found = {updates: LAST} if (folder / LAST).exists() else {}
    for path in (folder / CHECKPOINTS).glob("*.ckpt"):
        if path.stem.isdecimal():
            found[int(path.stem)] = str(path.relative_to(folder))
    return dict(sorted(found.items()))


def _estimate(content: dict[str, Any]) -> Estimate:
    return Estimate(
        method=content["method"],
        assumptions=tuple(content["assumptions"]),
        **{name: float(content[name]) for name in ("value", "low", "high")},
    )


def _simulated(folder: Path, result: dict[str, Any], audit: dict[str, Any]) -> Simulated:
    return Simulated(
        evaluation=_columns(folder / EVALUATION),
        return_mean=result["return_mean"],
        normalized_score=result["normalized_score"],
        behavior_return=result["behavior_return"],
        behavior_score=audit.get("scores", {}).get("normalized_score"),
    )


def _columns(path: Path) -> Curves:
    """A CSV file of numbers by column; {} when it does not exist."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        if not head or head[0] != UPDATE:
            raise UnreadableRunError(f"{path.name} has no column {UPDATE}")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(head):
                raise UnreadableRunError(f"{path.name} is cut off in line {number}")
        values = np.array(rows, dtype=np.float64).reshape(len(rows), len(head))
    except (ValueError, csv.Error, OSError) as error:
        raise UnreadableRunError(f"{path.name} cannot be read: {_line(error)}") from error
    return dict(zip(head, values.T, strict=True))


def _line(error: object) -> str:
    return " ".join(str(error).split())
