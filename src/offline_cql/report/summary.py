"""Everything that a report says, before it is drawn: runs, selections, sums over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offline_cql.report.aggregate import Aggregate, aggregates
from offline_cql.report.load_runs import Reading
from offline_cql.report.model_selection import Limits, Selection, candidates, select
from offline_cql.report.run import CLONING, LeftOut, Run, by_task, grids, methods


@dataclass(frozen=True, kw_only=True)
class Overview:
    """methods: by run name, what sets it apart; selections: by the name of their grid; tasks: the
    runs of each environment and data set."""

    runs: Sequence[Run]
    left_out: Sequence[LeftOut]
    methods: dict[str, str]
    tasks: dict[str, list[Run]]
    selections: dict[str, Selection]
    aggregates: list[Aggregate]

    def selections_of(self, runs: Sequence[Run]) -> dict[str, Selection]:
        """Those whose candidates are among the runs."""
        names = {run.name for run in runs}
        return {
            name: found
            for name, found in self.selections.items()
            if found.candidates[0].run in names
        }


def overview(reading: Reading, limits: Limits, *, resamples: int, seed: int) -> Overview:
    """Apply the rule to every grid, and sum up over tasks."""
    named, tasks = methods(reading.runs), by_task(reading.runs)
    runs_in_order = [run for runs in tasks.values() for run in runs]
    selections: dict[str, Selection] = {}
    for task, runs in tasks.items():
        for apart, grid in grids(runs).items():
            cloning = [run.offline for run in runs if _clones(run, grid[0])]
            name = f"{task} · {apart}" if apart else task
            selections[name] = select(candidates(grid), cloning, limits)
    return Overview(
        runs=runs_in_order,
        left_out=reading.left_out,
        methods=named,
        tasks=tasks,
        selections=selections,
        aggregates=aggregates(tasks, named, resamples=resamples, seed=seed),
    )


def _clones(run: Run, other: Run) -> bool:
    """Whether a run is cloning of the data, and validation part, that another run learned from."""
    return run.algorithm == CLONING and run.finished and _data(run) == _data(other)


def _data(run: Run) -> tuple[object, ...]:
    keys = (
        "dataset.validation_fraction",
        "dataset.split_seed",
        "dataset.fraction",
        "dataset.top_fraction",
    )
    return (run.task, *(run.settings.get(key) for key in keys))
