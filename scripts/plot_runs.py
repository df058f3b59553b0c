"""Draws the README's pictures from run folders of a grid; needs the `plots` extra.

python scripts/plot_runs.py returns outputs/grids/GRID docs/images/pendulum.png
python scripts/plot_runs.py values outputs/grids/GRID docs/images/overestimation.png
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from offline_cql import run_folder
from offline_cql.runner.grid import rows
from offline_cql.runner.ranks import load_config

Curves = dict[str, list[tuple[np.ndarray, np.ndarray]]]
COLOURS = ["#0b6e4f", "#c44536", "#355070", "#e09f3e"]


def label(config: Any) -> str:
    """What a run is called in a legend."""
    if config.algorithm.name == "bc":
        return "behaviour cloning"
    return f"CQL, alpha {config.cql.alpha:g}" if config.cql.alpha else "no penalty (alpha 0)"


def read(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and the mean of a column at each."""
    values: dict[int, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values[int(row["update"])].append(float(row[column]))
    updates = np.array(sorted(values))
    return updates, np.array([np.mean(values[u]) for u in updates])


def curves(jobs: list[dict[str, Any]], file: str, column: str) -> Curves:
    found: Curves = defaultdict(list)
    for job in jobs:
        if job["result"].get("status") == "finished":
            folder = Path(job["run"])
            path = folder / file
            with path.open() as handle:
                if column not in handle.readline().strip().split(","):
                    continue
            found[label(load_config(folder))].append(read(path, column))
    return found


def draw(axes: Any, found: Curves) -> None:
    """Mean over seeds as a line, each seed as a thin one."""
    for colour, (name, lines) in zip(COLOURS, sorted(found.items()), strict=False):
        for updates, values in lines:
            axes.plot(updates, values, color=colour, alpha=0.3, linewidth=1)
        mean = np.mean([values for _, values in lines], axis=0)
        axes.plot(
            lines[0][0], mean, color=colour, linewidth=2, label=f"{name} ({len(lines)} seeds)"
        )


def behaviour(jobs: list[dict[str, Any]]) -> float:
    return float(next(j["result"]["behaviour_return"] for j in jobs if j["result"]))


def returns(jobs: list[dict[str, Any]], target: Path) -> None:
    """Return of the policy over updates, one panel an environment."""
    by_env: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in jobs:
        if job["run"]:
            by_env[load_config(Path(job["run"])).env.name].append(job)
    figure, panels = plt.subplots(1, len(by_env), figsize=(5.2 * len(by_env), 3.6), squeeze=False)
    for axes, (env, own) in zip(panels[0], sorted(by_env.items()), strict=True):
        draw(axes, curves(own, run_folder.EVALUATION, "return"))
        axes.axhline(behaviour(own), color="0.4", linestyle="--", label="behaviour (data)")
        axes.set_title(env)
        axes.set_xlabel("update")
        axes.set_ylabel("return")
        axes.legend(fontsize=8)
    save(figure, target)


def values(jobs: list[dict[str, Any]], target: Path) -> None:
    """Q of the policy's actions against what any policy could be paid, and the returns."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 3.6))
    draw(left, curves(jobs, run_folder.METRICS, "critic/q_policy"))
    left.set_yscale("symlog", linthresh=100)
    left.set_title("what the critics believe: Q(s, π(s))")
    draw(right, curves(jobs, run_folder.EVALUATION, "return"))
    right.set_title("what the policy earns: return")
    right.axhline(behaviour(jobs), color="0.4", linestyle="--", label="behaviour (data)")
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.legend(fontsize=8)
    save(figure, target)


def save(figure: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", choices=["returns", "values"])
    parser.add_argument("grids", nargs="+", type=Path, help="outputs/grids/GRID …, then the PNG")
    arguments = parser.parse_args()
    *grids, target = arguments.grids
    jobs = [job for grid in grids for job in rows(grid)]
    {"returns": returns, "values": values}[arguments.picture](jobs, target)


if __name__ == "__main__":
    main()
