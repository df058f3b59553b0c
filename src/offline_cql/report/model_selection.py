"""Which alpha and checkpoint to ship, from the data alone: the rule of docs/selection.md.

Pure functions. A Candidate has no field for what a simulator said, so that the choice cannot look
at it; the baselines at the end are for studies, and take true returns by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from offline_cql.ope.estimate import Estimate
from offline_cql.report.run import Offline, Run, mean_by_update, validation_rows

SHARE, DISTANCE = "validation/above_best_share", "validation/action_distance"
TD_ERROR = "validation/td_error"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """above_best_share: of validation states, more is too small an alpha; bc_margin: relative
    to cloning's action distance, nearer is too large an alpha."""

    above_best_share: float
    bc_margin: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A run as the selection sees it."""

    run: str
    alpha: float
    seed: int
    diverged_at: int | None
    offline: Offline


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One kept policy of a run that has an estimate. file: in the run's folder."""

    run: str
    file: str
    alpha: float
    seed: int
    updates: int
    estimate: Estimate
    above_best: float | None  # validation share; None without validation episodes


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An alpha at a number of updates, over its runs. too_small, incomplete: why it is not chosen;
    low, value: means over the runs of the bound and of the estimate."""

    alpha: float
    updates: int
    policies: tuple[Policy, ...]
    too_small: tuple[str, ...]
    incomplete: str | None

    @property
    def low(self) -> float:
        """The mean of the runs' bounds, not the bound of their mean: the estimates share the
        data, so that their errors do not average out over seeds."""
        return fmean(policy.estimate.low for policy in self.policies)

    @property
    def value(self) -> float:
        return fmean(policy.estimate.value for policy in self.policies)

    @property
    def eligible(self) -> bool:
        return not self.too_small and self.incomplete is None

    @property
    def best_policy(self) -> Policy:
        """That of the run with the largest bound of its own."""
        return max(self.policies, key=lambda policy: policy.estimate.low)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the rule says about one grid of alphas. pair, policy, behavior, ship: None when
    nothing can be recommended; without: runs that have no estimates; labels: alpha -> words."""

    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...]
    pair: Pair | None
    policy: Policy | None
    behavior: Estimate | None
    too_small: Mapping[float, str]
    too_large: Mapping[float, str]
    turns: Mapping[float, str]
    without: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ship(self) -> bool | None:
        """Whether the policy's lower bound is above what the data's policy earned."""
        if self.policy is None or self.behavior is None:
            return None
        return self.policy.estimate.low > self.behavior.value


def candidates(runs: Sequence[Run]) -> tuple[Candidate, ...]:
    """The runs of a grid, without what a simulator said."""
    return tuple(
        Candidate(
            run=run.name,
            alpha=run.alpha,
            seed=run.seed,
            diverged_at=run.updates if run.status == "diverged" else None,
            offline=run.offline,
        )
        for run in sorted(runs, key=lambda run: (run.alpha or 0.0, run.seed, run.name))
        if run.alpha is not None
    )


def select(grid: Sequence[Candidate], cloning: Sequence[Offline], limits: Limits) -> Selection:
    """Apply the rule to runs that differ in alpha and seed; cloning: runs of bc on their data."""
    found = pairs(grid, limits)
    best = best_pair(found)
    policy = None if best is None else best.best_policy
    behaviors = {each.run: each.offline.behavior for each in grid}
    too_large, notes = close_to_cloning(grid, cloning, limits)
    return Selection(
        candidates=tuple(grid),
        pairs=found,
        pair=best,
        policy=policy,
        behavior=None if policy is None else behaviors[policy.run],
        too_small=too_small(found),
        too_large=too_large,
        turns=turning_points(grid),
        without=tuple(each.run for each in grid if not each.offline.estimates),
        notes=(*unchecked(grid), *notes),
    )


def best_pair(found: Sequence[Pair]) -> Pair | None:
    """The largest bound of the eligible; ties: the larger alpha, then the earlier checkpoint."""
    eligible = (pair for pair in found if pair.eligible)
    return max(eligible, key=lambda p: (p.low, p.alpha, -p.updates), default=None)


def pairs(grid: Sequence[Candidate], limits: Limits) -> tuple[Pair, ...]:
    """Every alpha at every number of updates at which one of its runs has an estimate."""
    result = []
    for alpha, runs in by_alpha(grid).items():
        for updates in sorted({k for run in runs for k in run.offline.estimates}):
            having = [run for run in runs if updates in run.offline.estimates]
            lacking = [f"seed {run.seed}" for run in runs if run not in having]
            reasons = [reason for run in runs for reason in faults(run, updates, limits)]
            pair = Pair(
                alpha=alpha,
                updates=updates,
                policies=tuple(_policy(run, updates) for run in having),
                too_small=tuple(reasons),
                incomplete=f"no estimate for {', '.join(lacking)}" if lacking else None,
            )
            result.append(pair)
    return tuple(result)


def _policy(run: Candidate, updates: int) -> Policy:
    return Policy(
        run=run.run,
        file=run.offline.kept[updates],
        alpha=run.alpha,
        seed=run.seed,
        updates=updates,
        estimate=run.offline.estimates[updates],
        above_best=validation_rows(run.offline, SHARE).get(updates),
    )


def by_alpha(grid: Sequence[Candidate]) -> dict[float, list[Candidate]]:
    found: dict[float, list[Candidate]] = {}
    for run in sorted(grid, key=lambda run: run.alpha):
        found.setdefault(run.alpha, []).append(run)
    return found


def faults(run: Candidate, updates: int, limits: Limits) -> list[str]:
    """Signs that alpha is too small for this run at this checkpoint, in words."""
    who = f"seed {run.seed}"
    found = []
    if run.diverged_at is not None:
        found.append(f"{who}: the run diverged after {run.diverged_at:,} updates")
    share = validation_rows(run.offline, SHARE).get(updates)
    if share is not None and not share <= limits.above_best_share:
        valued = f"{share:.0%} of validation states are valued above all returns in the data"
        found.append(f"{who}: {valued} (limit {limits.above_best_share:.0%})")
    estimate, best = run.offline.estimates.get(updates), run.offline.best_return
    if estimate is None:
        return found
    if not all(map(math.isfinite, (estimate.value, estimate.low, estimate.high))):
        found.append(f"{who}: the estimate is not finite")
    elif best is not None and estimate.value > best:
        above = f"the estimate {estimate.value:,.1f} is above the best episode in the data"
        found.append(f"{who}: {above}, {best:,.1f}")
    return found


def too_small(found: Sequence[Pair]) -> dict[float, str]:
    """Alphas of which every checkpoint was struck out, with the last one's first reason."""
    alphas = dict.fromkeys(pair.alpha for pair in found)
    result = {}
    for alpha in alphas:
        own = [pair for pair in found if pair.alpha == alpha]
        if all(pair.too_small for pair in own):
            result[alpha] = own[-1].too_small[0]
    return result


def close_to_cloning(
    grid: Sequence[Candidate], cloning: Sequence[Offline], limits: Limits
) -> tuple[dict[float, str], list[str]]:
    """Alphas whose policy takes the data's actions, by the last validation action distance: as bc
    does, or without a bc run as the largest alpha does; and what could not be told."""
    distances = {
        alpha: _last_distance([run.offline for run in runs])
        for alpha, runs in by_alpha(grid).items()
    }
    known = {alpha: value for alpha, value in distances.items() if value is not None}
    if not known:
        return {}, ["no validation episodes: whether alpha is too large was not looked at"]
    reference = _last_distance(cloning)
    name = "cloning's"
    if reference is None:
        largest = max(known)
        reference, name = known[largest], f"that of alpha={largest:g}"
    limit = (1.0 + limits.bc_margin) * reference
    near = {
        alpha: f"action distance {value:.3g}, {name} {reference:.3g}"
        for alpha, value in known.items()
        if value <= limit
    }
    if name == "cloning's":
        return near, []
    if len(near) == len(known):
        same = "one alpha" if len(known) == 1 else "the same action distance at every alpha"
        unknown = "whether alpha is too large cannot be told"
        return {}, [f"{same} and no run of algorithm=bc: {unknown}"]
    # The largest alpha alone is near itself, which says nothing.
    return (near if len(near) > 1 else {}), []


def _last_distance(runs: Sequence[Offline]) -> float | None:
    """The mean over runs at the last update that they share."""
    return next(reversed(mean_by_update(runs, DISTANCE).values()), None)


def turning_points(grid: Sequence[Candidate]) -> dict[float, str]:
    """Where the validation TD error of each alpha, its mean over runs, is smallest."""
    result = {}
    for alpha, runs in by_alpha(grid).items():
        errors = mean_by_update([run.offline for run in runs], TD_ERROR)
        if not errors:
            continue
        least, last = min(errors, key=errors.__getitem__), max(errors)
        if least == last:
            result[alpha] = f"falls until the last look, at {last:,} updates"
        else:
            rise = f"{errors[least]:.3g} to {errors[last]:.3g} at {last:,}"
            result[alpha] = f"turns at {least:,} updates: from {rise}"
    return result


def unchecked(grid: Sequence[Candidate]) -> list[str]:
    """What the rule could not look at."""
    notes = []
    if any(SHARE not in run.offline.validation for run in grid):
        notes.append(
            "runs without validation episodes: whether their critics value states above the data "
            "was not looked at; train with dataset.validation_fraction=0.1"
        )
    if any(run.offline.estimates and run.offline.best_return is None for run in grid):
        notes.append(
            "an ope.json without best_return: estimates were not held against the best episode in "
            "the data; make it again with evaluate.py"
        )
    return notes


def last_of_alpha(grid: Sequence[Candidate], alpha: float) -> list[tuple[str, int]]:
    """`alpha 5, last`: run and updates of the last kept policy of each run with this alpha."""
    own = [run for run in grid if run.alpha == alpha and run.offline.kept]
    return [(run.run, max(run.offline.kept)) for run in own]


def best_by_return(returns: Mapping[tuple[str, int], float]) -> tuple[str, int]:
    """Run and updates of the largest true return: what only a simulator can tell."""
    return max(returns, key=returns.__getitem__)
