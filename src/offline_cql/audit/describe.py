"""The statistics in words: labeled lines in groups, shared by the terminal and the page.

docs/data.md explains every line.
"""

from __future__ import annotations

from offline_cql.audit.distribution import Distribution
from offline_cql.audit.episodes import value_scale
from offline_cql.audit.finding import join_names
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.numbers import format_count, format_number, format_share, format_values

Lines = dict[str, str]  # value by label


def describe(statistics: DatasetStatistics) -> dict[str, Lines]:
    """Return the lines by the heading of their group, in reading order, without empty groups."""
    groups = {
        "Data": _data(statistics),
        "Episodes": _episodes(statistics),
        "Rewards": _rewards(statistics),
        "Alignment": _alignment(statistics),
        "Observations": _observations(statistics),
        "Actions": _actions(statistics),
        "Similar states": _similar_states(statistics),
    }
    return {heading: lines for heading, lines in groups.items() if lines}


def format_range(low: float | None, high: float | None) -> str:
    """Return `low … high`."""
    return f"{format_number(low)} … {format_number(high)}"


def format_distribution(distribution: Distribution) -> str:
    """Return mean ± standard deviation, and the interval of the middle 90%."""
    numbers = (distribution.mean, distribution.std, distribution.q05, distribution.q95)
    mean, std, low, high = format_values(*numbers, width=distribution.std)
    return f"{mean} ± {std}, 90% in {low} … {high}"


def describe_spaces(statistics: DatasetStatistics) -> str:
    """Return the sizes of both spaces: `3 columns → 1 continuous dimension`."""
    identity = statistics.identity
    observation = format_count(identity.observation_dim, "pixel" if identity.images else "column")
    kind = "discrete action" if identity.discrete else "continuous dimension"
    return f"{observation} → {format_count(identity.action_dim, kind)}"


def _data(statistics: DatasetStatistics) -> Lines:
    identity, split, copies = statistics.identity, statistics.split, statistics.duplicates
    repairs = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in statistics.repairs.items())
    training = f"{split.training_transitions:,} transitions, {split.training_episodes:,} episodes"
    lines = {
        "transitions": f"{identity.transitions:,}",
        "episodes": f"{identity.episodes:,}",
        "observation → action": describe_spaces(statistics),
        "training": training,
        "validation": f"{split.validation_episodes:,} episodes",
        "repairs while reading": repairs or "none",
    }
    if copies is not None:
        whole = f"{copies.episodes:,} whole episodes"
        lines["exact copies"] = f"{copies.transitions:,} transitions, {whole}"
    return lines | {"sha256": identity.sha256[:16]}


def _episodes(statistics: DatasetStatistics) -> Lines:
    episodes, scores = statistics.episodes, statistics.scores
    terminated = format_share(episodes.terminated / episodes.count)
    truncated = format_share(episodes.truncated / episodes.count)
    score = "– (no reference returns)"
    if scores.normalized_score is not None:
        low, high = format_number(scores.reference_min), format_number(scores.reference_max)
        source = scores.reference_source or "source unknown"
        score = f"{format_number(scores.normalized_score)} ({low} is 0, {high} is 100; {source})"
    best = format_number(episodes.undiscounted.max)
    return {
        "length": f"{format_distribution(episodes.length)}, max {episodes.length.max:,.0f}",
        "ends": f"{terminated} terminated, {truncated} truncated",
        "return": f"{format_distribution(episodes.undiscounted)}, max {best}",
        f"return, γ = {episodes.gamma:g}": format_distribution(episodes.discounted),
        "behavior return": format_number(scores.behavior_return),
        "normalized score": score,
    }


def _rewards(statistics: DatasetStatistics) -> Lines:
    rewards, split = statistics.rewards, statistics.split
    step = rewards.step
    size = format_number(value_scale(statistics.episodes, rewards) * split.reward_scale)
    values = f"about {size} (dataset.reward_scale={split.reward_scale:g})"
    if split.return_range is not None:
        values = f"scaled by dataset.return_range={split.return_range:g}"
    return {
        "per step": f"{format_distribution(step)}, all in {format_range(step.min, step.max)}",
        "zero": format_share(rewards.zero),
        "on last steps": f"{format_share(rewards.on_last_steps)} of the sum of |reward|",
        "distinct values": "more than 20" if rewards.distinct is None else f"{rewards.distinct}",
        "critic values": values,
    }


def _alignment(statistics: DatasetStatistics) -> Lines:
    alignment, misalignment = statistics.alignment, statistics.misalignment
    all_rows = statistics.rows_read == statistics.identity.transitions
    pairs = f"{alignment.matching:,} of {alignment.pairs:,} pairs{'' if all_rows else ', sampled'}"
    lines = {"next observation fits": pairs}
    if misalignment is not None:
        r2s = {"action": misalignment.action_r2_gain, "reward": misalignment.reward_r2}
        for name, r2 in r2s.items():
            previous, current, next_ = map(format_share, r2)
            others = f"previous row {previous}, following row {next_}"
            lines[f"{name} of its row"] = f"R² {current} ({others})"
    return lines


def _observations(statistics: DatasetStatistics) -> Lines:
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
    sample = len(columns) < observations.total
    total = f"{observations.total:,}{f' ({len(columns)} of them read)' if sample else ''}"
    scales = [c.std for c in columns if not c.constant]
    lines = {
        "columns": f"{total}: {text or 'all real-valued'}",
        "standard deviations": format_range(min(scales), max(scales)) if scales else "–",
        "outliers (> 20 std)": f"{sum(c.outliers for c in columns):,} values",
    }
    if (leakage := statistics.leakage) is not None:
        told = [f"{leak.column} tells {leak.source}" for leak in leakage.leaks]
        lines["leaks"] = f"{join_names(told) or 'none'}, in {leakage.rows:,} rows"
    return lines


def _actions(statistics: DatasetStatistics) -> Lines:
    discrete, propensities = statistics.identity.discrete, statistics.propensities
    kind = {"taken as": "choices" if discrete else "amounts"}
    if statistics.identity.action_kind_inferred:
        other = "false: amounts" if discrete else "true: choices"
        kind["taken as"] += f", by the type of the column (dataset.columns.discrete={other})"
    lines = kind | (_discrete_actions(statistics) if discrete else _continuous_actions(statistics))
    if propensities is not None:
        values = format_range(propensities.values.min, propensities.values.max)
        share = format_share(propensities.effective_sample_share)
        lines["propensities"] = f"{values}; effective sample {share} of the steps (uniform policy)"
    return lines


def _discrete_actions(statistics: DatasetStatistics) -> Lines:
    actions = statistics.actions.discrete_actions
    count = sum(action.count for action in actions)
    top = sorted(actions, key=lambda action: -action.count)[:5]
    return {
        "used": f"{sum(action.count > 0 for action in actions)} of {len(actions)}",
        "most frequent": ", ".join(f"{a.name}: {format_share(a.count / count)}" for a in top),
        "entropy": f"{format_number(statistics.actions.entropy or 0.0)} nats",
    }


def _continuous_actions(statistics: DatasetStatistics) -> Lines:
    actions, identity = statistics.actions, statistics.identity
    bounds = list(dict.fromkeys(map(format_range, identity.action_low, identity.action_high)))
    entropies = [d.normalized_entropy for d in actions.dimensions]
    most = max(actions.dimensions, key=lambda d: d.at_bounds)
    entropy = format_range(min(entropies), max(entropies))
    lines = {
        "bounds": ", ".join(bounds[:3]) + (" and more" if len(bounds) > 3 else ""),
        "at the action bounds": f"max {format_share(most.at_bounds)} (action {most.name})",
        "normalized entropy": f"{entropy} (1: uniform over 20 bins)",
    }
    if actions.pair_coverage is not None and actions.pair_coverage_min is not None:
        mean, lowest = format_share(actions.pair_coverage), format_share(actions.pair_coverage_min)
        lines["pairwise coverage"] = f"{mean} of 20 × 20 cells, min {lowest}"
    return lines


def _similar_states(statistics: DatasetStatistics) -> Lines:
    neighbors = statistics.neighbors
    if neighbors is None:
        return {}
    source = "other episodes" if neighbors.other_episodes else "the same log"
    search = f"{neighbors.k} nearest of {neighbors.candidates:,} from {source}"
    action = f"{format_number(neighbors.action_spread)} of the total (0: the state decides it)"
    if neighbors.action_entropy is not None:
        total = format_number(neighbors.action_entropy_total)
        action += f"; {format_number(neighbors.action_entropy)} of {total} nats"
    spread = neighbors.return_spread
    return {
        "compared": f"{neighbors.states:,} states, {search}",
        "distance": f"{format_share(neighbors.relative_distance)} of that of random states",
        "spread of actions": action,
        "spread of returns": "–" if spread is None else f"{format_number(spread)} of the total",
    }
