"""Compare the report's choice of alpha and checkpoint with simulator returns, which it ignores.

Reads the runs of docs/studies/2026-11-21-choice-of-alpha.md, applies the rule of docs/selection.md
to each data set and compares the choice with the returns of the policies. Prints Markdown tables;
--plot draws them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from offline_cql.commands.load_run import load_config
from offline_cql.render.table import Table, to_markdown
from offline_cql.report.load_runs import load_runs
from offline_cql.report.model_selection import (
    Candidate,
    GridRun,
    Limits,
    Selection,
    best_point,
    by_alpha,
    grid_runs,
    select,
)
from offline_cql.report.run import Run, by_task, mean_by_update, simulated_returns
from offline_cql.runs.folder import kept_updates
from offline_cql.simulation.evaluation import normalized_score

CONF = OmegaConf.load(Path(__file__).parent.parent / "conf" / "report.yaml")
LIMITS = Limits(above_best_share=CONF.above_best_share, bc_margin=CONF.bc_margin)
BASELINE = 5.0  # alpha of "alpha 5, last checkpoint"
Kept = tuple[str, int]  # run folder and updates
SOFT = "#8a929b"


@dataclass(frozen=True)
class Task:
    """The runs on one data set, the true score of every kept policy, and the score of the data."""

    name: str
    runs: Sequence[Run]
    scores: Mapping[Kept, float]
    behavior: float

    @property
    def grid(self) -> tuple[GridRun, ...]:
        return grid_runs(self.runs)

    def scores_of(self, grid: Sequence[GridRun]) -> dict[Kept, float]:
        names = {run.name for run in grid}
        return {kept: score for kept, score in self.scores.items() if kept[0] in names}

    def choose(self, grid: Sequence[GridRun]) -> Selection:
        cloning = [run.offline for run in self.runs if run.alpha is None]
        return select(grid, cloning, LIMITS)


def read_tasks(pattern: str) -> list[Task]:
    loaded = load_runs(pattern)
    for skipped in loaded.left_out:
        print(f"skipped {skipped.name}: {skipped.reason}")
    return [_task(runs) for runs in by_task(loaded.runs).values()]


def _task(runs: Sequence[Run]) -> Task:
    env = load_config(Path(runs[0].name)).env

    def points(value: float) -> float:
        score = normalized_score(value, env)
        assert score is not None
        return score

    scores = {
        (run.name, updates): points(float(returns.mean()))
        for run in runs
        for updates, returns in simulated_returns(run).items()
        if updates in kept_updates(Path(run.name))
    }
    behavior = runs[0].simulated.behavior_return
    assert behavior is not None
    short = runs[0].dataset_id.removeprefix("sim/").removesuffix("-v0")
    return Task(short, runs, scores, points(behavior))


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; nan if one side is constant."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (x, y)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[index]


@dataclass(frozen=True)
class Outcome:
    """One choice among the runs of one grid. Scores in normalized points."""

    task: str
    chosen: str
    verdict: str
    score: float
    baseline: float
    best: float
    behavior: float

    @property
    def regret(self) -> float:
        return self.best - self.score

    @property
    def regret_acted(self) -> float:
        """The regret with the behavior policy in use where the verdict is not `ship`."""
        return self.best - (self.score if self.verdict == "ship" else self.behavior)

    @property
    def regret_of_baseline(self) -> float:
        return self.best - self.baseline


def judge(task: Task, grid: Sequence[GridRun]) -> Outcome:
    """Compare the rule's choice among these runs with alpha 5's last checkpoints and the best."""
    selection = task.choose(grid)
    scores = task.scores_of(grid)
    baseline = fmean(
        scores[run.name, max(kept_updates(Path(run.name)))]
        for run in grid
        if run.alpha == BASELINE and kept_updates(Path(run.name))
    )
    policy = selection.chosen
    # Where nothing is recommended, the behavior policy stays in use.
    score = task.behavior if policy is None else scores[policy.run, policy.updates]
    chosen = "none" if policy is None else f"{policy.alpha:g} at {policy.updates:,}"
    verdict = {None: "–", True: "ship", False: "do not ship"}[selection.ship]
    best = max(scores.values())
    return Outcome(task.name, chosen, verdict, score, baseline, best, task.behavior)


def estimates(policies: Iterable[Candidate], task: Task) -> list[tuple[float, float, float]]:
    """Return (lower bound, estimate, true score) of each policy; shared policies count once."""
    rows = [(p.estimate.low, p.estimate.value, task.scores[p.run, p.updates]) for p in policies]
    return list(dict.fromkeys(rows))


# Columns of an outcome's scores, in normalized points.
SCORES = {
    "data": "behavior",
    "chosen": "score",
    "alpha 5, last": "baseline",
    "best": "best",
    "regret": "regret",
    "of alpha 5, last": "regret_of_baseline",
    "as acted on": "regret_acted",
}


def choices(title: str, outcomes: Sequence[Outcome]) -> Table:
    """Return one row per choice and their mean."""
    scores = [[getattr(outcome, name) for name in SCORES.values()] for outcome in outcomes]
    labels = [(outcome.task, outcome.chosen, outcome.verdict) for outcome in outcomes]
    labels.append(("mean", "", ""))
    scores.append([fmean(column) for column in zip(*scores, strict=True)])
    lines = zip(labels, scores, strict=True)
    rows = [(*label, *(f"{score:.1f}" for score in values)) for label, values in lines]
    columns = ("data set", "alpha, updates", "verdict", *SCORES)
    return Table(title=title, columns=columns, rows=rows, align="lllr")


def ranks(tasks: Sequence[Task]) -> Table:
    """Return the rank correlations of estimate and lower bound with the true return, per task."""
    rows = []
    for task in tasks:
        points = task.choose(task.grid).points
        every = estimates((p for point in points for p in point.candidates), task)
        eligible = (p for point in points if point.eligible for p in point.candidates)
        row = [task.name]
        for policies in (every, estimates(eligible, task)):
            row += [str(len(policies)), *_correlations(policies)]
        rows.append(tuple(row))
    columns = ("policies", "estimate", "lower bound", "not rejected", "estimate", "bound")
    title = "Rank correlation (Spearman) with the true return"
    return Table(title=title, columns=("data set", *columns), rows=rows)


def _correlations(policies: Sequence[tuple[float, float, float]]) -> list[str]:
    """Return the rank correlation of the estimate and that of its lower bound."""
    low, value, true = (list(column) for column in zip(*policies, strict=True))
    return [f"{spearman(column, true):.2f}" for column in (value, low)]


def verdicts(outcomes: Sequence[Outcome]) -> Table:
    """Count the policies that were better than the data's, per verdict."""
    rows = []
    for verdict in ("ship", "do not ship"):
        better = [o.score > o.behavior for o in outcomes if o.verdict == verdict]
        rows.append((verdict, str(sum(better)), str(len(better) - sum(better))))
    columns = ("verdict", "better than the data", "not better")
    return Table(title="What the chosen policy earned, one seed", columns=columns, rows=rows)


# Other rules would trust no checkpoint after a turning point: of which metric, at which extreme.
STOPPING_RULES: dict[str, tuple[str, Callable[..., int]]] = {
    "not after the least validation TD error": ("validation/td_error", min),
    "not after the largest validation Q": ("validation/q_logged", max),
}


def regret_before(rule_name: str, task: Task, grid: Sequence[GridRun]) -> float:
    """Return the regret of the best bound among checkpoints up to their alpha's turning point."""
    column, extreme = STOPPING_RULES[rule_name]
    last_updates = {}
    for alpha, runs in by_alpha(grid).items():
        means = mean_by_update([run.offline for run in runs], column)
        last_updates[alpha] = extreme(means, key=means.__getitem__)
    point = best_point([p for p in task.choose(grid).points if p.updates <= last_updates[p.alpha]])
    scores = task.scores_of(grid)
    if point is None:
        return max(scores.values()) - task.behavior
    return max(scores.values()) - scores[point.best.run, point.updates]


def turning_points(
    tasks: Sequence[Task], alone: Sequence[Outcome], together: Sequence[Outcome]
) -> Table:
    """Return the regret of the rule and of those that trust no checkpoint after a turning point."""
    regrets = {"the rule": [fmean(o.regret for o in outcomes) for outcomes in (alone, together)]}
    for rule_name in STOPPING_RULES:
        single = [regret_before(rule_name, task, grid) for task in tasks for grid in by_seed(task)]
        every = [regret_before(rule_name, task, task.grid) for task in tasks]
        regrets[rule_name] = [fmean(single), fmean(every)]
    rows = [(name, *(f"{value:.1f}" for value in values)) for name, values in regrets.items()]
    title = "Regret where checkpoints after a turning point are left out"
    return Table(title=title, columns=("checkpoints", "one seed", "all seeds"), rows=rows)


def by_seed(task: Task) -> list[list[GridRun]]:
    seeds = sorted({run.seed for run in task.grid})
    return [[run for run in task.grid if run.seed == seed] for seed in seeds]


def draw(tasks: Sequence[Task], path: Path) -> None:
    """Draw lower bound against true score, one panel per data set."""
    columns = 3
    n_rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(10, 3.2 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, task)
    panels[0].legend(fontsize=7, frameon=False)
    for axes in panels[len(tasks) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=110)


def _panel(axes: Any, task: Task) -> None:
    """Draw one data set: rejected points as circles, bounds far below the data at the left edge."""
    selection = task.choose(task.grid)
    offline = task.grid[0].offline
    assert offline.behavior is not None
    assert offline.best_return is not None
    data_value, best_return = offline.behavior.value, offline.best_return
    x_min = data_value - max(2 * (best_return - data_value), abs(data_value))
    alphas = sorted({point.alpha for point in selection.points})
    labeled = set()
    for point in selection.points:
        color = COLORS[alphas.index(point.alpha) % len(COLORS)]
        x = np.clip([policy.estimate.low for policy in point.candidates], x_min, best_return)
        y = [task.scores[policy.run, policy.updates] for policy in point.candidates]
        label = None if point.alpha in labeled else f"alpha {point.alpha:g}"
        labeled.add(point.alpha)
        face = color if point.eligible else "none"
        axes.plot(x, y, "o", color=color, mfc=face, markersize=4, label=label)
    if (chosen := selection.chosen) is not None:
        y = [task.scores[chosen.run, chosen.updates]]
        axes.plot([chosen.estimate.low], y, "*", color="black", markersize=12, label="chosen")
    axes.axhline(task.behavior, color=SOFT, linestyle="--", linewidth=1)
    axes.axvline(data_value, color=SOFT, linestyle="--", linewidth=1)
    axes.set_title(task.name, fontsize=10)
    axes.set_xlabel("lower bound (discounted return)", fontsize=8)
    axes.set_ylabel("true score", fontsize=8)
    axes.tick_params(labelsize=8)


COLORS = ("#b03a2e", "#d98200", "#3d7a4b", "#2b4a6b", "#8e6bbf", "#6b6f76")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", help="a folder with run folders in it, or a pattern in quotes")
    parser.add_argument("--plot", type=Path, help="a PNG of lower bounds against true scores")
    arguments = parser.parse_args()
    tasks = read_tasks(arguments.runs)
    together = [judge(task, task.grid) for task in tasks]
    alone = [judge(task, grid) for task in tasks for grid in by_seed(task)]
    for table in (
        choices("One choice per data set, among all seeds", together),
        choices("One choice per data set and seed", alone),
        verdicts(alone),
        ranks(tasks),
        turning_points(tasks, alone, together),
    ):
        print(to_markdown(table))
    if arguments.plot is not None:
        draw(tasks, arguments.plot)


if __name__ == "__main__":
    main()
