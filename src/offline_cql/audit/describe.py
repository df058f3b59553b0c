"""The figures as lines to read: a label, a value, in groups. The terminal and the page share them.

Words only; nothing is measured or judged here. docs/data.md says what each line means.
"""

from __future__ import annotations

from typing import NamedTuple

from offline_cql.audit.distribution import Distribution
from offline_cql.audit.episodes import value_size
from offline_cql.audit.finding import figure, share
from offline_cql.audit.statistics import Figures


class Line(NamedTuple):
    """One label with its value."""

    label: str
    value: str


def lines(figures: Figures) -> dict[str, list[Line]]:
    """Groups of lines by their heading, in the order in which they are read."""
    return {
        "Data": _data(figures),
        "Episodes": _episodes(figures),
        "Rewards": _rewards(figures),
        "Alignment": _alignment(figures),
        "Observations": _observations(figures),
        "Actions": _actions(figures),
        "Similar states": _similar(figures),
    }


def spread(found: Distribution) -> str:
    """Mean and standard deviation, and where the middle 90 % lie."""
    middle = f"90 % in {figure(found.q05)} … {figure(found.q95)}"
    return f"{figure(found.mean)} ± {figure(found.std)}, {middle}"


def kind(figures: Figures) -> str:
    """What is seen and what is done, in a few words."""
    own = figures.identity
    seen = f"{own.observation_dim:,} {'pixels' if own.images else 'numbers'}"
    return f"{seen} → {own.action_dim:,} {'choices' if own.discrete else 'continuous'}"


def _data(figures: Figures) -> list[Line]:
    own, split = figures.identity, figures.split
    mended = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in figures.found.items())
    training = f"{split.training_transitions:,} transitions, {split.training_episodes:,} episodes"
    found = [
        Line("transitions", f"{own.transitions:,}"),
        Line("episodes", f"{own.episodes:,}"),
        Line("sees → does", kind(figures)),
        Line("to train on", training),
        Line("held out", f"{split.validation_episodes:,} episodes"),
        Line("mended on reading", mended or "nothing"),
        Line("sha256", own.sha256[:16]),
    ]
    if figures.duplicates is not None:
        copies = figures.duplicates
        text = f"{copies.transitions:,} transitions, {copies.episodes:,} whole episodes"
        found.insert(-1, Line("exact copies", text))
    return found


def _episodes(figures: Figures) -> list[Line]:
    found, scores = figures.episodes, figures.scores
    parts = share(found.terminal / found.count), share(found.truncated / found.count)
    score, source = "–", "no reference scores"
    if scores.normalized_score is not None:
        assert scores.reference_min is not None
        assert scores.reference_max is not None
        low, high = figure(scores.reference_min), figure(scores.reference_max)
        score = figure(scores.normalized_score)
        source = f"{low} is 0, {high} is 100; {scores.reference_source or 'source unknown'}"
    return [
        Line("length", f"{spread(found.length)}, at most {found.length.max:,.0f}"),
        Line("end", f"{parts[0]} terminal, {parts[1]} truncated"),
        Line("return", f"{spread(found.undiscounted)}, best {figure(found.undiscounted.max)}"),
        Line(f"return, γ = {found.gamma:g}", spread(found.discounted)),
        Line("behavior's return", figure(scores.behavior_return)),
        Line("normalized score", f"{score} ({source})"),
    ]


def _rewards(figures: Figures) -> list[Line]:
    found, split = figures.rewards, figures.split
    step = found.step
    size = value_size(figures.episodes, found)
    scaled = figure(size * split.reward_scale)
    how = f"dataset.reward_scale={split.reward_scale:g}"
    if split.return_range is not None:
        scaled, how = "?", f"dataset.return_range={split.return_range:g} scales them"
    return [
        Line("per step", f"{spread(step)}, all in {figure(step.min)} … {figure(step.max)}"),
        Line("zero", share(found.zero)),
        Line("on last steps", f"{share(found.at_ends)} of the sum of sizes"),
        Line("different values", "more than 20" if found.values is None else f"{found.values}"),
        Line("critics' values", f"about {scaled} ({how})"),
    ]


def _alignment(figures: Figures) -> list[Line]:
    found = figures.alignment
    looked = "" if figures.looked_at == figures.identity.transitions else ", of a sample"
    result = [Line("next = following", f"{found.equal:,} of {found.pairs:,} pairs{looked}")]
    if figures.lags is not None:
        for name, shares in (("action", figures.lags.action), ("reward", figures.lags.reward)):
            before, here, after = map(share, shares)
            text = f"explains {here} (a row earlier {before}, later {after})"
            result.append(Line(f"{name} in its row", text))
    return result


def _observations(figures: Figures) -> list[Line]:
    columns = figures.columns.columns
    kinds = {
        "constant": sum(c.constant for c in columns),
        "0 or 1": sum(c.binary and not c.constant for c in columns),
        "whole numbers": sum(c.whole and not c.binary and not c.constant for c in columns),
        "one-hot groups": len(figures.columns.one_hot),
        "clocks": sum(c.grows for c in columns),
        "fixed in episodes": sum(c.fixed_in_episodes for c in columns),
    }
    text = ", ".join(f"{count} {name}" for name, count in kinds.items() if count)
    size = figures.columns.total
    some = f"{size:,}" if len(columns) == size else f"{size:,} ({len(columns)} looked at)"
    scales = [c.std for c in columns if not c.constant]
    range_ = f"{figure(min(scales))} … {figure(max(scales))}" if scales else "–"
    return [
        Line("columns", f"{some}: {text or 'all are measurements'}"),
        Line("standard deviations", range_),
        Line("beyond 20 std", f"{sum(c.far for c in columns):,} values"),
    ]


def _actions(figures: Figures) -> list[Line]:
    found = figures.actions
    result = []
    if figures.identity.discrete:
        count = sum(choice.count for choice in found.choices)
        top = sorted(found.choices, key=lambda choice: -choice.count)[:5]
        taken = ", ".join(f"{c.name}: {share(c.count / count)}" for c in top)
        used = sum(choice.count > 0 for choice in found.choices)
        result = [
            Line("used", f"{used} of {len(found.choices)}"),
            Line("most frequent", taken),
            Line("entropy", f"{figure(found.entropy or 0.0)} nats"),
        ]
    else:
        low = min(d.evenness for d in found.dimensions)
        high = max(d.evenness for d in found.dimensions)
        most = max(found.dimensions, key=lambda d: d.saturated)
        result = [
            Line("bounds", _bounds(figures)),
            Line("at a bound", f"at most {share(most.saturated)} (action {most.name})"),
            Line("evenness", f"{figure(low)} … {figure(high)} (1: equal use of 20 intervals)"),
        ]
        if found.pairs is not None and found.pairs_min is not None:
            cells = f"{share(found.pairs)} of cells, least {share(found.pairs_min)}"
            result.append(Line("pairs of dimensions", cells))
    if (logged := figures.propensities) is not None:
        range_ = f"{figure(logged.values.min)} … {figure(logged.values.max)}"
        text = f"{range_}; {share(logged.effective)} of the steps count under random actions"
        result.append(Line("propensities", text))
    return result


def _bounds(figures: Figures) -> str:
    low, high = figures.identity.action_low, figures.identity.action_high
    pairs = list(dict.fromkeys(zip(low, high, strict=True)))
    text = ", ".join(f"{figure(a)} … {figure(b)}" for a, b in pairs[:3])
    return f"{text} and more" if len(pairs) > 3 else text


def _similar(figures: Figures) -> list[Line]:
    found = figures.neighbors
    if found is None:
        return []
    where = "in other episodes" if found.other_episodes else "in the same log"
    looked = f"{found.states:,} states, {found.nearest} nearest of {found.among:,} {where}"
    action = f"{figure(found.action)} of all (0: the state decides, 1: it says nothing)"
    if found.action_entropy is not None and found.action_entropy_of_all is not None:
        entropies = f"{figure(found.action_entropy)} of {figure(found.action_entropy_of_all)}"
        action += f"; {entropies} nats"
    returns = "–" if found.returns is None else f"{figure(found.returns)} of all"
    return [
        Line("looked at", looked),
        Line("distance", f"{share(found.distance)} of that between random states"),
        Line("spread of actions", action),
        Line("spread of returns", returns),
    ]
