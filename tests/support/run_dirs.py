"""Write run folders as train.py and evaluate.py do, with numbers that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

UPDATES = (100, 200)
BEHAVIOR = 50.0
# Columns of validation.csv of a healthy run, at both updates.
HEALTHY: dict[str, tuple[float, ...]] = {
    "validation/td_error": (2.0, 1.0),
    "validation/gap": (3.0, 2.0),
    "validation/q_logged": (40.0, 45.0),
    "validation/q_policy": (41.0, 46.0),
    "validation/log_likelihood": (-1.0, -1.0),
    "validation/action_distance": (0.2, 0.2),
    "validation/return_to_go": (48.0, 48.0),
    "validation/above_best_share": (0.0, 0.0),
}
BEHAVIOR_CLONING = ("validation/log_likelihood", "validation/action_distance")


def write_run(
    folder: Path,
    *,
    alpha: float = 5.0,
    seed: int = 0,
    algorithm: str = "cql",
    env: str = "cart",
    sha256: str = "a" * 64,
    bounds: Mapping[int, tuple[float, float]] | None = None,
    best_return: float | None = 100.0,
    validation: Mapping[str, tuple[float, ...]] | None = None,
    returns: Mapping[int, list[float]] | None = None,
    score: float | None = None,
    status: str = "finished",
    settings: Mapping[str, Any] | None = None,
    findings: tuple[dict[str, str], ...] = (),
    actions: Mapping[str, Any] | None = None,
) -> Path:
    """Write one run folder and return it.

    bounds: low and high of the estimate by updates; None: no ope.json. validation: columns that
    replace the healthy ones. returns: of simulated episodes, by updates. actions: comparison of
    discrete actions at every update, in ope.json.
    """
    folder.mkdir(parents=True)
    identifier = f"sim/{env}/mixed-v0"
    config = OmegaConf.create(
        {
            **{"seed": seed, "updates": UPDATES[-1], "run_dir": str(folder), "gamma": 0.99},
            "env": {"name": env, "id": "Cart-v0"},
            "dataset": {"id": identifier, "validation_fraction": 0.1, "split_seed": 0},
            **{"algorithm": algorithm, "cql": {"alpha": alpha}, "evaluation": {"every": 100}},
        }
    )
    for key, value in (settings or {}).items():
        OmegaConf.update(config, key, value)
    OmegaConf.save(config, folder / "config.yaml")
    _write_json(folder / "metadata.json", {"dataset": {"id": identifier, "sha256": sha256}})
    _write_json(folder / "audit.json", {"scores": {"normalized_score": 40.0}, "findings": findings})
    last = (returns or {}).get(UPDATES[-1])
    result = {
        **{"status": status, "updates": UPDATES[-1], "normalized_score": score},
        **{"return_mean": fmean(last) if last else None, "behavior_return": BEHAVIOR},
        "error": None if status == "finished" else f"{status} for a reason",
    }
    _write_json(folder / "result.json", result)
    columns = {**HEALTHY, **(validation or {})}
    if algorithm == "bc":
        columns = {name: columns[name] for name in BEHAVIOR_CLONING}
    _write_csv(folder / "validation.csv", {"update": UPDATES, **columns})
    if returns:
        rows = [
            (k, n, n, value, 10) for k, values in returns.items() for n, value in enumerate(values)
        ]
        names = ("update", "episode", "seed", "return", "length")
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        _write_csv(folder / "evaluation.csv", columns)
    (folder / "checkpoints").mkdir()
    for updates in UPDATES:
        (folder / "checkpoints" / f"{updates}.ckpt").touch()
    if bounds is not None:
        estimates = {
            str(k): [_estimate((low + high) / 2, low, high)] for k, (low, high) in bounds.items()
        }
        behavior = _estimate(BEHAVIOR, 45.0, 55.0)
        content = {"gamma": 0.99, "validation_episodes": 30}
        content |= {"behavior": behavior, "checkpoints": estimates}
        content["actions"] = {} if actions is None else dict.fromkeys(estimates, actions)
        if best_return is not None:
            content["best_return"] = best_return
        _write_json(folder / "ope.json", content)
    return folder


def write_grid(root: Path) -> Path:
    """Write runs of alphas 0, 5 and 20 and behavior cloning, two seeds each, with returns."""
    for seed in (0, 1):
        for alpha, low in ((0.0, 90.0), (5.0, 60.0), (20.0, 52.0)):
            small = alpha == 0
            write_run(
                root / f"alpha{alpha:g}-seed{seed}",
                alpha=alpha,
                seed=seed,
                bounds={k: (low + seed, low + seed + 8.0) for k in UPDATES},
                returns={k: [alpha + seed, alpha + k / 100] for k in UPDATES},
                score=10.0 * alpha + seed,
                validation={
                    "validation/above_best_share": (0.1, 0.9) if small else (0.0, 0.0),
                    "validation/action_distance": (0.1, 0.1) if alpha == 20 else (0.3, 0.4),
                    "validation/q_policy": (60.0, 9e4) if small else (41.0, 46.0),
                },
            )
        write_run(
            root / f"bc-seed{seed}",
            algorithm="bc",
            seed=seed,
            returns={k: [4.0, 5.0] for k in UPDATES},
            score=20.0,
            validation={"validation/action_distance": (0.1, 0.1)},
        )
    return root


def write_mixed(root: Path, *, seeds: int = 2) -> Path:
    """Write runs of ten kinds: tasks, algorithms, and settings with long names and values."""
    log = "/data/of/the/second/hospital/2026-11-01-export-of-every-decision.parquet"
    settings: tuple[dict[str, Any], ...] = (
        *({}, {"network.critic_norm": "layer"}, {"network.critic_norm": "none"}),
        *({"cql.bc_weight": 0.5}, {"cql.n_action_samples": 4, "batch_size": 1024}),
        *({"dataset.path": log}, {"cql.target_gap": 5.0}, {"alpha_schedule.kind": "linear"}),
    )
    kinds = [("cql", env, more) for env in ("hopper", "cheetah") for more in settings[:5]]
    kinds += [("bc", "hopper", {}), *(("cql", "walker", more) for more in settings[5:])]
    for number, (algorithm, env, more) in enumerate(kinds):
        for alpha in (0.5, 5.0) if algorithm == "cql" else (0.0,):
            for seed in range(seeds):
                low = 40.0 + 3 * seed + number
                write_run(
                    root / f"{number}-{alpha:g}-{seed}",
                    **{"alpha": alpha, "seed": seed, "algorithm": algorithm, "env": env},
                    sha256=env[0] * 64,
                    bounds={k: (low, low + 20.0) for k in UPDATES},
                    returns={k: [low, low + alpha] for k in UPDATES},
                    score=low,
                    settings=more,
                )
    return root


def _estimate(value: float, low: float, high: float) -> dict[str, Any]:
    assumed = ["the data cover the actions that the policy takes"]
    return {"method": "fqe", "value": value, "low": low, "high": high, "assumptions": assumed}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def _write_csv(path: Path, columns: Mapping[str, tuple[float, ...]]) -> None:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
