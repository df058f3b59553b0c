"""Does bf16 learn what float32 learns? Runs of both precisions, the same seeds, side by side.

    python train.py -m env=hopper dataset.quality=medium-expert updates=20_000 \\
      hardware.precision=32,bf16 seed=0,1,2
    python benchmarks/precision.py 'RUNS' --plot docs/images/precision.png

Prints, for each curve, how far the precisions' means over the seeds lie apart, as a share of the
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
from offline_cql.report.load_runs import read_runs
from offline_cql.report.run import Run, true_returns
from offline_cql.runs.folder import METRICS

Curve = npt.NDArray[np.float64]  # a number a window
CURVES = {"Q of logged": "critic/q_logged", "gap": "critic/gap", "TD loss": "critic/td_loss"}
COLORS = {"32": "#2b4a6b", "bf16": "#d98200"}


def by_precision(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs in order of seed; SystemExit unless both precisions have the same seeds."""
    found: dict[str, list[Run]] = {"32": [], "bf16": []}
    for run in sorted(runs, key=lambda run: run.seed):
        found[str(run.settings["hardware.precision"])].append(run)
    seeds = [[run.seed for run in own] for own in found.values()]
    if seeds[0] != seeds[1] or len(seeds[0]) < 2:
        raise SystemExit(f"seeds of float32 {seeds[0]}, of bf16 {seeds[1]}: the same are needed")
    return found


def windows(run: Run, window: int) -> dict[str, Curve]:
    """Means of each metric over each window of updates."""
    with (Path(run.name) / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    number = np.array([(int(row["update"]) - 1) // window for row in rows])
    return {
        name: np.bincount(number, [float(row[column]) for row in rows]) / np.bincount(number)
        for name, column in CURVES.items()
    }


def returns(run: Run) -> Curve:
    """Mean return of each evaluation."""
    return np.array([values.mean() for _, values in sorted(true_returns(run).items())])


def apart(curves: Mapping[str, Curve]) -> Curve:
    """|mean of bf16 − mean of float32| / spread of float32's seeds; curves [seeds, windows]."""
    plain, rounded = curves["32"], curves["bf16"]
    return np.abs(rounded.mean(axis=0) - plain.mean(axis=0)) / np.ptp(plain, axis=0)


def curves_table(curves: Mapping[str, Mapping[str, Curve]]) -> Table:
    rows = []
    for name, found in curves.items():
        share = apart(found)
        inside = f"{(share <= 1).sum()} of {len(share)}"
        rows.append((name, f"{np.median(share):.2f}", f"{share.max():.2f}", inside))
    columns = ("curve", "median", "largest", "windows within the spread")
    return Table(title="Distance / spread of float32's seeds", columns=columns, rows=rows)


def returns_table(runs: Mapping[str, Sequence[Run]]) -> Table:
    updates = sorted(true_returns(runs["32"][0]))
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
    for axes, (name, found) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for precision, seeds in found.items():
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
    runs = by_precision(read_runs(arguments.runs).runs)
    means = {name: [windows(run, arguments.window) for run in own] for name, own in runs.items()}
    curves = {
        name: {precision: np.array([run[name] for run in own]) for precision, own in means.items()}
        for name in CURVES
    }
    print(to_markdown(curves_table(curves)))
    print(to_markdown(returns_table(runs)))
    if arguments.plot is not None:
        draw(curves, arguments.window, arguments.plot)


if __name__ == "__main__":
    main()
