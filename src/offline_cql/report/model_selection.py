"""The recommended alpha and checkpoint, from the data alone: the rule of docs/selection.md.

The types here have no field for simulator returns, so that the choice cannot depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from offline_cql.ope.estimate import FRACTION, Estimate
from offline_cql.render.numbers import format_number, format_share
from offline_cql.report.run import Offline, Run, mean_by_update, validation_rows
from offline_cql.runs.folder import policy_path

SHARE, DISTANCE = "validation/above_best_share", "validation/action_distance"
TD_ERROR = "validation/td_error"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The thresholds of the rule.

    above_best_share: the largest share of validation states that may be valued above every return
    in the data; a larger one means that alpha is too small. bc_margin: the relative margin above
    behavior cloning's action distance within which alpha counts as too large.
    """

    above_best_share: float
    bc_margin: float


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One run of a grid, without simulator returns. name: its folder."""

    name: str
    alpha: float
    seed: int
    diverged_at: int | None
    offline: Offline


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One kept policy with its estimate.

    run: the folder; file: the checkpoint in it. above_best: share of validation states valued
    above every return in the data; None without validation episodes.
    """

    run: str
    file: str
    alpha: float
    seed: int
    updates: int
    estimate: Estimate
    above_best: float | None


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One alpha at one number of updates, over all seeds.

    too_small: reasons why alpha is too small here. incomplete: the seeds without an estimate, in
    words. Either one rejects the point.
    """

    alpha: float
    updates: int
    candidates: tuple[Candidate, ...]
    too_small: tuple[str, ...]
    incomplete: str | None

    @property
    def low(self) -> float:
        """The mean of the candidates' lower bounds.

        Not the bound of their mean: the estimates share the data, so that their errors do not
        average out over seeds.
        """
        return fmean(candidate.estimate.low for candidate in self.candidates)

    @property
    def value(self) -> float:
        """The mean of the candidates' estimates."""
        return fmean(candidate.estimate.value for candidate in self.candidates)

    @property
    def eligible(self) -> bool:
        """True unless the point is rejected."""
        return not self.too_small and self.incomplete is None

    @property
    def best(self) -> Candidate:
        """The candidate with the largest lower bound."""
        return max(self.candidates, key=lambda candidate: candidate.estimate.low)


@dataclass(frozen=True, kw_only=True)
class TdErrorMinimum:
    """The smallest validation TD error of an alpha (mean over runs) and the last one."""

    updates: int
    value: float
    last_updates: int
    last_value: float


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The result of the rule for one grid of alphas and seeds.

    point, chosen, behavior, ship: None where nothing can be recommended. too_small, too_large:
    reason by alpha. without_estimates: names of runs. without_validation: all episodes were
    trained on. notes: what could not be checked.
    """

    runs: tuple[GridRun, ...]
    points: tuple[GridPoint, ...]
    point: GridPoint | None
    chosen: Candidate | None
    behavior: Estimate | None
    too_small: Mapping[float, str]
    too_large: Mapping[float, str]
    td_error_minimum: Mapping[float, TdErrorMinimum]
    without_estimates: tuple[str, ...]
    without_validation: bool
    notes: tuple[str, ...]

    @property
    def ship(self) -> bool | None:
        """True if the chosen policy's lower bound is above the return of the data."""
        if self.chosen is None or self.behavior is None:
            return None
        return self.chosen.estimate.low > self.behavior.value


def grid_runs(runs: Sequence[Run]) -> tuple[GridRun, ...]:
    """Return the runs with an alpha, in the order of alpha and seed, without simulator returns."""
    return tuple(
        GridRun(
            name=run.name,
            alpha=run.alpha,
            seed=run.seed,
            diverged_at=run.updates if run.status == "diverged" else None,
            offline=run.offline,
        )
        for run in sorted(runs, key=lambda run: (run.alpha or 0.0, run.seed, run.name))
        if run.alpha is not None
    )


def select(
    grid: Sequence[GridRun], behavior_cloning: Sequence[Offline], limits: Limits
) -> Selection:
    """Apply the rule to runs that differ in alpha and seed.

    behavior_cloning: runs of behavior cloning on the same data, the reference for "too large".
    """
    points = grid_points(grid, limits)
    point = best_point(points)
    chosen = None if point is None else point.best
    behaviors = {run.name: run.offline.behavior for run in grid}
    too_large, notes = close_to_behavior_cloning(grid, behavior_cloning, limits)
    return Selection(
        runs=tuple(grid),
        points=points,
        point=point,
        chosen=chosen,
        behavior=None if chosen is None else behaviors[chosen.run],
        too_small=too_small_alphas(points),
        too_large=too_large,
        td_error_minimum=td_error_minimum(grid),
        without_estimates=tuple(run.name for run in grid if not run.offline.estimates),
        without_validation=all(run.offline.validation_fraction == 0 for run in grid),
        notes=(*missing_checks(grid), *notes),
    )


def best_point(points: Sequence[GridPoint]) -> GridPoint | None:
    """Return the eligible point with the largest mean lower bound.

    Ties go to the larger alpha, then to the earlier checkpoint.
    """
    eligible = (point for point in points if point.eligible)
    return max(eligible, key=lambda p: (p.low, p.alpha, -p.updates), default=None)


def grid_points(grid: Sequence[GridRun], limits: Limits) -> tuple[GridPoint, ...]:
    """Return a point per alpha and number of updates at which a run of it has an estimate."""
    points = []
    for alpha, runs in by_alpha(grid).items():
        for updates in sorted({k for run in runs for k in run.offline.estimates}):
            estimated = [run for run in runs if updates in run.offline.estimates]
            missing = [f"seed {run.seed}" for run in runs if run not in estimated]
            reasons = [
                reason for run in runs for reason in signs_of_small_alpha(run, updates, limits)
            ]
            point = GridPoint(
                alpha=alpha,
                updates=updates,
                candidates=tuple(_candidate(run, updates) for run in estimated),
                too_small=tuple(reasons),
                incomplete=f"no estimate for {', '.join(missing)}" if missing else None,
            )
            points.append(point)
    return tuple(points)


def _candidate(run: GridRun, updates: int) -> Candidate:
    return Candidate(
        run=run.name,
        file=str(policy_path(Path(), updates)),
        alpha=run.alpha,
        seed=run.seed,
        updates=updates,
        estimate=run.offline.estimates[updates],
        above_best=validation_rows(run.offline, SHARE).get(updates),
    )


def by_alpha(grid: Sequence[GridRun]) -> dict[float, list[GridRun]]:
    """Return the runs by alpha, in increasing order."""
    result: dict[float, list[GridRun]] = {}
    for run in sorted(grid, key=lambda run: run.alpha):
        result.setdefault(run.alpha, []).append(run)
    return result


def signs_of_small_alpha(run: GridRun, updates: int, limits: Limits) -> list[str]:
    """Return the signs that alpha is too small for this run at this checkpoint, in words."""
    seed = f"seed {run.seed}"
    reasons = []
    if run.diverged_at is not None:
        reasons.append(f"{seed}: the run diverged after {run.diverged_at:,} updates")
    share = validation_rows(run.offline, SHARE).get(updates)
    if share is not None and not share <= limits.above_best_share:
        reasons.append(
            f"{seed}: {format_share(share)} of validation states are valued above every return in "
            f"the data (limit {format_share(limits.above_best_share)})"
        )
    estimate, best = run.offline.estimates.get(updates), run.offline.best_return
    if estimate is None:
        return reasons
    if not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        reasons.append(f"{seed}: the estimate is not finite")
    elif best is not None and estimate.value > best:
        reasons.append(
            f"{seed}: the estimate {format_number(estimate.value)} exceeds the best episode in the "
            f"data, {format_number(best)}"
        )
    return reasons


def too_small_alphas(points: Sequence[GridPoint]) -> dict[float, str]:
    """Return the alphas that are too small at every checkpoint, with a reason at the last one."""
    result = {}
    for alpha in dict.fromkeys(point.alpha for point in points):
        checkpoints = [point for point in points if point.alpha == alpha]
        if all(point.too_small for point in checkpoints):
            result[alpha] = checkpoints[-1].too_small[0]
    return result


def close_to_behavior_cloning(
    grid: Sequence[GridRun], behavior_cloning: Sequence[Offline], limits: Limits
) -> tuple[dict[float, str], list[str]]:
    """Return the alphas whose policy acts like behavior cloning, with the reason, and notes.

    The reference is the last validation action distance of behavior cloning or, without such a
    run, of the largest alpha.
    """
    distances = {
        alpha: distance
        for alpha, runs in by_alpha(grid).items()
        if (distance := _last_distance([run.offline for run in runs])) is not None
    }
    if not distances:
        return {}, ["No validation episodes: it was not checked whether alpha is too large."]
    reference, name = _last_distance(behavior_cloning), "behavior cloning"
    has_reference = reference is not None
    if reference is None:
        largest = max(distances)
        reference, name = distances[largest], f"alpha={largest:g}"
    limit = (1.0 + limits.bc_margin) * reference
    near = {
        alpha: f"action distance {format_number(value)}, that of {name} {format_number(reference)}"
        for alpha, value in distances.items()
        if value <= limit
    }
    if has_reference:
        return near, []
    if len(near) == len(distances):
        cause = "Only one alpha" if len(near) == 1 else "The same action distance at every alpha"
        unknown = "it was not checked whether alpha is too large"
        return {}, [f"{cause} and no run of algorithm=bc: {unknown}."]
    # The largest alpha is always near itself; that alone means nothing.
    return (near if len(near) > 1 else {}), []


def _last_distance(runs: Sequence[Offline]) -> float | None:
    """Return the mean over runs at the last update that they share."""
    return next(reversed(mean_by_update(runs, DISTANCE).values()), None)


def td_error_minimum(grid: Sequence[GridRun]) -> dict[float, TdErrorMinimum]:
    """Return by alpha where the mean validation TD error is smallest; it rejects no point."""
    result = {}
    for alpha, runs in by_alpha(grid).items():
        errors = mean_by_update([run.offline for run in runs], TD_ERROR)
        if errors:
            updates, last = min(errors, key=errors.__getitem__), max(errors)
            result[alpha] = TdErrorMinimum(
                updates=updates, value=errors[updates], last_updates=last, last_value=errors[last]
            )
    return result


def missing_checks(grid: Sequence[GridRun]) -> list[str]:
    """Return notes about what the rule could not check."""
    notes = []
    if any(SHARE not in run.offline.validation for run in grid):
        notes.append(
            "Some runs have no validation episodes: it was not checked whether they value states "
            "above the data. Train with "
            f"dataset.validation_fraction={FRACTION:g}."
        )
    if any(run.offline.outdated for run in grid):
        notes.append(
            "Some ope.json hold estimates from the episodes that the policies were learned from, "
            "which are too high: they are not used."
        )
    if any(run.offline.estimates and run.offline.best_return is None for run in grid):
        notes.append(
            "Some ope.json have no best_return: estimates were not compared with the best episode "
            "in the data. Run evaluate.py again."
        )
    return notes
