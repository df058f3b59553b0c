"""One task's runs as its plots need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offline_cql.render.svg import SOFT
from offline_cql.report.model_selection import Selection
from offline_cql.report.run import Run


@dataclass(frozen=True, kw_only=True)
class Task:
    """Runs of one task that finished, what sets each apart, and what was selected among them."""

    stem: str
    runs: Sequence[Run]
    methods: dict[str, str]
    selections: Sequence[Selection]
    share_limit: float
    resamples: int
    seed: int

    def by_method(self) -> dict[str, list[Run]]:
        """Cloning last, then by alpha."""
        order = sorted(self.runs, key=lambda r: (r.alpha is None, r.alpha or 0.0, r.name))
        found: dict[str, list[Run]] = {}
        for run in order:
            found.setdefault(self.methods[run.name], []).append(run)
        return found


def behavior_line(axes: Any, task: Task) -> None:
    known = (run.simulated.behavior_return for run in task.runs)
    value = next((each for each in known if each is not None), None)
    if value is not None:
        axes.axhline(value, color=SOFT, linewidth=1.2, linestyle="--")
