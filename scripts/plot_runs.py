"""Draw the README's pictures from run folders.

python scripts/plot_runs.py returns outputs/pendulum/*/*/* outputs/cartpole/*/*/* --to returns.png
python scripts/plot_runs.py values outputs/hopper/*/cql/* --to overestimation.png
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

from offline_cql.io import read_json
from offline_cql.runs.folder import EVALUATION, METRICS, RESULT

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from offline_cql.commands.load_run import load_config
from offline_cql.config import TrainConfig

Line = tuple[np.ndarray, np.ndarray]
COLORS = {"behavior cloning": "#355070", "no penalty (alpha 0)": "#c44536"}
CQL_COLORS = ["#0b6e4f", "#e09f3e", "#6d597a"]


def label(config: TrainConfig) -> str:
    """Return the name of a run in a legend."""
    if config.algorithm == "bc":
        return "behavior cloning"
    return f"CQL, alpha {config.cql.alpha:g}" if config.cql.alpha else "no penalty (alpha 0)"


def read(path: Path, column: str) -> Line | None:
    """Return updates and the mean of a column at each; None when the file has no such column."""
    values: dict[int, list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if column not in (rows.fieldnames or []):
            return None
        for row in rows:
            values[int(row["update"])].append(float(row[column]))
    updates = np.array(sorted(values))
    return updates, np.array([np.mean(values[u]) for u in updates])


def draw(axes: Any, runs: list[Path], file: str, column: str) -> None:
    """Draw the mean over seeds as a thick line and each seed as a thin one."""
    by_label: dict[str, list[Line]] = defaultdict(list)
    for run in runs:
        line = read(run / file, column)
        if line is not None:
            by_label[label(load_config(run))].append(line)
    colors = iter(CQL_COLORS)
    for name, lines in sorted(by_label.items()):
        color = COLORS.get(name) or next(colors)
        for updates, values in lines:
            axes.plot(updates, values, color=color, alpha=0.3, linewidth=1)
        mean = np.mean([values for _, values in lines], axis=0)
        axes.plot(lines[0][0], mean, color=color, linewidth=2, label=f"{name}, {len(lines)} seeds")
    axes.set_xlabel("update")


def behavior_return(run: Path) -> float:
    """Return the mean return of the data that a run was trained on."""
    return float(read_json(run / RESULT)["behavior_return"])


def draw_returns(axes: Any, runs: list[Path]) -> None:
    draw(axes, runs, EVALUATION, "return")
    axes.axhline(behavior_return(runs[0]), color="0.4", linestyle="--", label="behavior (data)")
    axes.set_ylabel("return")
    axes.legend(fontsize=8)


def returns(runs: list[Path]) -> Any:
    """Draw the policy's return over updates, one panel per environment."""
    by_env: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        by_env[load_config(run).env.name].append(run)
    figure, panels = plt.subplots(1, len(by_env), figsize=(5.2 * len(by_env), 3.6), squeeze=False)
    for axes, (env, env_runs) in zip(panels[0], sorted(by_env.items(), reverse=True), strict=True):
        draw_returns(axes, env_runs)
        axes.set_title(env)
    return figure


def values(runs: list[Path]) -> Any:
    """Draw the critics' values of the policy's actions beside the policy's return."""
    figure, (value_axes, return_axes) = plt.subplots(1, 2, figsize=(10.4, 3.6))
    draw(value_axes, runs, METRICS, "critic/q_policy")
    value_axes.set_yscale("symlog", linthresh=100)
    value_axes.set_title("estimated value: Q(s, π(s))")
    value_axes.legend(fontsize=8)
    draw_returns(return_axes, runs)
    return_axes.set_title("return per episode")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", choices=["returns", "values"])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--to", required=True, type=Path, help="the PNG to write")
    arguments = parser.parse_args()
    figure = {"returns": returns, "values": values}[arguments.picture](arguments.runs)
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(arguments.to, dpi=110)
    print(arguments.to)


if __name__ == "__main__":
    main()
