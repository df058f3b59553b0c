"""What the figures of a data set say about learning from it: one line each, with what to do.

Judges figures, measures nothing. An error makes the data useless for what was asked, a warning is
probably a mistake, a note is good to know.
"""

from __future__ import annotations

from collections.abc import Iterator

from offline_cql.audit.behavior_rules import of_actions, of_neighbors, of_propensities
from offline_cql.audit.episodes import value_size
from offline_cql.audit.finding import LEVELS, MENDED, Finding, figure, listed, plural, share
from offline_cql.audit.statistics import Figures

FEW = 1_000  # transitions
LARGE, SMALL, SENSIBLE = 3_000.0, 0.3, 100.0  # of the critics' values
SPARSE = 0.05  # share of steps with a reward
MANY = 0.01  # share of copied transitions that changes what is learned
LAGGED = 1.5  # a shift that explains so many times as much as none
VERY_FAR = 50.0  # standard deviations
EXPLAINED = 0.05  # below this share of variance, nothing is said of a shift

# What the sources mend, in words. A name that is not here is shown as it is.


def findings(figures: Figures) -> list[Finding]:
    """Errors first, then warnings, then notes."""
    found = [
        *of_alignment(figures),
        *of_lags(figures),
        *of_observations(figures),
        *of_rewards(figures),
        *of_actions(figures),
        *of_episodes(figures),
        *of_duplicates(figures),
        *of_propensities(figures),
        *of_neighbors(figures),
        *of_source(figures),
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def of_alignment(figures: Figures) -> Iterator[Finding]:
    found = figures.alignment
    differ = found.pairs - found.equal
    if not differ or found.first is None:
        return
    episode, step = found.first
    where = f"in {plural(found.episodes, 'episode')}, first in episode {episode} at step {step}"
    for count, what in ((found.own, "its own observation"), (found.second, "that of two steps on")):
        if 2 * count > differ and 2 * differ > found.pairs:
            yield Finding(
                "error",
                "next_observation_shifted",
                f"next_observation is {what} in {count:,} of {found.pairs:,} pairs of steps: the "
                "arrays were joined with a shift",
                "export the next observation again, or leave it out of the mapping: it is the "
                "following row's",
            )
            return
    yield Finding(
        "warning",
        "next_observation_differs",
        f"next_observation is not the following step's observation in {differ:,} of "
        f"{found.pairs:,} pairs ({share(differ / found.pairs)}), {where}",
        "check that the rows are in order and that episodes are not interleaved or cut in pieces",
    )


def of_lags(figures: Figures) -> Iterator[Finding]:
    if figures.lags is None:
        return
    early, now, late = figures.lags.action
    if max(early, late) > max(EXPLAINED, LAGGED * now):
        yield _lag("action", late > early, f"explains {share(max(early, late))} of what follows")
    early, now, late = figures.lags.reward
    if max(early, late) > 0.5 and LAGGED * (1 - max(early, late)) < 1 - now:
        yield _lag("reward", late > early, f"fits its step by {share(max(early, late))}")


def _lag(name: str, later: bool, how: str) -> Finding:
    row, when = ("following", "late") if later else ("previous", "early")
    return Finding(
        "warning",
        f"{name}_shifted",
        f"the {name} of the {row} row {how}, better than the row's own: it may be logged "
        f"one step {when}",
        f"look at a few rows: is the {name} the one that followed the row's observation?",
    )


def of_observations(figures: Figures) -> Iterator[Finding]:
    columns = figures.columns.columns
    leaks = [f"{c.name} ({c.same_as})" for c in columns if c.same_as and "action" in c.same_as]
    if leaks:
        yield Finding(
            "error",
            "observation_repeats_action",
            f"{listed(leaks)}: an observation that repeats the action of its own step, which is "
            "not known when the policy acts",
            "leave the column out of the observation, or log the previous action there",
        )
    if rewards := [c.name for c in columns if c.same_as == "the reward"]:
        yield Finding(
            "warning",
            "observation_repeats_reward",
            f"{listed(rewards)} repeats the reward of its own step, which is not known when the "
            "policy acts",
            "leave the column out of the observation",
        )
    if marked := [f"{c.name} ({figure(c.sentinel)})" for c in columns if c.sentinel is not None]:
        yield Finding(
            "warning",
            "observation_sentinel",
            f"one value repeats far from all others, as a stand-in for a missing one does, in "
            f"{listed(marked)}",
            "replace it, by the last known value for instance, and add a column that says so",
        )
    if far := [c for c in columns if c.far]:
        farthest = max(max(c.max - c.mean, c.mean - c.min) / c.std for c in far)
        named = listed([f"{c.name} ({plural(c.far, 'row')})" for c in far])
        yield Finding(
            "warning" if farthest > VERY_FAR else "note",
            "observation_far",
            f"values up to {figure(farthest)} standard deviations from the mean in {named}",
            "look for faults of a sensor and for units that change",
        )
    if nearly := [c.name for c in columns if c.nearly_constant]:
        yield Finding(
            "warning",
            "observation_nearly_constant",
            f"{listed(nearly)} varies by less than a millionth of its size, which float32 rounds",
            "subtract a constant from the column before logging it, or leave it out",
        )
    yield from _kinds(figures)


def _kinds(figures: Figures) -> Iterator[Finding]:
    columns = figures.columns.columns
    if constant := [c.name for c in columns if c.constant]:
        yield Finding(
            "note",
            "observation_constant",
            f"{len(constant)} of {len(columns)} observation columns are constant: "
            f"{listed(constant)}",
            "they do no harm and say nothing",
        )
    if clocks := [c.name for c in columns if c.grows]:
        yield Finding(
            "note",
            "observation_grows",
            f"{listed(clocks)} grows with every step, as a clock or a row number does",
            "leave it out unless the policy will know it and should depend on it",
        )
    fixed = [c.name for c in columns if c.fixed_in_episodes]
    if fixed and figures.identity.episodes > 1:
        yield Finding(
            "note",
            "observation_fixed_in_episodes",
            f"{listed(fixed)} stays the same throughout an episode: a goal, or an id",
            "leave an id out: new episodes will have other ones",
        )


def of_rewards(figures: Figures) -> Iterator[Finding]:
    step, split = figures.rewards.step, figures.split
    if step.min == step.max:
        length_counts = step.min != 0 and figures.episodes.terminal > 0
        why = "only an episode's length counts" if length_counts else "no action is the better one"
        yield Finding(
            "note" if length_counts else "error",
            "reward_constant",
            f"every reward is {figure(step.min)}: {why}",
            "check the reward's column; python train.py algorithm=bc … learns without rewards",
        )
    elif figures.rewards.zero > 1 - SPARSE:
        yield Finding(
            "note",
            "reward_sparse",
            f"only {share(1 - figures.rewards.zero)} of the rewards are not 0",
            "try a larger dataset.reward_scale, dataset.n_step=3 and more updates",
        )
    # dataset.return_range chooses the scale by itself.
    size = value_size(figures.episodes, figures.rewards) * split.reward_scale
    if split.return_range is None and size > 0 and not SMALL <= size <= LARGE:
        suggested = float(f"{split.reward_scale * SENSIBLE / size:.0e}")
        yield Finding(
            "warning",
            "reward_scale",
            f"values are of the order of {figure(size)} "
            f"with dataset.reward_scale={figure(split.reward_scale)}; cql.alpha, in reward units, "
            f"counts for {'little' if size > LARGE else 'much'} against them",
            f"dataset.reward_scale={suggested:g}",
        )


def of_episodes(figures: Figures) -> Iterator[Finding]:
    found, count = figures.episodes, figures.episodes.count
    length = round(found.length.max)
    limit = found.longest >= max(3, 0.05 * count) and found.longest_terminal > 0.9 * found.longest
    if limit and length > 1:
        yield Finding(
            "warning",
            "time_limit_as_terminal",
            f"{found.longest_terminal:,} of {count:,} episodes end terminal after exactly "
            f"{length:,} steps, the longest: time limits marked as terminal do not bootstrap",
            "mark the ends at a time limit as truncated",
        )
    if found.terminal == 0:
        yield Finding(
            "note",
            "no_terminal",
            f"no episode ends terminal, all {count:,} are truncated: every value bootstraps",
            "right for a task without an end; else check the column of terminated",
        )
    if found.of_one_step and count > 1:
        often = 10 * found.of_one_step > count
        yield Finding(
            "warning" if often else "note",
            "episodes_of_one_step",
            f"{found.of_one_step:,} of {count:,} episodes have one step",
            "check the episode's column; right if each decision stands alone",
        )
    if count == 1:
        yield Finding(
            "warning",
            "one_episode",
            "there is one episode: no spread of returns, nothing to hold out",
            "check the episode's column, or that the log has its ends marked",
        )
    elif found.undiscounted.min == found.undiscounted.max:
        yield Finding(
            "note",
            "returns_equal",
            f"all {count:,} episodes have the return {figure(found.undiscounted.min)}",
            "dataset.top_fraction and dataset.return_range have nothing to go by",
        )
    if figures.identity.transitions < FEW:
        yield Finding(
            "note",
            "few_transitions",
            f"{figures.identity.transitions:,} transitions are few",
            "use a small network (network=small) and few updates",
        )


def of_duplicates(figures: Figures) -> Iterator[Finding]:
    found, size = figures.duplicates, figures.identity.transitions
    if found is None:
        return
    if found.first is not None:
        copy, original = found.first
        much = found.transitions_of_episodes > MANY * size
        yield Finding(
            "warning" if much else "note",
            "duplicate_episodes",
            f"{found.episodes:,} of {figures.identity.episodes:,} episodes are copies of another "
            f"({share(found.transitions_of_episodes / size)} of the transitions), first episode "
            f"{copy} of {original}",
            "remove the copies: they count twice, and a hold-out holds what was trained on",
        )
    alone = found.transitions - found.transitions_of_episodes
    if alone > MANY * size:
        yield Finding(
            "note",
            "duplicate_transitions",
            f"{alone:,} transitions ({share(alone / size)}) occur again outside copied episodes",
            "usual in small discrete tasks; elsewhere look for logs that overlap",
        )


def of_source(figures: Figures) -> Iterator[Finding]:
    for name, count in figures.found.items():
        text = MENDED.get(name)
        yield Finding(
            "note",
            f"mended_{name}",
            f"{count:,} {text}" if text else f"{name.replace('_', ' ')}: {count:,}",
            "nothing: it was mended when the data were read",
        )
    if figures.scores.normalized_score is None:
        yield Finding(
            "note",
            "no_reference",
            "no reference scores: returns stay in the task's own units",
            "env.reference_min=… env.reference_max=… (a random and a good policy's return)",
        )
