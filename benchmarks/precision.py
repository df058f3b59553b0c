"""Compare the results of runs in bf16 and in float32 with the same seeds.

    python train.py -m env=hopper cql=plain dataset.quality=medium-expert updates=20_000 \\
      hardware.precision=32,bf16 seed=0,1,2
    python benchmarks/precision.py 'RUNS' --plot docs/images/precision.png

Prints, for each curve, the distance between the precisions' means over the seeds as a share of the
spread of float32's seeds (largest minus smallest), over windows of updates; and the returns.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline_cql.render.table import Table, to_markdown
from offline_cql.report.load_runs import load_runs
from offline_cql.report.run import Run, simulated_returns
from offline_cql.runs.folder import METRICS

Curve = npt.NDArray[np.float64]  # one value per window
CURVES = {"Q of logged": "critic/q_logged", "gap": "critic/gap", "TD loss": "critic/td_loss"}
COLORS = {"32": "#2b4a6b", "bf16": "#d98200"}


def by_precision(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by precision and seed; raise SystemExit unless the seeds are the same."""
    groups: dict[str, list[Run]] = {"32": [], "bf16": []}
    for run in sorted(runs, key=lambda run: run.seed):
        groups[str(run.settings["hardware.precision"])].append(run)
    seeds = [[run.seed for run in group] for group in groups.values()]
    if seeds[0] != seeds[1] or len(seeds[0]) < 2:
        raise SystemExit(f"seeds of float32 {seeds[0]} and of bf16 {seeds[1]} must be the same")
    return groups


def windows(run: Run, window: int) -> dict[str, Curve]:
    """Return each curve's mean over each window of updates."""
    with (Path(run.name) / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    number = np.array([(int(row["update"]) - 1) // window for row in rows])
    return {
        name: np.bincount(number, [float(row[column]) for row in rows]) / np.bincount(number)
        for name, column in CURVES.items()
    }


def returns(run: Run) -> Curve:
    """Return the mean return of each evaluation."""
    return np.array([values.mean() for _, values in sorted(simulated_returns(run).items())])


def distance(curves: Mapping[str, Curve]) -> Curve:
    """Return |bf16's mean − float32's mean| / spread of float32; curves [seeds, windows]."""
    plain, rounded = curves["32"], curves["bf16"]
    return np.abs(rounded.mean(axis=0) - plain.mean(axis=0)) / np.ptp(plain, axis=0)


def curves_table(curves: Mapping[str, Mapping[str, Curve]]) -> Table:
    rows = []
    for name, by_precision in curves.items():
        share = distance(by_precision)
        inside = f"{(share <= 1).sum()} of {len(share)}"
        rows.append((name, f"{np.median(share):.2f}", f"{share.max():.2f}", inside))
    columns = ("curve", "median", "largest", "windows within the spread")
    return Table(title="Distance / spread of float32's seeds", columns=columns, rows=rows)


def returns_table(runs: Mapping[str, Sequence[Run]]) -> Table:
    updates = sorted(simulated_returns(runs["32"][0]))
    rows = [
        (str(run.seed), precision, *(f"{value:,.0f}" for value in returns(run)))
        for pair in zip(*runs.values(), strict=True)
        for precision, run in zip(runs, pair, strict=True)
    ]
    columns = ("seed", "precision", *(f"{count:,}" for count in updates))
    return Table(title="Mean return by updates", columns=columns, rows=rows)


def draw(curves: Mapping[str, Mapping[str, Curve]], window: int, path: Path) -> None:
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, by_precision) in zip(
        figure.subplots(1, len(curves)), curves.items(), strict=True
    ):
        for precision, seeds in by_precision.items():
            updates = window * np.arange(1, seeds.shape[1] + 1)
            label = "float32" if precision == "32" else precision
            for number, values in enumerate(seeds):
                shown = {"color": COLORS[precision], "lw": 1.2, "alpha": 0.8}
                axes.plot(updates, values, label=label if number == 0 else None, **shown)
        axes.set_title(name, fontsize=9)
        axes.grid(color="#e3e6ea")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("updates", fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", help="a folder of runs, or a pattern")
    parser.add_argument("--window", type=int, default=1000, help="updates")
    parser.add_argument("--plot", type=Path, help="a PNG of the curves")
    arguments = parser.parse_args()
    runs = by_precision(load_runs(arguments.runs).runs)
    means = {
        name: [windows(run, arguments.window) for run in group] for name, group in runs.items()
    }
    curves = {
        name: {
            precision: np.array([run[name] for run in group]) for precision, group in means.items()
        }
        for name in CURVES
    }
    print(to_markdown(curves_table(curves)))
    print(to_markdown(returns_table(runs)))
    if arguments.plot is not None:
        draw(curves, arguments.window, arguments.plot)


if __name__ == "__main__":
    main()
