"""Everything that a report states, before it is drawn: tasks, recommendations, scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from offline_cql.report.aggregate import Aggregate, aggregates
from offline_cql.report.load_runs import LoadedRuns
from offline_cql.report.model_selection import Limits, Selection, grid_runs, select
from offline_cql.report.run import BEHAVIOR_CLONING, Run, SkippedFolder, by_task, grids, methods


@dataclass(frozen=True, kw_only=True)
class Task:
    """The runs of one environment and data set, and the recommendation for each grid of alphas.

    stem: of file names; methods: by run name, the settings that set a run apart; selections: by
    the name of their grid.
    """

    name: str
    stem: str
    runs: Sequence[Run]
    methods: dict[str, str]
    selections: dict[str, Selection]

    @property
    def finished(self) -> list[Run]:
        """The runs that plots show."""
        return [run for run in self.runs if run.finished]

    def by_method(self) -> dict[str, list[Run]]:
        """Finished runs by method, in the order of alpha; those without an alpha last."""
        order = sorted(self.finished, key=lambda r: (r.alpha is None, r.alpha or 0.0, r.name))
        result: dict[str, list[Run]] = {}
        for run in order:
            result.setdefault(self.methods[run.name], []).append(run)
        return result


@dataclass(frozen=True, kw_only=True)
class Summary:
    """methods: by run name, the settings that set a run apart."""

    tasks: list[Task]
    left_out: Sequence[SkippedFolder]
    methods: dict[str, str]
    aggregates: list[Aggregate]

    @property
    def runs(self) -> list[Run]:
        """The runs of all tasks."""
        return [run for task in self.tasks for run in task.runs]

    @property
    def selections(self) -> dict[str, Selection]:
        """The recommendation for each grid, by the grid's name."""
        return {name: each for task in self.tasks for name, each in task.selections.items()}


def summarize(loaded: LoadedRuns, limits: Limits, *, resamples: int, seed: int) -> Summary:
    """Apply the selection rule to every grid and aggregate scores over tasks."""
    method_of, runs_by_task = methods(loaded.runs), by_task(loaded.runs)
    tasks = []
    for number, (name, runs) in enumerate(runs_by_task.items(), start=1):
        slug = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-").lower()
        task = Task(
            name=name,
            stem=f"{number}-{slug}",
            runs=runs,
            methods=method_of,
            selections=_selections(name, runs, limits),
        )
        tasks.append(task)
    return Summary(
        tasks=tasks,
        left_out=loaded.left_out,
        methods=method_of,
        aggregates=aggregates(runs_by_task, method_of, resamples=resamples, seed=seed),
    )


def _selections(task: str, runs: Sequence[Run], limits: Limits) -> dict[str, Selection]:
    result = {}
    for settings, grid in grids(runs).items():
        same_data = (run for run in runs if run.finished and _data(run) == _data(grid[0]))
        cloning = [run.offline for run in same_data if run.algorithm == BEHAVIOR_CLONING]
        name = f"{task} · {settings}" if settings else task
        result[name] = select(grid_runs(grid), cloning, limits)
    return result


def _data(run: Run) -> tuple[object, ...]:
    """Return what determines the training and the validation data of a run."""
    names = ("validation_fraction", "split_seed", "fraction", "top_fraction")
    return (run.task, *(run.settings.get(f"dataset.{name}") for name in names))
