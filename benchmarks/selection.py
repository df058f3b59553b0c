"""How right is the choice of alpha and checkpoint? Chosen without a simulator, judged by one.

Reads the runs of the study (docs/selection.md has the commands), applies the rule to each data
set, and compares with what the policies earned. Prints Markdown tables; --plot draws them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline_cql.report.reading import read_runs
from offline_cql.report.record import Run, by_task
from offline_cql.report.selection import (
    Candidate,
    Limits,
    Selection,
    best_by_return,
    candidates,
    last_of_alpha,
    select,
)

LIMITS = Limits(above_best_share=0.05, cloning_margin=0.1)  # those of conf/report.yaml
BASELINE = 5.0  # alpha of "alpha 5, last checkpoint"
Policy = tuple[str, int]  # run folder and updates
SOFT = "#8a929b"


@dataclass(frozen=True)
class Task:
    """One data set: its runs, the true score of every kept policy, the score of the data."""

    name: str
    runs: Sequence[Run]
    scores: Mapping[Policy, float]
    behaviour: float

    @property
    def grid(self) -> tuple[Candidate, ...]:
        return candidates([run for run in self.runs if run.alpha is not None])

    def choose(self, grid: Sequence[Candidate]) -> Selection:
        cloning = [run.offline for run in self.runs if run.alpha is None]
        return select(grid, cloning, LIMITS)


def read_tasks(pattern: str) -> list[Task]:
    reading = read_runs(pattern)
    for left in reading.left_out:
        print(f"left out {left.name}: {left.reason}")
    return [_task(name, own) for name, own in by_task(reading.runs).items()]


def _task(name: str, runs: Sequence[Run]) -> Task:
    scores: dict[Policy, float] = {}
    for run in runs:
        curves = run.simulated.evaluation
        for updates in run.offline.kept:
            returns = curves["return"][curves["update"] == updates]
            scores[run.name, updates] = points(float(returns.mean()), run)
    behaviour = runs[0].simulated.behaviour_return
    assert behaviour is not None
    return Task(name.partition(" sim/")[0] or name, runs, scores, points(behaviour, runs[0]))


def points(value: float, run: Run) -> float:
    """A return in normalised points."""
    low, high = (float(run.settings[f"env.reference_{side}"]) for side in ("min", "max"))
    return 100.0 * (value - low) / (high - low)


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Correlation of ranks, equal values sharing their mean rank; nan where one is constant."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (left, right)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


@dataclass(frozen=True)
class Outcome:
    """One choice: among the runs of one grid. Scores in normalised points."""

    task: str
    chosen: str
    verdict: str
    score: float
    baseline: float
    best: float
    behaviour: float

    @property
    def regret(self) -> float:
        return self.best - self.score

    @property
    def regret_of_baseline(self) -> float:
        return self.best - self.baseline


def judge(task: Task, grid: Sequence[Candidate]) -> Outcome:
    """What the rule chose among these runs, beside the last checkpoints of alpha 5 and the best."""
    selection = task.choose(grid)
    names = {each.run for each in grid}
    own = {key: value for key, value in task.scores.items() if key[0] in names}
    baseline = fmean(own[key] for key in last_of_alpha(grid, BASELINE))
    policy = selection.policy
    # Where nothing is recommended, what is there now stays in use.
    score = task.behaviour if policy is None else own[policy.run, policy.updates]
    chosen = "none" if policy is None else f"{policy.alpha:g} at {policy.updates:,}"
    verdict = {None: "–", True: "ship", False: "do not ship"}[selection.ship]
    best = own[best_by_return(own)]
    return Outcome(task.name, chosen, verdict, score, baseline, best, task.behaviour)


def estimated(task: Task) -> list[tuple[float, float, float]]:
    """Lower bound, estimate and true score of every policy that has an estimate."""
    return [
        (estimate.low, estimate.value, task.scores[run.run, updates])
        for run in task.grid
        for updates, estimate in run.offline.estimates.items()
    ]


def row(*cells: object) -> str:
    words = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(words)} |"


def head(*names: str) -> None:
    print(row(*names))
    print(row(*["---", *["--:"] * (len(names) - 1)]))


def print_choices(title: str, outcomes: Sequence[Outcome]) -> None:
    print(f"\n{title}\n")
    names = ("data set", "data", "chosen: alpha, updates", "verdict", "chosen", "alpha 5, last")
    head(*names, "best", "regret", "regret of alpha 5, last")
    for each in outcomes:
        scores = (each.score, each.baseline, each.best, each.regret, each.regret_of_baseline)
        print(row(each.task, each.behaviour, each.chosen, each.verdict, *scores))
    means = [fmean(getattr(each, name) for each in outcomes) for name in SCORES]
    print(row("mean", means[0], "", "", *means[1:]))


SCORES = ("behaviour", "score", "baseline", "best", "regret", "regret_of_baseline")


def print_ranks(found: Sequence[Task]) -> None:
    print("\nRank correlation (Spearman) of the estimates with the true return\n")
    head("data set", "policies", "estimate", "lower bound", "not struck out", "estimate of these")
    for task in found:
        every = estimated(task)
        pairs = task.choose(task.grid).pairs
        left = [
            (policy.estimate.value, task.scores[policy.run, policy.updates])
            for pair in pairs
            if pair.eligible
            for policy in pair.policies
        ]
        low, value, true = (list(column) for column in zip(*every, strict=True))
        figures = (spearman(value, true), spearman(low, true))
        of_left = spearman(*map(list, zip(*left, strict=True))) if left else float("nan")
        print(
            row(task.name, len(every), *(f"{f:.2f}" for f in figures), len(left), f"{of_left:.2f}")
        )


def print_verdicts(outcomes: Sequence[Outcome]) -> None:
    """How often `ship` met a policy better than the data's, and `do not ship` a worse one."""
    print("\nVerdicts, one seed each: what the chosen policy earned beside the data's\n")
    head("verdict", "better than the data", "not better")
    for verdict in ("ship", "do not ship"):
        own = [each for each in outcomes if each.verdict == verdict]
        better = sum(each.score > each.behaviour for each in own)
        print(row(verdict, better, len(own) - better))


def draw(found: Sequence[Task], path: Path) -> None:
    """Lower bound against true score, a panel a data set; what was struck out is left out."""
    columns = 3
    figure = Figure(figsize=(10, 3.2 * -(-len(found) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(-(-len(found) // columns), columns, squeeze=False).ravel()
    for axes, task in zip(panels, found, strict=False):
        selection = task.choose(task.grid)
        alphas = sorted({pair.alpha for pair in selection.pairs})
        for pair in selection.pairs:
            if not pair.eligible:
                continue
            x = [policy.estimate.low for policy in pair.policies]
            y = [task.scores[policy.run, policy.updates] for policy in pair.policies]
            color = COLORS[alphas.index(pair.alpha) % len(COLORS)]
            last = pair.updates == max(p.updates for p in selection.pairs)
            label = f"alpha {pair.alpha:g}" if last else None
            axes.plot(x, y, ".", color=color, markersize=6, label=label)
        if selection.policy is not None:
            chosen = selection.policy
            y = [task.scores[chosen.run, chosen.updates]]
            axes.plot([chosen.estimate.low], y, "*", color="black", markersize=13, label="chosen")
        axes.axhline(task.behaviour, color=SOFT, linestyle="--", linewidth=1)
        if selection.behaviour is not None:
            axes.axvline(selection.behaviour.value, color=SOFT, linestyle="--", linewidth=1)
        axes.set_title(task.name, fontsize=10)
        axes.set_xlabel("lower bound (discounted return)", fontsize=8)
        axes.set_ylabel("true score", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=6, frameon=False)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=110)


COLORS = ("#b03a2e", "#d98200", "#3d7a4b", "#2b4a6b", "#8e6bbf", "#6b6f76")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", help="a folder with run folders in it, or a pattern in quotes")
    parser.add_argument("--plot", type=Path, help="a PNG of lower bounds against true scores")
    arguments = parser.parse_args()
    found = read_tasks(arguments.runs)
    together = [judge(task, task.grid) for task in found]
    alone = [
        judge(task, [run for run in task.grid if run.seed == seed])
        for task in found
        for seed in sorted({run.seed for run in task.grid})
    ]
    print_choices("One choice a data set, among all seeds", together)
    print_choices("One choice a data set and seed", alone)
    print_verdicts(alone)
    print_ranks(found)
    if arguments.plot is not None:
        draw(found, arguments.plot)


if __name__ == "__main__":
    main()
