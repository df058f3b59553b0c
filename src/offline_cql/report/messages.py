"""The recommendation in sentences, and the commands that follow from it."""

from __future__ import annotations

from pathlib import Path, PurePath

from offline_cql.ope.estimate import FRACTION, Estimate
from offline_cql.render.command import command
from offline_cql.render.numbers import (
    format_difference,
    format_number,
    format_values,
)
from offline_cql.report.model_selection import Candidate, GridPoint, Selection, TdErrorMinimum
from offline_cql.runs.folder import package_words


def sentences(selection: Selection) -> list[str]:
    """Return the verdict, then its reasons."""
    chosen, point, behavior = selection.chosen, selection.point, selection.behavior
    if chosen is None or point is None or behavior is None:
        return _no_recommendation(selection)
    policy = f"alpha={chosen.alpha:g} after {chosen.updates:,} updates, seed {chosen.seed}"
    lines = [
        f"Ship {policy}" if selection.ship else f"Do not ship; the best candidate is {policy}",
        _bound(chosen, behavior),
        *_extrapolated(chosen.estimate, behavior),
        _choice(selection, point),
    ]
    if (minimum := selection.td_error_minimum.get(chosen.alpha)) is not None:
        lines.append(f"{_td_error(chosen.alpha, minimum)} This rejects nothing.")
    lines += _labeled_alphas(selection)
    assumptions = dict.fromkeys((*chosen.estimate.assumptions, *behavior.assumptions))
    return [*lines, f"This holds if {'; '.join(assumptions)}."]


def _bound(chosen: Candidate, behavior: Estimate) -> str:
    estimate = chosen.estimate
    distance = estimate.low - behavior.value
    relation = "above" if distance > 0 else "not above"
    value, low, high, data = format_values(
        *(estimate.value, estimate.low, estimate.high, behavior.value), width=estimate.width
    )
    return (
        f"Its lower bound {low} is {relation} the return of the data, {data} "
        f"({format_difference(distance)}). The estimate is {value} [{low}, {high}] "
        f"({estimate.method})."
    )


def _extrapolated(estimate: Estimate, behavior: Estimate) -> list[str]:
    """Return what of both values no row shows; nothing where every episode terminated."""
    if not (estimate.extrapolated or behavior.extrapolated):
        return []
    policy, data, *beyond = format_values(
        *(estimate.observed, behavior.observed, estimate.extrapolated, behavior.extrapolated),
        width=estimate.width,
    )
    return [
        f"Up to the ends of the logged episodes the policy earns {policy} and the data {data}; "
        f"beyond them {' and '.join(beyond)} are extrapolated."
    ]


def _choice(selection: Selection, point: GridPoint) -> str:
    total = len(selection.points)
    eligible = sum(each.eligible for each in selection.points)
    rejected = total - eligible
    if total == 1:
        return "It is the only grid point (alpha and checkpoint): there was no choice."
    if eligible == 1:
        return f"It is the only eligible grid point (alpha and checkpoint) of {total}."
    among = f"{eligible} of {total} grid points, the others being rejected" if rejected else ""
    runs = len(point.candidates)
    mean = f", the mean over {runs} runs" if runs > 1 else ""
    return (
        f"It has the largest lower bound ({format_number(point.low)}{mean}) of "
        f"{among or f'all {total} grid points'}. The maximum over many is biased upwards."
    )


def _td_error(alpha: float, minimum: TdErrorMinimum) -> str:
    name = f"The validation TD error of alpha={alpha:g}"
    if minimum.updates == minimum.last_updates:
        return f"{name} is lowest at the last evaluation, {minimum.last_updates:,} updates."
    return (
        f"{name} is lowest at {minimum.updates:,} updates ({format_number(minimum.value)}) and "
        f"{format_number(minimum.last_value)} at {minimum.last_updates:,}."
    )


def _labeled_alphas(selection: Selection) -> list[str]:
    lines = [f"alpha={a:g} is too small: {why}." for a, why in selection.too_small.items()]
    for alpha, reason in selection.too_large.items():
        recommended = selection.point is not None and alpha == selection.point.alpha
        advice = " Expect about the return of behavior cloning." if recommended else ""
        lines.append(f"alpha={alpha:g} is close to behavior cloning: {reason}.{advice}")
    return lines


def _no_recommendation(selection: Selection) -> list[str]:
    if selection.points:
        lines = ["No recommendation: every grid point (alpha and checkpoint) is rejected"]
        lines += [
            f"alpha={point.alpha:g} after {point.updates:,} updates: {point.incomplete}."
            for point in selection.points
            if not point.too_small
        ]
        lines += _labeled_alphas(selection)
    elif selection.without_validation:
        lines = [
            "No recommendation: all episodes were trained on, so that none can show what these "
            f"policies would earn; train again with dataset.validation_fraction={FRACTION:g}"
        ]
    else:
        lines = ["No recommendation: there are no estimates of what these policies would earn"]
    return lines + [_td_error(*item) for item in selection.td_error_minimum.items()]


def commands(selection: Selection) -> list[str]:
    """Return the command that computes the missing estimates; [] where none are missing."""
    runs = selection.without_estimates
    if not runs or selection.without_validation:
        return []
    multirun = ["-m"] if len(runs) > 1 else []
    settings = ("ope=fqe", "evaluation.episodes=0", "checkpoint=all")
    package = package_words(Path(runs[0]))
    return [command("evaluate.py", *multirun, ("run", tuple(runs)), *package, *settings)]


def checkpoint_file(selection: Selection) -> str | None:
    """Return the path of the recommended policy."""
    chosen = selection.chosen
    return None if chosen is None else f"{chosen.run}/{chosen.file}"


def export_command(selection: Selection) -> str | None:
    """Return the command that exports the recommended policy; None unless it is one to ship."""
    chosen = selection.chosen
    if chosen is None or not selection.ship:
        return None
    name = PurePath(chosen.file).stem
    package = package_words(Path(chosen.run))
    return command("export.py", ("run", chosen.run), *package, f"checkpoint={name}")
