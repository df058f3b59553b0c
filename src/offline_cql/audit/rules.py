"""Rules that judge the statistics of a data set: one function per problem, named after it.

docs/data.md lists them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from offline_cql.audit.episodes import value_scale
from offline_cql.audit.finding import LEVELS, Finding, join_names
from offline_cql.audit.leakage import Leak, describe_measure
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.readers.writer import DROPPED, FEW_VALUES
from offline_cql.render.numbers import format_count, format_number, format_share

MIN_R2 = 0.05  # of an action in another row; below, the fit cannot tell
MIN_REWARD_R2 = 0.5  # of a reward in another row
SHIFT_FACTOR = 1.5  # the other row must explain so many times as much, or leave so much less
FAR_OUTLIER_STD = 50.0  # standard deviations that make outliers a warning
FLOAT32_ROUNDING = 1e-6  # std / |mean|
SPARSE_REWARD = 0.05  # share of steps with a reward
MIN_VALUE, MAX_VALUE, SUGGESTED_VALUE = 0.3, 3_000.0, 100.0  # order of magnitude of critic values
NARROW = 0.1  # of the bounds of an action
SATURATED = 0.5  # share of the steps at the bounds of an action
LONGEST_SHARE = 0.05  # of the episodes have the largest length if there is a time limit
LONGEST_TERMINATED = 0.9  # of those terminate if it is marked wrongly
SINGLE_STEP_SHARE = 0.1  # of the episodes
FEW_TRANSITIONS = 1_000
MANY_VISITS = 10  # transitions per different observation; copies then happen by chance
COPIED_SHARE = 0.01  # of the transitions; changes what is learned
SMALL_PROPENSITY = 1e-3  # gives single steps a weight above 1,000
MIN_EFFECTIVE_SAMPLE = 0.01  # share of the steps
FAR_NEIGHBORS = 0.7  # of the distance of random states
LARGE_REPAIR = 0.05  # share of the rows, or of the episodes
DETERMINISTIC_SPREAD = 0.05  # of the total spread of the actions

# What the readers repair, by name in Transitions.repairs; other names are shown as they are.
REPAIRS = {
    "clipped_actions": "actions outside their bounds by rounding were clipped",
    "terminal_and_truncated": "steps were both terminated and truncated: they count as terminated",
    "unfinished_last_episode": "last episode had no end: it counts as truncated",
    "episodes_without_an_end": "episodes had no end: they count as truncated",
    "sorted_rows": "rows were sorted by episode and step",
    "dropped_incomplete_rows": "rows with missing values were dropped; their episodes end before",
    "filled_observations": "missing observations were filled with the last value of the episode",
    "flagged_observations": "missing observations were filled with the mean and flagged",
    "episodes_split_by_filter": "times dataset.filter leaves out rows in an episode: it is split",
    "episodes_over_two_files": "episodes continue in the next file and were joined",
    "dropped_last_steps": "last steps had no next observation and were dropped",
    "dropped_episodes_of_one_step": "episodes of one step had no next observation and were dropped",
    "last_step_dropped": "last row of the file was dropped, as D4RL's reader does",
    "steps_dropped_at_timeouts": "rows at time limits were dropped, as D4RL's reader does",
    "terminals_dropped_at_timeouts": "of the rows dropped at time limits were terminated",
    "steps_without_their_text": "steps contained text, which was dropped",
}
OF_EPISODES = (
    *("terminal_and_truncated", "episodes_without_an_end", "episodes_over_two_files"),
    "episodes_split_by_filter",
)
# What to do where a repair concerns a large share of the data.
REPAIR_REMEDIES = {
    "terminal_and_truncated": "mark a time limit as truncated alone: a terminated step does not "
    "bootstrap",
    "dropped_last_steps": "mark the rows as terminated if the task ended there, or map the columns "
    "of next observations",
    "dropped_episodes_of_one_step": "mark the rows as terminated, or set dataset.one_step=true if "
    "every row is a decision of its own",
    "steps_dropped_at_timeouts": "expected in data with short episodes; check the timeouts",
}

Result = str | dict[str, str] | None
Rule = Callable[[DatasetStatistics], Finding | None]
RULES: list[Rule] = []


def rule(level: str, remedy: str = "") -> Callable[[Callable[[DatasetStatistics], Result]], Rule]:
    """Make a function a rule, whose finding has the function's name.

    The function returns the message; a dict of the finding's fields where level or remedy depend
    on the data; None when the data do not have the problem.
    """

    def register(detect: Callable[[DatasetStatistics], Result]) -> Rule:
        @functools.wraps(detect)
        def apply(statistics: DatasetStatistics) -> Finding | None:
            result = detect(statistics)
            if not result:
                return None
            fields = {"message": result} if isinstance(result, str) else result
            return Finding(**{"level": level, "name": detect.__name__, "remedy": remedy} | fields)

        RULES.append(apply)
        return apply

    return register


def apply_rules(statistics: DatasetStatistics) -> list[Finding]:
    """Return all findings: errors first, then warnings, then notes."""
    results = [apply(statistics) for apply in RULES]
    findings = [finding for finding in results if finding is not None]
    findings += repairs(statistics)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


# --- Alignment of the arrays ---------------------------------------------------------------------


@rule(
    "error",
    "export next_observation again, or leave it out of the mapping: it is then taken from the "
    "following row",
)
def next_observation_shifted(statistics: DatasetStatistics) -> Result:
    """Detect a next observation that is the row's own, or the one two steps later."""
    alignment = statistics.alignment
    mismatches = alignment.pairs - alignment.matching
    for count, source in (
        (alignment.equal_to_current, "the observation of the same step"),
        (alignment.equal_to_second_next, "the observation two steps later"),
    ):
        if 2 * count > mismatches and 2 * mismatches > alignment.pairs:
            return (
                f"next_observation equals {source} in {count:,} of {alignment.pairs:,} pairs of "
                "steps: the arrays were joined with a shift"
            )
    return None


@rule(
    "warning", "check the order of the rows, and that episodes are not interleaved or cut in pieces"
)
def next_observation_mismatch(statistics: DatasetStatistics) -> Result:
    """Detect next observations that differ from the following step's observation otherwise."""
    alignment = statistics.alignment
    mismatches = alignment.pairs - alignment.matching
    if alignment.first_mismatch is None or next_observation_shifted(statistics):
        return None
    episode, step = alignment.first_mismatch
    return (
        f"next_observation differs from the following step's observation in {mismatches:,} of "
        f"{alignment.pairs:,} pairs ({format_share(mismatches / alignment.pairs)}), in "
        f"{format_count(alignment.episodes_with_mismatch, 'episode')}, first in episode {episode} "
        f"at step {step}"
    )


@rule("warning", "look at a few rows: is the action the one that followed the row's observation?")
def action_shifted(statistics: DatasetStatistics) -> Result:
    """Detect actions that explain the change of the observation better from another row."""
    if statistics.misalignment is None:
        return None
    best, current, row, timing = _best_other_row(statistics.misalignment.action_r2_gain)
    if best <= max(MIN_R2, SHIFT_FACTOR * current):
        return None
    return (
        f"the action of the {row} row explains {format_share(best)} of the change of the "
        f"observation, the row's own {format_share(current)}: it may be logged one step {timing}"
    )


@rule("warning", "look at a few rows: is the reward the one that followed the row's action?")
def reward_shifted(statistics: DatasetStatistics) -> Result:
    """Detect rewards that a step explains better in another row."""
    if statistics.misalignment is None:
        return None
    best, current, row, timing = _best_other_row(statistics.misalignment.reward_r2)
    if best <= MIN_REWARD_R2 or SHIFT_FACTOR * (1 - best) >= 1 - current:
        return None
    return (
        f"the step explains {format_share(best)} of the reward of the {row} row, "
        f"{format_share(current)} of the row's own: it may be logged one step {timing}"
    )


def _best_other_row(r2: list[float]) -> tuple[float, float, str, str]:
    """Return R² of the better of the other rows, R² of the row itself, and that row in words."""
    previous, current, next_ = r2
    words = ("following", "late") if next_ > previous else ("previous", "early")
    return max(previous, next_), current, *words


# --- Observations --------------------------------------------------------------------------------


def _columns(statistics: DatasetStatistics, kind: str) -> str:
    """Return the names of the observation columns that have a flag of ColumnStatistics.

    Without identifiers, which have a finding of their own.
    """
    identifiers = {leak.column for leak in _leaks(statistics, "identifier")}
    columns = [c for c in statistics.observations.columns if c.name not in identifiers]
    return join_names([c.name for c in columns if getattr(c, kind)])


def _leaks(statistics: DatasetStatistics, *kinds: str) -> list[Leak]:
    leaks = statistics.leakage.leaks if statistics.leakage else []
    return [leak for leak in leaks if leak.kind in kinds]


def _leak_names(leaks: Sequence[Leak]) -> str:
    """Return the columns, each with what it tells and how well."""
    return join_names(
        [f"{leak.column} ({leak.source}: {describe_measure(leak)})" for leak in leaks]
    )


@rule(
    "warning",
    "leave the column out of the observation, or log the previous action there; keep it only if it "
    "is known before the action and the policy follows it",
)
def observation_leaks_action(statistics: DatasetStatistics) -> Result:
    """Detect observation columns that tell the action of the same step; an error if equal."""
    leaks = _leaks(statistics, "action")
    if not leaks:
        return None
    message = (
        "observation columns tell the action of their own step, which is not known when the policy "
        f"acts: {_leak_names(leaks)}"
    )
    level = "error" if any(leak.copy for leak in leaks) else "warning"
    return {"level": level, "message": message}


@rule("warning", "leave the column out of the observation, or log the previous reward there")
def observation_leaks_reward(statistics: DatasetStatistics) -> Result:
    """Detect observation columns that tell the reward of the same step."""
    leaks = _leaks(statistics, "reward")
    text = "observation columns tell the reward of their own step, which follows the action"
    return f"{text}: {_leak_names(leaks)}" if leaks else None


@rule("warning", "leave the column out of the observation: a policy cannot know how it will end")
def observation_leaks_outcome(statistics: DatasetStatistics) -> Result:
    """Detect observation columns that tell the return, the end or the length of the episode."""
    leaks = _leaks(statistics, "outcome")
    text = "observation columns tell how the episode goes on or ends"
    return f"{text}: {_leak_names(leaks)}" if leaks else None


@rule("warning", "leave the column out of the observation, or log its previous value there")
def observation_leaks_future(statistics: DatasetStatistics) -> Result:
    """Detect observation columns that hold a value of the next step, which the action changes."""
    leaks = _leaks(statistics, "future")
    text = "observation columns tell values of the next step"
    return f"{text}: {_leak_names(leaks)}" if leaks else None


@rule(
    "note",
    "leave it out if it is logged after the action; fine if the other column is its previous value",
)
def observation_next_value(statistics: DatasetStatistics) -> Result:
    """Detect pairs of columns that are the same numbers one step apart, in an unknown direction."""
    leaks = _leaks(statistics, "lead")
    return f"columns equal another one a step later: {_leak_names(leaks)}" if leaks else None


@rule("warning", "leave the column out of the observation: new data will have other values")
def observation_identifier(statistics: DatasetStatistics) -> Result:
    """Detect numbers of rows or episodes, and times that never repeat."""
    leaks = _leaks(statistics, "identifier")
    text = "no two episodes share a value of columns, as of an id or a date"
    return f"{text}: {join_names([leak.column for leak in leaks])}" if leaks else None


@rule(
    "warning",
    "replace it, for example by the last measurement, and add a column that marks missing ones",
)
def observation_sentinel(statistics: DatasetStatistics) -> Result:
    """Detect placeholders for missing measurements, such as -999."""
    columns = statistics.observations.columns
    names = [f"{c.name} ({format_number(c.sentinel)})" for c in columns if c.sentinel is not None]
    text = "one value repeats far from all others, as a placeholder for a missing measurement does"
    return f"{text}: {join_names(names)}" if names else None


@rule("note", "look for sensor faults and for units that change")
def observation_outliers(statistics: DatasetStatistics) -> Result:
    """Detect values more than 20 standard deviations from the mean of their column."""
    columns = [column for column in statistics.observations.columns if column.outliers]
    if not columns:
        return None
    farthest = max(max(c.max - c.mean, c.mean - c.min) / c.std for c in columns)
    names = join_names([f"{c.name} ({format_count(c.outliers, 'row')})" for c in columns])
    message = f"values up to {format_number(farthest)} standard deviations from the mean: {names}"
    return {"level": "warning", "message": message} if farthest > FAR_OUTLIER_STD else message


@rule("warning", "subtract a constant from the column before logging it, or leave it out")
def observation_nearly_constant(statistics: DatasetStatistics) -> Result:
    """Detect columns whose variation is small against their size."""
    columns = [c for c in statistics.observations.columns if c.nearly_constant]
    if not columns:
        return None
    names = join_names([c.name for c in columns])
    least = min(c.std / abs(c.mean) for c in columns)
    lost = ", of which float32 rounds away most" if least < FLOAT32_ROUNDING else ""
    return (
        f"columns hardly vary: {names}; a value that is 1% of the mean off is at least 100 "
        f"standard deviations off for the policy{lost}"
    )


@rule("note", "none needed: a constant column has no effect")
def observation_constant(statistics: DatasetStatistics) -> Result:
    """Detect columns with a single value."""
    columns, names = statistics.observations.columns, _columns(statistics, "constant")
    count = f"{sum(c.constant for c in columns)} of {len(columns)}"
    return f"{count} observation columns are constant: {names}" if names else None


@rule("note", "leave the column out unless it is known when the policy acts and should matter")
def observation_increasing(statistics: DatasetStatistics) -> Result:
    """Detect columns that grow with every step."""
    names = _columns(statistics, "increasing")
    return (
        f"columns grow with every step, as a clock or a row number does: {names}" if names else ""
    )


@rule("note", "leave an id out: new episodes will have other ids")
def observation_constant_per_episode(statistics: DatasetStatistics) -> Result:
    """Detect columns that do not change within an episode."""
    names = _columns(statistics, "constant_per_episode")
    if not names or statistics.identity.episodes == 1:
        return None
    return f"columns do not change within an episode, as a goal or an id: {names}"


# --- Rewards -------------------------------------------------------------------------------------


@rule("error", "check the reward column; algorithm=bc learns without rewards")
def reward_constant(statistics: DatasetStatistics) -> Result:
    """Detect rewards that are all equal; a note where the length of an episode still counts."""
    step = statistics.rewards.step
    if step.min != step.max:
        return None
    message = f"every reward is {format_number(step.min)}"
    if step.min != 0 and statistics.episodes.terminated > 0:
        message += ": only the length of an episode counts"
        return {"level": "note", "message": message}
    return f"{message}: no action is better than another"


@rule("note", "try a larger dataset.reward_scale, dataset.n_step=3 and more updates")
def reward_sparse(statistics: DatasetStatistics) -> Result:
    """Detect rewards that are 0 in almost every step."""
    rewards = statistics.rewards
    if rewards.zero <= 1 - SPARSE_REWARD or rewards.step.min == rewards.step.max:
        return None
    return f"only {format_share(1 - rewards.zero)} of the rewards are not 0"


@rule("warning")
def reward_scale(statistics: DatasetStatistics) -> Result:
    """Detect values for which cql.alpha is far too small or large with cql.alpha_unit=reward."""
    split = statistics.split
    size = value_scale(statistics.episodes, statistics.rewards) * split.reward_scale
    # dataset.return_range chooses the scale itself.
    if split.return_range is not None or size == 0 or MIN_VALUE <= size <= MAX_VALUE:
        return None
    message = (
        f"critic values are of the order of {format_number(size)} with "
        f"dataset.reward_scale={format_number(split.reward_scale)}: with cql.alpha_unit=reward "
        f"cql.alpha has {'little' if size > MAX_VALUE else 'too much'} weight against them"
    )
    suggested = float(f"{split.reward_scale * SUGGESTED_VALUE / size:.0e}")
    remedy = f"set cql.alpha_unit=return, or dataset.reward_scale={suggested:g}"
    return {"message": message, "remedy": remedy}


# --- Actions -------------------------------------------------------------------------------------


@rule("error", "check the action columns")
def action_constant(statistics: DatasetStatistics) -> Result:
    """Detect actions that never vary; a warning where only some dimensions are constant."""
    actions, consequence = statistics.actions, "nothing can be learned about other actions"
    constant = [d.name for d in actions.dimensions if d.min == d.max]
    if statistics.identity.discrete:
        used = sum(action.count > 0 for action in actions.discrete_actions)
        return f"only one action occurs; {consequence}" if used <= 1 else None
    if len(constant) == len(actions.dimensions):
        return f"every action is constant; {consequence}"
    message = f"action dimensions are constant: {join_names(constant)}; {consequence}"
    return {"level": "warning", "message": message} if constant else None


@rule("warning")
def action_kind(statistics: DatasetStatistics) -> Result:
    """Detect actions that may be of the other kind: amounts with few values, choices with many."""
    identity, actions = statistics.identity, statistics.actions
    if not identity.action_kind_inferred:
        return None
    if identity.discrete:
        names = [action.name for action in actions.discrete_actions]
        if len(names) <= FEW_VALUES or not all(map(_is_whole, names)):
            return None
        return {
            "message": f"{len(names)} whole numbers, {names[0]} … {names[-1]}, are taken as "
            "separate choices, without an order",
            "remedy": "set dataset.columns.discrete=false if they are amounts, as a dose is; =true "
            "if they are choices",
        }
    few = [f"{d.name} ({d.distinct} values)" for d in actions.dimensions if d.distinct]
    if not few:
        return None
    return {
        "message": f"actions with few values are taken as amounts: {join_names(few)}; the policy "
        "may serve any number between",
        "remedy": "set dataset.columns.discrete=false if they are amounts; log the index of the "
        "value (0, 1, …) if they are choices",
    }


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


@rule(
    "warning",
    "check the unit of the bounds; for a table, set dataset.columns.action_low and "
    "dataset.columns.action_high",
)
def action_narrow(statistics: DatasetStatistics) -> Result:
    """Detect actions that use a small part of their bounds, as those in another unit do."""
    largest = {
        d.name: max(abs(d.min), abs(d.max)) for d in statistics.actions.dimensions if d.min != d.max
    }
    names = [f"{name} ({format_share(size)})" for name, size in largest.items() if size < NARROW]
    return f"actions use a small part of their bounds: {join_names(names)}" if names else None


@rule(
    "note",
    "check that they were not clipped when logged; cql=default clones them as smaller ones "
    "(cql.bc_saturated_action)",
)
def action_saturated(statistics: DatasetStatistics) -> Result:
    """Detect actions that are at their bounds in most steps."""
    dimensions = [d for d in statistics.actions.dimensions if d.at_bounds > SATURATED]
    names = join_names([f"{d.name} ({format_share(d.at_bounds)})" for d in dimensions])
    return f"most actions are at the action bounds: {names}" if names else None


@rule("warning", "keep cql.alpha well above 0: their values are never learned, only pushed down")
def action_unused(statistics: DatasetStatistics) -> Result:
    """Detect discrete actions that never occur while at least two do."""
    actions = statistics.actions.discrete_actions
    unused = [action.name for action in actions if action.count == 0]
    if not unused or len(unused) >= len(actions) - 1:
        return None
    return f"{len(unused)} of {len(actions)} actions never occur: {join_names(unused)}"


# --- Episodes ------------------------------------------------------------------------------------


@rule("warning", "mark the ends at a time limit as truncated")
def time_limit_as_terminated(statistics: DatasetStatistics) -> Result:
    """Detect time limits that are marked as terminated, which stops bootstrapping."""
    episodes = statistics.episodes
    length = round(episodes.length.max)
    if (
        length <= 1
        or episodes.longest < max(3, LONGEST_SHARE * episodes.count)
        or episodes.longest_terminated <= LONGEST_TERMINATED * episodes.longest
    ):
        return None
    return (
        f"{episodes.longest_terminated:,} of {episodes.count:,} episodes terminate after exactly "
        f"{length:,} steps, the largest length: a time limit marked as terminated does not "
        "bootstrap"
    )


@rule("note", "expected in a task without an end; otherwise check the terminated column")
def no_terminated_episode(statistics: DatasetStatistics) -> Result:
    """Detect data in which every episode is truncated."""
    if statistics.episodes.terminated:
        return None
    count = f"{statistics.episodes.count:,}"
    return f"no episode terminates, all {count} are truncated: every value bootstraps"


@rule("note", "check the episode column; expected if every decision stands alone")
def single_step_episodes(statistics: DatasetStatistics) -> Result:
    """Detect episodes of one step; a warning if frequent, unless all terminate: then as meant."""
    count, single = statistics.episodes.count, statistics.episodes.single_step
    if not single or count == 1:
        return None
    alone = single == count == statistics.episodes.terminated
    level = "warning" if single > SINGLE_STEP_SHARE * count and not alone else "note"
    return {"level": level, "message": f"{single:,} of {count:,} episodes have one step"}


@rule("warning", "check the episode column, or mark the ends of episodes in the log")
def single_episode(statistics: DatasetStatistics) -> Result:
    """Detect data that are a single episode."""
    text = "there is only one episode: returns have no spread, none remains for validation"
    return text if statistics.episodes.count <= 1 else None


@rule("note", "do not use dataset.top_fraction and dataset.return_range: they compare returns")
def equal_returns(statistics: DatasetStatistics) -> Result:
    """Detect episodes that all have the same return."""
    count, returns = statistics.episodes.count, statistics.episodes.undiscounted
    if count == 1 or returns.min != returns.max:
        return None
    return f"all {count:,} episodes have the return {format_number(returns.min)}"


@rule("note", "use a small network (network=small) and few updates")
def few_transitions(statistics: DatasetStatistics) -> Result:
    """Detect data sets of fewer than 1,000 transitions."""
    size = statistics.identity.transitions
    return (
        f"{format_count(size, 'transition')} are few to learn from"
        if size < FEW_TRANSITIONS
        else ""
    )


# --- Copies --------------------------------------------------------------------------------------


@rule("note", "remove the copies: they count twice, and validation would contain training data")
def duplicate_episodes(statistics: DatasetStatistics) -> Result:
    """Detect episodes that occur more than once; a warning if they are many."""
    duplicates, identity = statistics.duplicates, statistics.identity
    if duplicates is None or duplicates.first is None:
        return None
    copy, original = duplicates.first
    share = duplicates.transitions_in_copied_episodes / identity.transitions
    message = (
        f"{duplicates.episodes:,} of {identity.episodes:,} episodes are copies "
        f"({format_share(share)} of the transitions), the first is episode {copy}, a copy of "
        f"episode {original}"
    )
    if identity.transitions >= MANY_VISITS * duplicates.distinct_observations:
        observations = format_count(duplicates.distinct_observations, "different observation")
        remedy = f"expected: there are only {observations}, so that equal episodes happen by chance"
        return {"message": message, "remedy": remedy}
    return {"level": "warning", "message": message} if share > COPIED_SHARE else message


@rule("note", "expected in small discrete tasks; otherwise look for logs that overlap")
def duplicate_transitions(statistics: DatasetStatistics) -> Result:
    """Detect many transitions that occur more than once outside copied episodes."""
    duplicates, size = statistics.duplicates, statistics.identity.transitions
    if duplicates is None:
        return None
    count = duplicates.transitions - duplicates.transitions_in_copied_episodes
    if count <= COPIED_SHARE * size:
        return None
    share = format_share(count / size)
    return f"{count:,} transitions ({share}) are copies outside copied episodes"


# --- The policy that collected the data ----------------------------------------------------------


@rule("warning", "check that the column holds the probability of the logged action")
def propensity_one(statistics: DatasetStatistics) -> Result:
    """Detect steps in which the behavior policy had no alternative."""
    propensities = statistics.propensities
    if propensities is None or not propensities.deterministic:
        return None
    share = format_share(propensities.deterministic)
    return f"{share} of the propensities are 1: the behavior policy had no alternative there"


@rule("warning", "clip the weights, and rather trust fitted Q evaluation")
def propensity_small(statistics: DatasetStatistics) -> Result:
    """Detect probabilities that give single steps a very large importance weight."""
    if statistics.propensities is None or not statistics.identity.discrete:
        return None
    smallest = statistics.propensities.values.min
    if smallest >= SMALL_PROPENSITY:
        return None
    return (
        f"the smallest propensity is {format_number(smallest)}: importance sampling may weigh a "
        f"single step {format_number(1 / smallest)} times"
    )


@rule("note", "expect noisy estimates from importance sampling")
def propensity_effective_sample(statistics: DatasetStatistics) -> Result:
    """Detect propensities that leave few effective steps to importance sampling."""
    propensities = statistics.propensities
    if propensities is None or propensities.effective_sample_share >= MIN_EFFECTIVE_SAMPLE:
        return None
    share = format_share(propensities.effective_sample_share)
    return f"the effective sample size is {share} of the steps for the uniformly random policy"


@rule("note", "read the lines about similar states with care")
def neighbors_far(statistics: DatasetStatistics) -> Result:
    """Detect states without similar ones, which make the spread of actions meaningless."""
    neighbors = statistics.neighbors
    if neighbors is None or neighbors.relative_distance <= FAR_NEIGHBORS:
        return None
    return (
        f"the nearest states are {format_share(neighbors.relative_distance)} as far apart as "
        "random ones: too far to tell whether the state decides the action"
    )


@rule(
    "note",
    "expect little gain over behavior cloning: compare with algorithm=bc",
)
def behavior_deterministic(statistics: DatasetStatistics) -> Result:
    """Detect a behavior policy whose action follows from the state."""
    neighbors = statistics.neighbors
    if neighbors is None or neighbors_far(statistics):
        return None
    if neighbors.action_spread >= DETERMINISTIC_SPREAD:
        return None
    return (
        f"similar states have similar actions (spread {format_number(neighbors.action_spread)} of "
        f"the total, in {format_count(neighbors.states, 'state')}): CQL has few actions to compare"
    )


# --- Repairs and scores --------------------------------------------------------------------------


@rule(
    "note",
    "set env.reference_min=… and env.reference_max=…, the returns of a random and of a good policy",
)
def no_reference_scores(statistics: DatasetStatistics) -> Result:
    """Detect tasks without reference returns, whose returns cannot be normalized."""
    missing = statistics.scores.normalized_score is None
    return "no reference returns: scores are not normalized" if missing else None


def repairs(statistics: DatasetStatistics) -> list[Finding]:
    """Return one finding per kind of repair, with its share; a warning where rows are lost.

    A share of the rows in the source, or of the episodes.
    """
    rows = statistics.identity.transitions + sum(statistics.repairs.get(n, 0) for n in DROPPED)
    findings = []
    for name, count in statistics.repairs.items():
        share = count / (statistics.identity.episodes if name in OF_EPISODES else rows)
        text = (
            f"{count:,} {REPAIRS[name]}"
            if name in REPAIRS
            else f"{name.replace('_', ' ')}: {count:,}"
        )
        large = share > LARGE_REPAIR and name in REPAIR_REMEDIES
        findings.append(
            Finding(
                level="warning" if large else "note",
                name=f"repaired_{name}",
                message=f"{text} ({format_share(min(share, 1.0))})",
                remedy=REPAIR_REMEDIES[name] if large else "none needed: repaired while reading",
            )
        )
    return findings
