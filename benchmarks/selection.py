"""How right is the choice of alpha and checkpoint? Chosen without a simulator, judged by one.

Reads the runs of the study (docs/selection.md has the commands), applies the rule to each data
set, and compares with what the policies earned. Prints Markdown tables; --plot draws them.
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

from offline_cql.report.reading import read_runs
from offline_cql.report.record import Run, by_task, mean_by_update
from offline_cql.report.selection import (
    Candidate,
    Limits,
    Policy,
    Selection,
    best_by_return,
    candidates,
    last_of_alpha,
    select,
)

LIMITS = Limits(above_best_share=0.05, cloning_margin=0.1)  # those of conf/report.yaml
BASELINE = 5.0  # alpha of "alpha 5, last checkpoint"
Kept = tuple[str, int]  # run folder and updates
SOFT = "#8a929b"


@dataclass(frozen=True)
class Task:
    """One data set: its runs, the true score of every kept policy, the score of the data."""

    name: str
    runs: Sequence[Run]
    scores: Mapping[Kept, float]
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
    return [_task(own) for own in by_task(reading.runs).values()]


def _task(runs: Sequence[Run]) -> Task:
    scores: dict[Kept, float] = {}
    for run in runs:
        curves = run.simulated.evaluation
        for updates in run.offline.kept:
            returns = curves["return"][curves["update"] == updates]
            scores[run.name, updates] = points(float(returns.mean()), run)
    behaviour = runs[0].simulated.behaviour_return
    assert behaviour is not None
    short = runs[0].dataset_id.removeprefix("sim/").removesuffix("-v0")
    return Task(short, runs, scores, points(behaviour, runs[0]))


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
    def acted(self) -> float:
        """What is in use afterwards: the data's policy where the verdict is not `ship`."""
        return self.score if self.verdict == "ship" else self.behaviour

    @property
    def regret(self) -> float:
        return self.best - self.score

    @property
    def regret_acted(self) -> float:
        return self.best - self.acted

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


def estimated(policies: Iterable[Policy], task: Task) -> list[tuple[float, float, float]]:
    """Lower bound, estimate and true score of each policy; one that alphas share counts once."""
    found = [(p.estimate.low, p.estimate.value, task.scores[p.run, p.updates]) for p in policies]
    return list(dict.fromkeys(found))


def row(*cells: object) -> str:
    words = (f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(words)} |"


def head(*names: str) -> None:
    print(row(*names))
    print(row(*["---", *["--:"] * (len(names) - 1)]))


# Columns of an outcome's scores, in normalised points.
SCORES = {
    "chosen": "score",
    "alpha 5, last": "baseline",
    "best": "best",
    "regret": "regret",
    "of alpha 5, last": "regret_of_baseline",
    "as acted on": "regret_acted",
}


def print_choices(title: str, outcomes: Sequence[Outcome]) -> None:
    print(f"\n{title}\n")
    head("data set", "data", "alpha, updates", "verdict", *SCORES)
    for each in outcomes:
        scores = (float(getattr(each, name)) for name in SCORES.values())
        print(row(each.task, each.behaviour, each.chosen, each.verdict, *scores))
    means = (fmean(getattr(each, name) for each in outcomes) for name in SCORES.values())
    print(row("mean", fmean(each.behaviour for each in outcomes), "", "", *means))


def print_ranks(found: Sequence[Task]) -> None:
    print("\nRank correlation (Spearman) with the true return\n")
    head("data set", "policies", "estimate", "lower bound", "not struck out", "estimate", "bound")
    for task in found:
        pairs = task.choose(task.grid).pairs
        every = estimated((p for pair in pairs for p in pair.policies), task)
        left = estimated((p for pair in pairs if pair.eligible for p in pair.policies), task)
        print(row(task.name, len(every), *_ranked(every), len(left), *_ranked(left)))


def _ranked(policies: Sequence[tuple[float, float, float]]) -> list[str]:
    """Of the estimate and of its lower bound."""
    low, value, true = (list(column) for column in zip(*policies, strict=True))
    return [f"{spearman(each, true):.2f}" for each in (value, low)]


def print_verdicts(outcomes: Sequence[Outcome]) -> None:
    """How often `ship` met a policy better than the data's, and `do not ship` a worse one."""
    print("\nVerdicts, one seed each: what the chosen policy earned beside the data's\n")
    head("verdict", "better than the data", "not better")
    for verdict in ("ship", "do not ship"):
        own = [each for each in outcomes if each.verdict == verdict]
        better = sum(each.score > each.behaviour for each in own)
        print(row(verdict, better, len(own) - better))


# Checkpoints of an alpha that other rules would leave: a held-out figure, and which of its values
# is the last to be trusted.
OTHER_RULES: dict[str, tuple[str, Callable[..., int]] | None] = {
    "the rule": None,
    "not after the least held-out TD error": ("held_out/td_error", min),
    "not after the largest held-out Q": ("held_out/q_logged", max),
}


def regret_under(rule: str, task: Task, grid: Sequence[Candidate]) -> float:
    """Regret of the largest bound among the checkpoints that a rule leaves."""
    left = [pair for pair in task.choose(grid).pairs if pair.eligible]
    if (other := OTHER_RULES[rule]) is not None:
        column, which = other
        turns = {}
        for alpha in {pair.alpha for pair in left}:
            own = [run.offline for run in grid if run.alpha == alpha]
            figures = mean_by_update(own, column)
            turns[alpha] = which(figures, key=figures.__getitem__)
        left = [pair for pair in left if pair.updates <= turns[pair.alpha]]
    scores = {key: value for key, value in task.scores.items() if key[0] in {r.run for r in grid}}
    if not left:
        return max(scores.values()) - task.behaviour
    best = max(left, key=lambda pair: (pair.low, pair.alpha, -pair.updates))
    policy = max(best.policies, key=lambda policy: policy.estimate.low)
    return max(scores.values()) - scores[policy.run, policy.updates]


def print_rules(found: Sequence[Task]) -> None:
    print("\nRegret where checkpoints after a turning point are left out, too\n")
    head("checkpoints", "one seed", "all seeds")
    for rule in OTHER_RULES:
        alone = [regret_under(rule, task, grid) for task in found for grid in by_seed(task)]
        together = [regret_under(rule, task, task.grid) for task in found]
        print(row(rule, fmean(alone), fmean(together)))


def by_seed(task: Task) -> list[list[Candidate]]:
    seeds = sorted({run.seed for run in task.grid})
    return [[run for run in task.grid if run.seed == seed] for seed in seeds]


def draw(found: Sequence[Task], path: Path) -> None:
    """Lower bound against true score, a panel a data set."""
    columns = 3
    figure = Figure(figsize=(10, 3.2 * -(-len(found) // columns)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(-(-len(found) // columns), columns, squeeze=False).ravel()
    for axes, task in zip(panels, found, strict=False):
        _panel(axes, task)
    panels[0].legend(fontsize=7, frameon=False)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=110)


def _panel(axes: Any, task: Task) -> None:
    """Circles: what was struck out. Bounds far below what the data earn stand at the left edge."""
    selection = task.choose(task.grid)
    offline = task.grid[0].offline
    assert offline.behaviour is not None
    assert offline.best_return is not None
    earned, most = offline.behaviour.value, offline.best_return
    left = earned - max(2 * (most - earned), abs(earned))
    alphas = sorted({pair.alpha for pair in selection.pairs})
    labelled = set()
    for pair in selection.pairs:
        color = COLORS[alphas.index(pair.alpha) % len(COLORS)]
        x = np.clip([policy.estimate.low for policy in pair.policies], left, most)
        y = [task.scores[policy.run, policy.updates] for policy in pair.policies]
        label = None if pair.alpha in labelled else f"alpha {pair.alpha:g}"
        labelled.add(pair.alpha)
        face = color if pair.eligible else "none"
        axes.plot(x, y, "o", color=color, mfc=face, markersize=4, label=label)
    if (chosen := selection.policy) is not None:
        y = [task.scores[chosen.run, chosen.updates]]
        axes.plot([chosen.estimate.low], y, "*", color="black", markersize=12, label="chosen")
    axes.axhline(task.behaviour, color=SOFT, linestyle="--", linewidth=1)
    axes.axvline(earned, color=SOFT, linestyle="--", linewidth=1)
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
    found = read_tasks(arguments.runs)
    together = [judge(task, task.grid) for task in found]
    alone = [judge(task, grid) for task in found for grid in by_seed(task)]
    print_choices("One choice a data set, among all seeds", together)
    print_choices("One choice a data set and seed", alone)
    print_verdicts(alone)
    print_ranks(found)
    print_rules(found)
    if arguments.plot is not None:
        draw(found, arguments.plot)


if __name__ == "__main__":
    main()
