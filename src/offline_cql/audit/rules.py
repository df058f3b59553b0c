"""Rules that judge the statistics of a data set: one function per problem, named after it.

Each returns a finding, or None when the data do not have the problem. `behavior_rules.py` holds
those about the policy that collected the data. docs/data.md lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offline_cql.audit import behavior_rules as behavior
from offline_cql.audit.columns import ColumnStatistics
from offline_cql.audit.episodes import value_scale
from offline_cql.audit.finding import LEVELS, Finding, join_names
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.numbers import format_count, format_number, format_share

MIN_R2 = 0.05  # of an action in another row; below, the fit cannot tell
MIN_REWARD_R2 = 0.5  # of a reward in another row
SHIFT_FACTOR = 1.5  # the other row must explain so many times as much, or leave so much less
FAR_OUTLIER_STD = 50.0  # standard deviations that make outliers a warning
SPARSE_REWARD = 0.05  # share of steps with a reward
MIN_VALUE, MAX_VALUE, SUGGESTED_VALUE = 0.3, 3_000.0, 100.0  # order of magnitude of critic values
LONGEST_SHARE = 0.05  # of the episodes have the largest length if there is a time limit
LONGEST_TERMINATED = 0.9  # of those terminate if it is marked wrongly
SINGLE_STEP_SHARE = 0.1  # of the episodes
FEW_TRANSITIONS = 1_000
COPIED_SHARE = 0.01  # of the transitions; changes what is learned

# What the readers repair, by name in Transitions.repairs; other names are shown as they are.
REPAIRS = {
    "clipped_actions": "actions outside their bounds by rounding were clipped",
    "terminal_and_truncated": "steps were both terminated and truncated: they count as terminated",
    "unfinished_last_episode": "last episode had no end: it counts as truncated",
    "episodes_without_an_end": "episodes had no end: they count as truncated",
    "episodes_over_two_files": "episodes continue in the next file and were joined",
    "dropped_last_steps": "last steps had no next observation and were dropped",
    "dropped_episodes_of_one_step": "episodes of one step had no next observation and were dropped",
    "last_step_dropped": "last row of the file was dropped, as D4RL's reader does",
    "steps_dropped_at_timeouts": "rows at time limits were dropped, as D4RL's reader does",
    "terminals_dropped_at_timeouts": "of the rows dropped at time limits were terminated",
    "steps_without_their_text": "steps contained text, which was dropped",
}


def apply_rules(statistics: DatasetStatistics) -> list[Finding]:
    """Return all findings: errors first, then warnings, then notes."""
    results = [rule(statistics) for rule in RULES]
    findings = [finding for finding in results if finding is not None]
    findings += repairs(statistics)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


# --- Alignment of the arrays ---------------------------------------------------------------------


def next_observation_shifted(statistics: DatasetStatistics) -> Finding | None:
    """Detect a next observation that is the row's own, or the one two steps later."""
    alignment = statistics.alignment
    mismatches = alignment.pairs - alignment.matching
    for count, source in (
        (alignment.equal_to_current, "the observation of the same step"),
        (alignment.equal_to_second_next, "the observation two steps later"),
    ):
        if 2 * count > mismatches and 2 * mismatches > alignment.pairs:
            return Finding(
                level="error",
                name="next_observation_shifted",
                message=f"next_observation equals {source} in {count:,} of {alignment.pairs:,} "
                "pairs of steps: the arrays were joined with a shift",
                remedy="export next_observation again, or leave it out of the mapping: it is then "
                "taken from the following row",
            )
    return None


def next_observation_mismatch(statistics: DatasetStatistics) -> Finding | None:
    """Detect next observations that differ from the following step's observation otherwise."""
    alignment = statistics.alignment
    mismatches = alignment.pairs - alignment.matching
    if alignment.first_mismatch is None or next_observation_shifted(statistics):
        return None
    episode, step = alignment.first_mismatch
    return Finding(
        level="warning",
        name="next_observation_mismatch",
        message=f"next_observation differs from the following step's observation in "
        f"{mismatches:,} of {alignment.pairs:,} pairs "
        f"({format_share(mismatches / alignment.pairs)}), in "
        f"{format_count(alignment.episodes_with_mismatch, 'episode')}, first in episode {episode} "
        f"at step {step}",
        remedy="check the order of the rows, and that episodes are not interleaved or cut in "
        "pieces",
    )


def action_shifted(statistics: DatasetStatistics) -> Finding | None:
    """Detect actions that explain the change of the observation better from another row."""
    if statistics.misalignment is None:
        return None
    previous, current, next_ = statistics.misalignment.action_r2_gain
    best = max(previous, next_)
    if best <= max(MIN_R2, SHIFT_FACTOR * current):
        return None
    row, timing = _shift(next_ > previous)
    return Finding(
        level="warning",
        name="action_shifted",
        message=f"the action of the {row} row explains {format_share(best)} of the change of the "
        f"observation, the row's own {format_share(current)}: it may be logged one step {timing}",
        remedy="look at a few rows: is the action the one that followed the row's observation?",
    )


def reward_shifted(statistics: DatasetStatistics) -> Finding | None:
    """Detect rewards that a step explains better in another row."""
    if statistics.misalignment is None:
        return None
    previous, current, next_ = statistics.misalignment.reward_r2
    best = max(previous, next_)
    if best <= MIN_REWARD_R2 or SHIFT_FACTOR * (1 - best) >= 1 - current:
        return None
    row, timing = _shift(next_ > previous)
    return Finding(
        level="warning",
        name="reward_shifted",
        message=f"the step explains {format_share(best)} of the reward of the {row} row, "
        f"{format_share(current)} of the row's own: it may be logged one step {timing}",
        remedy="look at a few rows: is the reward the one that followed the row's action?",
    )


def _shift(is_next: bool) -> tuple[str, str]:
    return ("following", "late") if is_next else ("previous", "early")


# --- Observations --------------------------------------------------------------------------------


def observation_leaks_action(statistics: DatasetStatistics) -> Finding | None:
    """Detect observation columns that repeat the action of the same step."""
    columns = statistics.observations.columns
    names = [f"{c.name} ({c.same_as})" for c in columns if c.same_as and "action" in c.same_as]
    if not names:
        return None
    return Finding(
        level="error",
        name="observation_leaks_action",
        message="observation columns repeat the action of their own step, which is not known when "
        f"the policy acts: {join_names(names)}",
        remedy="leave the column out of the observation, or log the previous action there",
    )


def observation_leaks_reward(statistics: DatasetStatistics) -> Finding | None:
    """Detect observation columns that repeat the reward of the same step."""
    names = _column_names(statistics, lambda column: column.same_as == "the reward")
    if not names:
        return None
    return Finding(
        level="warning",
        name="observation_leaks_reward",
        message="observation columns repeat the reward of their own step, which is not known when "
        f"the policy acts: {join_names(names)}",
        remedy="leave the column out of the observation",
    )


def observation_sentinel(statistics: DatasetStatistics) -> Finding | None:
    """Detect placeholders for missing measurements, such as -999."""
    columns = statistics.observations.columns
    names = [f"{c.name} ({format_number(c.sentinel)})" for c in columns if c.sentinel is not None]
    if not names:
        return None
    return Finding(
        level="warning",
        name="observation_sentinel",
        message="one value repeats far from all others, as a placeholder for a missing "
        f"measurement does: {join_names(names)}",
        remedy="replace it, for example by the last measurement, and add a column that marks "
        "missing ones",
    )


def observation_outliers(statistics: DatasetStatistics) -> Finding | None:
    """Detect values more than 20 standard deviations from the mean of their column."""
    columns = [column for column in statistics.observations.columns if column.outliers]
    if not columns:
        return None
    farthest = max(max(c.max - c.mean, c.mean - c.min) / c.std for c in columns)
    names = join_names([f"{c.name} ({format_count(c.outliers, 'row')})" for c in columns])
    return Finding(
        level="warning" if farthest > FAR_OUTLIER_STD else "note",
        name="observation_outliers",
        message=f"values up to {format_number(farthest)} standard deviations from the mean: "
        f"{names}",
        remedy="look for sensor faults and for units that change",
    )


def observation_nearly_constant(statistics: DatasetStatistics) -> Finding | None:
    """Detect columns whose variation is lost in float32."""
    names = _column_names(statistics, lambda column: column.nearly_constant)
    if not names:
        return None
    return Finding(
        level="warning",
        name="observation_nearly_constant",
        message="columns vary by less than a millionth of their size, which float32 rounds away: "
        f"{join_names(names)}",
        remedy="subtract a constant from the column before logging it, or leave it out",
    )


def observation_constant(statistics: DatasetStatistics) -> Finding | None:
    """Detect columns with a single value."""
    names = _column_names(statistics, lambda column: column.constant)
    if not names:
        return None
    return Finding(
        level="note",
        name="observation_constant",
        message=f"{len(names)} of {len(statistics.observations.columns)} observation columns are "
        f"constant: {join_names(names)}",
        remedy="none needed: a constant column has no effect",
    )


def observation_increasing(statistics: DatasetStatistics) -> Finding | None:
    """Detect columns that grow with every step."""
    names = _column_names(statistics, lambda column: column.increasing)
    if not names:
        return None
    return Finding(
        level="note",
        name="observation_increasing",
        message=f"columns grow with every step, as a clock or a row number does: "
        f"{join_names(names)}",
        remedy="leave the column out unless it is known when the policy acts and should matter",
    )


def observation_constant_per_episode(statistics: DatasetStatistics) -> Finding | None:
    """Detect columns that do not change within an episode."""
    names = _column_names(statistics, lambda column: column.constant_per_episode)
    if not names or statistics.identity.episodes == 1:
        return None
    return Finding(
        level="note",
        name="observation_constant_per_episode",
        message=f"columns do not change within an episode, as a goal or an id: {join_names(names)}",
        remedy="leave an id out: new episodes will have other ids",
    )


def _column_names(
    statistics: DatasetStatistics, select: Callable[[ColumnStatistics], bool]
) -> list[str]:
    return [column.name for column in statistics.observations.columns if select(column)]


# --- Rewards -------------------------------------------------------------------------------------


def reward_constant(statistics: DatasetStatistics) -> Finding | None:
    """Detect rewards that are all equal; a note where the length of an episode still counts."""
    step = statistics.rewards.step
    if step.min != step.max:
        return None
    length_counts = step.min != 0 and statistics.episodes.terminated > 0
    reason = (
        "only the length of an episode counts"
        if length_counts
        else "no action is better than another"
    )
    return Finding(
        level="note" if length_counts else "error",
        name="reward_constant",
        message=f"every reward is {format_number(step.min)}: {reason}",
        remedy="check the reward column; python train.py algorithm=bc … learns without rewards",
    )


def reward_sparse(statistics: DatasetStatistics) -> Finding | None:
    """Detect rewards that are 0 in almost every step."""
    rewards = statistics.rewards
    if rewards.zero <= 1 - SPARSE_REWARD or rewards.step.min == rewards.step.max:
        return None
    return Finding(
        level="note",
        name="reward_sparse",
        message=f"only {format_share(1 - rewards.zero)} of the rewards are not 0",
        remedy="try a larger dataset.reward_scale, dataset.n_step=3 and more updates",
    )


def reward_scale(statistics: DatasetStatistics) -> Finding | None:
    """Detect values that cql.alpha, in reward units, is far too small or too large for."""
    split = statistics.split
    size = value_scale(statistics.episodes, statistics.rewards) * split.reward_scale
    # dataset.return_range chooses the scale itself.
    if split.return_range is not None or size == 0 or MIN_VALUE <= size <= MAX_VALUE:
        return None
    suggested = float(f"{split.reward_scale * SUGGESTED_VALUE / size:.0e}")
    return Finding(
        level="warning",
        name="reward_scale",
        message=f"critic values are of the order of {format_number(size)} with "
        f"dataset.reward_scale={format_number(split.reward_scale)}: cql.alpha, in reward units, "
        f"has {'little' if size > MAX_VALUE else 'too much'} weight against them",
        remedy=f"set dataset.reward_scale={suggested:g}",
    )


# --- Episodes ------------------------------------------------------------------------------------


def time_limit_as_terminated(statistics: DatasetStatistics) -> Finding | None:
    """Detect time limits that are marked as terminated, which stops bootstrapping."""
    episodes = statistics.episodes
    length = round(episodes.length.max)
    if (
        length <= 1
        or episodes.longest < max(3, LONGEST_SHARE * episodes.count)
        or episodes.longest_terminated <= LONGEST_TERMINATED * episodes.longest
    ):
        return None
    return Finding(
        level="warning",
        name="time_limit_as_terminated",
        message=f"{episodes.longest_terminated:,} of {episodes.count:,} episodes terminate after "
        f"exactly {length:,} steps, the largest length: a time limit marked as terminated does "
        "not bootstrap",
        remedy="mark the ends at a time limit as truncated",
    )


def no_terminated_episode(statistics: DatasetStatistics) -> Finding | None:
    """Detect data in which every episode is truncated."""
    if statistics.episodes.terminated:
        return None
    return Finding(
        level="note",
        name="no_terminated_episode",
        message=f"no episode terminates, all {statistics.episodes.count:,} are truncated: every "
        "value bootstraps",
        remedy="expected in a task without an end; otherwise check the terminated column",
    )


def single_step_episodes(statistics: DatasetStatistics) -> Finding | None:
    """Detect episodes of one step; a warning if they are frequent."""
    episodes = statistics.episodes
    if not episodes.single_step or episodes.count == 1:
        return None
    return Finding(
        level="warning" if episodes.single_step > SINGLE_STEP_SHARE * episodes.count else "note",
        name="single_step_episodes",
        message=f"{episodes.single_step:,} of {episodes.count:,} episodes have one step",
        remedy="check the episode column; expected if every decision stands alone",
    )


def single_episode(statistics: DatasetStatistics) -> Finding | None:
    """Detect data that are a single episode."""
    if statistics.episodes.count > 1:
        return None
    return Finding(
        level="warning",
        name="single_episode",
        message="there is only one episode: returns have no spread, none remains for validation",
        remedy="check the episode column, or mark the ends of episodes in the log",
    )


def equal_returns(statistics: DatasetStatistics) -> Finding | None:
    """Detect episodes that all have the same return."""
    episodes = statistics.episodes
    if episodes.count == 1 or episodes.undiscounted.min != episodes.undiscounted.max:
        return None
    return Finding(
        level="note",
        name="equal_returns",
        message=f"all {episodes.count:,} episodes have the return "
        f"{format_number(episodes.undiscounted.min)}",
        remedy="do not use dataset.top_fraction and dataset.return_range: they compare returns",
    )


def few_transitions(statistics: DatasetStatistics) -> Finding | None:
    """Detect data sets of fewer than 1,000 transitions."""
    if statistics.identity.transitions >= FEW_TRANSITIONS:
        return None
    return Finding(
        level="note",
        name="few_transitions",
        message=f"{format_count(statistics.identity.transitions, 'transition')} are few to learn "
        "from",
        remedy="use a small network (network=small) and few updates",
    )


# --- Copies --------------------------------------------------------------------------------------


def duplicate_episodes(statistics: DatasetStatistics) -> Finding | None:
    """Detect episodes that occur more than once; a warning if they are many."""
    duplicates, size = statistics.duplicates, statistics.identity.transitions
    if duplicates is None or duplicates.first is None:
        return None
    copy, original = duplicates.first
    share = duplicates.transitions_in_copied_episodes / size
    return Finding(
        level="warning" if share > COPIED_SHARE else "note",
        name="duplicate_episodes",
        message=f"{duplicates.episodes:,} of {statistics.identity.episodes:,} episodes are copies "
        f"({format_share(share)} of the transitions), the first is episode {copy}, a copy of "
        f"episode {original}",
        remedy="remove the copies: they count twice, and validation would contain training data",
    )


def duplicate_transitions(statistics: DatasetStatistics) -> Finding | None:
    """Detect many transitions that occur more than once outside copied episodes."""
    duplicates, size = statistics.duplicates, statistics.identity.transitions
    if duplicates is None:
        return None
    count = duplicates.transitions - duplicates.transitions_in_copied_episodes
    if count <= COPIED_SHARE * size:
        return None
    return Finding(
        level="note",
        name="duplicate_transitions",
        message=f"{count:,} transitions ({format_share(count / size)}) are copies outside copied "
        "episodes",
        remedy="expected in small discrete tasks; otherwise look for logs that overlap",
    )


# --- Repairs and scores --------------------------------------------------------------------------


def repairs(statistics: DatasetStatistics) -> list[Finding]:
    """Return one note per kind of repair that a reader made."""
    return [
        Finding(
            level="note",
            name=f"repaired_{name}",
            message=f"{count:,} {REPAIRS[name]}"
            if name in REPAIRS
            else f"{name.replace('_', ' ')}: {count:,}",
            remedy="none needed: repaired while reading",
        )
        for name, count in statistics.repairs.items()
    ]


def no_reference_scores(statistics: DatasetStatistics) -> Finding | None:
    """Detect tasks without reference returns, whose returns cannot be normalized."""
    if statistics.scores.normalized_score is not None:
        return None
    return Finding(
        level="note",
        name="no_reference_scores",
        message="no reference returns: scores are not normalized",
        remedy="set env.reference_min=… and env.reference_max=…, the returns of a random and of a "
        "good policy",
    )


RULES: Sequence[Callable[[DatasetStatistics], Finding | None]] = (
    next_observation_shifted,
    next_observation_mismatch,
    action_shifted,
    reward_shifted,
    observation_leaks_action,
    observation_leaks_reward,
    observation_sentinel,
    observation_outliers,
    observation_nearly_constant,
    observation_constant,
    observation_increasing,
    observation_constant_per_episode,
    reward_constant,
    reward_sparse,
    reward_scale,
    behavior.action_constant,
    behavior.action_narrow,
    behavior.action_saturated,
    behavior.action_unused,
    time_limit_as_terminated,
    no_terminated_episode,
    single_step_episodes,
    single_episode,
    equal_returns,
    few_transitions,
    duplicate_episodes,
    duplicate_transitions,
    behavior.propensity_one,
    behavior.propensity_small,
    behavior.propensity_effective_sample,
    behavior.neighbors_far,
    behavior.behavior_deterministic,
    no_reference_scores,
)
