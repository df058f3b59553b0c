"""What the selection says, in sentences; numbers as they are written in a report."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from offline_cql.render.numbers import format_count, format_interval, format_number
from offline_cql.report.model_selection import Selection


def sentences(selection: Selection) -> list[str]:
    """The recommendation: three to seven lines, the first is the verdict."""
    if selection.policy is None:
        return _none(selection)
    pair, policy, behavior = selection.pair, selection.policy, selection.behavior
    assert pair is not None
    assert behavior is not None
    estimate = policy.estimate
    chosen = f"alpha={policy.alpha:g} after {policy.updates:,} updates, seed {policy.seed}"
    distance = estimate.low - behavior.value
    side = "above" if selection.ship else "not above"
    eligible, every = sum(each.eligible for each in selection.pairs), len(selection.pairs)
    others = every - eligible
    left = f"{eligible} of {every}" if others else f"all {every}"
    struck = ", the others struck out" if others else ""
    many = len(pair.policies) > 1
    over = f", the mean over {len(pair.policies)} runs," if many else ""
    lines = [
        f"ship {chosen}" if selection.ship else f"do not ship: the best is {chosen}",
        f"because its lower bound {format_number(estimate.low)} is {side} the "
        f"{format_number(behavior.value)} of the data's policy ({distance:+,.3g}); "
        f"{estimate.method} {format_interval(estimate.value, estimate.low, estimate.high)}",
    ]
    if eligible > 1:
        lines.append(
            f"chosen for the largest lower bound{over} {format_number(pair.low)}, among {left} "
            f"pairs of alpha and checkpoint{struck}; the largest of many is somewhat optimistic"
        )
    else:
        remains = f", {format_count(others, 'other')} struck out" if others else ""
        lines.append(f"there is no choice: it is one pair of alpha and checkpoint{remains}")
    if (turn := selection.turns.get(policy.alpha)) is not None:
        lines.append(
            f"validation TD error of alpha={policy.alpha:g} {turn}; it strikes nothing out"
        )
    lines += _alphas(selection)
    assumptions = (*estimate.assumptions, *behavior.assumptions)
    return [*lines, f"if {'; '.join(dict.fromkeys(assumptions))}"]


def _none(selection: Selection) -> list[str]:
    if selection.pairs:
        lines = ["no recommendation: every pair of alpha and checkpoint was struck out"]
        last = selection.pairs[-1]
        reason = last.too_small[0] if last.too_small else str(last.incomplete)
        lines.append(f"alpha={last.alpha:g} after {last.updates:,} updates: {reason}")
        lines += _alphas(selection)
    else:
        lines = ["no recommendation: no estimates are there of what these policies would earn"]
    if selection.turns:
        told = (f"alpha={alpha:g} {words}" for alpha, words in selection.turns.items())
        lines.append(f"validation TD error: {'; '.join(told)}")
    return lines


def _alphas(selection: Selection) -> list[str]:
    small = [f"alpha={a:g} is too small: {why}" for a, why in selection.too_small.items()]
    large = [f"alpha={a:g} is close to cloning: {why}" for a, why in selection.too_large.items()]
    chosen = selection.pair.alpha if selection.pair is not None else None
    if chosen in selection.too_large:
        large.append("the chosen one among them: expect about what cloning earns")
    return ["; ".join(small + large)] if small + large else []


def commands(selection: Selection) -> list[str]:
    """What makes the estimates that are missing."""
    if not selection.without:
        return []
    runs = selection.without
    grid = ["-m"] if len(runs) > 1 else []
    kind = ["ope=fqe", "evaluation.episodes=0", "checkpoint=all"]
    return [shlex.join(["python", "evaluate.py", *grid, f"run={','.join(runs)}", *kind])]


def checkpoint_file(selection: Selection) -> str | None:
    """The file of the recommended policy."""
    policy = selection.policy
    return None if policy is None else f"{policy.run}/{policy.file}"


def export_command(selection: Selection) -> str | None:
    """What makes the policy usable elsewhere, when it is one to ship."""
    policy = selection.policy
    if policy is None or not selection.ship:
        return None
    name = PurePath(policy.file).stem
    return shlex.join(["python", "export.py", f"run={policy.run}", f"checkpoint={name}"])
