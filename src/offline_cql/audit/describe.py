"""The statistics in words: labeled lines in groups, shared by the terminal and the page.

docs/data.md explains every line.
"""

from __future__ import annotations

from typing import NamedTuple

from offline_cql.audit.distribution import Distribution
from offline_cql.audit.episodes import value_scale
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.numbers import format_count, format_number, format_share, format_spread


class Line(NamedTuple):
    """One label with its value."""

    label: str
    value: str


def describe(statistics: DatasetStatistics) -> dict[str, list[Line]]:
    """Return the lines by the heading of their group, in reading order."""
    return {
        "Data": _data(statistics),
        "Episodes": _episodes(statistics),
        "Rewards": _rewards(statistics),
        "Alignment": _alignment(statistics),
        "Observations": _observations(statistics),
        "Actions": _actions(statistics),
        "Similar states": _similar_states(statistics),
    }


def format_distribution(distribution: Distribution) -> str:
    """Return mean ± standard deviation, and the interval of the middle 90%."""
    low, high = format_number(distribution.q05), format_number(distribution.q95)
    return f"{format_spread(distribution.mean, distribution.std)}, 90% in {low} … {high}"


def describe_spaces(statistics: DatasetStatistics) -> str:
    """Return the sizes of both spaces: `3 columns → 1 continuous dimension`."""
    identity = statistics.identity
    observation = format_count(identity.observation_dim, "pixel" if identity.images else "column")
    kind = "discrete action" if identity.discrete else "continuous dimension"
    return f"{observation} → {format_count(identity.action_dim, kind)}"


def _data(statistics: DatasetStatistics) -> list[Line]:
    identity, split = statistics.identity, statistics.split
    repairs = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in statistics.repairs.items())
    training = f"{split.training_transitions:,} transitions, {split.training_episodes:,} episodes"
    lines = [
        Line("transitions", f"{identity.transitions:,}"),
        Line("episodes", f"{identity.episodes:,}"),
        Line("observation → action", describe_spaces(statistics)),
        Line("training", training),
        Line("validation", f"{split.validation_episodes:,} episodes"),
        Line("repairs while reading", repairs or "none"),
    ]
    if statistics.duplicates is not None:
        duplicates = statistics.duplicates
        text = f"{duplicates.transitions:,} transitions, {duplicates.episodes:,} whole episodes"
        lines.append(Line("exact copies", text))
    return [*lines, Line("sha256", identity.sha256[:16])]


def _episodes(statistics: DatasetStatistics) -> list[Line]:
    episodes, scores = statistics.episodes, statistics.scores
    terminated = format_share(episodes.terminated / episodes.count)
    truncated = format_share(episodes.truncated / episodes.count)
    score = "– (no reference returns)"
    if scores.normalized_score is not None:
        assert scores.reference_min is not None
        assert scores.reference_max is not None
        low, high = format_number(scores.reference_min), format_number(scores.reference_max)
        source = scores.reference_source or "source unknown"
        score = f"{format_number(scores.normalized_score)} ({low} is 0, {high} is 100; {source})"
    best = format_number(episodes.undiscounted.max)
    return [
        Line("length", f"{format_distribution(episodes.length)}, max {episodes.length.max:,.0f}"),
        Line("ends", f"{terminated} terminated, {truncated} truncated"),
        Line("return", f"{format_distribution(episodes.undiscounted)}, max {best}"),
        Line(f"return, γ = {episodes.gamma:g}", format_distribution(episodes.discounted)),
        Line("behavior return", format_number(scores.behavior_return)),
        Line("normalized score", score),
    ]


def _rewards(statistics: DatasetStatistics) -> list[Line]:
    rewards, split = statistics.rewards, statistics.split
    step = rewards.step
    size = value_scale(statistics.episodes, rewards)
    values = f"about {format_number(size * split.reward_scale)}"
    values += f" (dataset.reward_scale={split.reward_scale:g})"
    if split.return_range is not None:
        values = f"scaled by dataset.return_range={split.return_range:g}"
    low, high = format_number(step.min), format_number(step.max)
    return [
        Line("per step", f"{format_distribution(step)}, all in {low} … {high}"),
        Line("zero", format_share(rewards.zero)),
        Line("on last steps", f"{format_share(rewards.on_last_steps)} of the sum of |reward|"),
        Line(
            "distinct values", "more than 20" if rewards.distinct is None else f"{rewards.distinct}"
        ),
        Line("critic values", values),
    ]


def _alignment(statistics: DatasetStatistics) -> list[Line]:
    alignment = statistics.alignment
    all_rows = statistics.rows_read == statistics.identity.transitions
    pairs = f"{alignment.matching:,} of {alignment.pairs:,} pairs{'' if all_rows else ', sampled'}"
    lines = [Line("next observation fits", pairs)]
    if (misalignment := statistics.misalignment) is not None:
        for name, r2 in (
            ("action", misalignment.action_r2_gain),
            ("reward", misalignment.reward_r2),
        ):
            previous, current, next_ = map(format_share, r2)
            text = f"R² {current} (previous row {previous}, following row {next_})"
            lines.append(Line(f"{name} of its row", text))
    return lines


def _observations(statistics: DatasetStatistics) -> list[Line]:
    observations = statistics.observations
    columns = observations.columns
    kinds = {
        "constant": sum(c.constant for c in columns),
        "binary": sum(c.binary and not c.constant for c in columns),
        "integer": sum(c.integer and not c.binary and not c.constant for c in columns),
        "one-hot groups": len(observations.one_hot_groups),
        "increasing": sum(c.increasing for c in columns),
        "constant per episode": sum(c.constant_per_episode for c in columns),
    }
    text = ", ".join(f"{count} {name}" for name, count in kinds.items() if count)
    total = f"{observations.total:,}"
    if len(columns) < observations.total:
        total += f" ({len(columns)} of them read)"
    scales = [c.std for c in columns if not c.constant]
    return [
        Line("columns", f"{total}: {text or 'all real-valued'}"),
        Line(
            "standard deviations",
            f"{format_number(min(scales))} … {format_number(max(scales))}" if scales else "–",
        ),
        Line("outliers (> 20 std)", f"{sum(c.outliers for c in columns):,} values"),
    ]


def _actions(statistics: DatasetStatistics) -> list[Line]:
    discrete = statistics.identity.discrete
    lines = _discrete_actions(statistics) if discrete else _continuous_actions(statistics)
    if (propensities := statistics.propensities) is not None:
        low, high = format_number(propensities.values.min), format_number(propensities.values.max)
        share = format_share(propensities.effective_sample_share)
        text = f"{low} … {high}; effective sample {share} of the steps (uniform policy)"
        lines.append(Line("propensities", text))
    return lines


def _discrete_actions(statistics: DatasetStatistics) -> list[Line]:
    actions = statistics.actions.discrete_actions
    count = sum(action.count for action in actions)
    top = sorted(actions, key=lambda action: -action.count)[:5]
    used = sum(action.count > 0 for action in actions)
    return [
        Line("used", f"{used} of {len(actions)}"),
        Line("most frequent", ", ".join(f"{a.name}: {format_share(a.count / count)}" for a in top)),
        Line("entropy", f"{format_number(statistics.actions.entropy or 0.0)} nats"),
    ]


def _continuous_actions(statistics: DatasetStatistics) -> list[Line]:
    actions = statistics.actions
    entropies = [d.normalized_entropy for d in actions.dimensions]
    most = max(actions.dimensions, key=lambda d: d.at_bounds)
    low, high = format_number(min(entropies)), format_number(max(entropies))
    lines = [
        Line("bounds", _bounds(statistics)),
        Line("at the action bounds", f"max {format_share(most.at_bounds)} (action {most.name})"),
        Line("normalized entropy", f"{low} … {high} (1: uniform over 20 bins)"),
    ]
    if actions.pair_coverage is not None and actions.pair_coverage_min is not None:
        mean, lowest = format_share(actions.pair_coverage), format_share(actions.pair_coverage_min)
        lines.append(Line("pairwise coverage", f"{mean} of 20 × 20 cells, min {lowest}"))
    return lines


def _bounds(statistics: DatasetStatistics) -> str:
    low, high = statistics.identity.action_low, statistics.identity.action_high
    pairs = list(dict.fromkeys(zip(low, high, strict=True)))
    text = ", ".join(f"{format_number(a)} … {format_number(b)}" for a, b in pairs[:3])
    return f"{text} and more" if len(pairs) > 3 else text


def _similar_states(statistics: DatasetStatistics) -> list[Line]:
    neighbors = statistics.neighbors
    if neighbors is None:
        return []
    source = "other episodes" if neighbors.other_episodes else "the same log"
    search = f"{neighbors.k} nearest of {neighbors.candidates:,} from {source}"
    action = f"{format_number(neighbors.action_spread)} of the total (0: the state decides it)"
    if neighbors.action_entropy is not None and neighbors.action_entropy_total is not None:
        local = format_number(neighbors.action_entropy)
        action += f"; {local} of {format_number(neighbors.action_entropy_total)} nats"
    spread = neighbors.return_spread
    returns = "–" if spread is None else f"{format_number(spread)} of the total"
    distance = f"{format_share(neighbors.relative_distance)} of that of random states"
    return [
        Line("compared", f"{neighbors.states:,} states, {search}"),
        Line("distance", distance),
        Line("spread of actions", action),
        Line("spread of returns", returns),
    ]
