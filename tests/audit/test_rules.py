"""Guarantee: a log with a problem gets its finding, with a remedy; a log without one gets none.

The log without problems has no finding at all, so every test here fails when its rule is broken.
`test_thresholds.py` tests each rule at its threshold.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.logged import (
    Arrays,
    Change,
    add_column,
    cart_arrays,
    cart_data,
    findings_of,
    statistics_of,
)

from offline_cql.audit.finding import (
    LEVELS,
    Finding,
    join_names,
)
from offline_cql.audit.rules import RULES, apply_rules
from offline_cql.audit.statistics import Scores
from offline_cql.transitions import Transitions

# --- Changes that give the log a problem ---------------------------------------------------------


def column(values: Callable[[Arrays], Any]) -> Change:
    """Return the change that adds an observation column."""
    return lambda log: add_column(log, values(log))


def is_last(log: Arrays) -> Any:
    return np.append(np.diff(log["episodes"]) != 0, True)


def is_first(log: Arrays) -> Any:
    return np.diff(log["episodes"], prepend=-1) != 0


def row_numbers(log: Arrays) -> Any:
    return np.arange(len(log["rewards"]), dtype=float)


def step_numbers(log: Arrays) -> Any:
    rows = row_numbers(log)
    return rows - np.maximum.accumulate(np.where(is_first(log), rows, 0))


def ends_well(log: Arrays) -> Any:
    """Return 1 in all steps of the episodes that terminate, every other one."""
    return (log["episodes"] % 2 == 0) * 1.0


def noise_and_its_next_value(log: Arrays) -> None:
    values = np.random.default_rng(1).normal(size=len(log["rewards"]) + 1)
    add_column(log, values[:-1])
    add_column(log, values[1:])


def wave(log: Arrays) -> Any:
    """Return values in [-1, 1] that do not repeat."""
    return np.sin(row_numbers(log) * 0.7)


def fill(**values: Any) -> Change:
    """Return the change that sets whole arrays to one value."""
    return lambda log: log.update(
        {name: np.full_like(log[name], value) for name, value in values.items()}
    )


def roll(name: str, rows: int) -> Change:
    return lambda log: log.update({name: np.roll(log[name], rows, axis=0)})


def scale(name: str, factor: float) -> Change:
    return lambda log: log.update({name: log[name] * factor})


def repeat_episodes(count: int) -> Change:
    """Return the change that appends a copy of the first `count` episodes."""

    def change(log: Arrays) -> Arrays:
        rows = log["episodes"] < count
        copies = {name: values[rows] for name, values in log.items()}
        copies["episodes"] = copies["episodes"] + 1_000
        return {name: np.concatenate([log[name], copies[name]]) for name in log}

    return change


def repeat_first_steps(log: Arrays) -> Arrays:
    """Append the first step of each episode as an episode of its own."""
    first = np.flatnonzero(is_first(log))
    extended = {name: np.concatenate([log[name], log[name][first]]) for name in log}
    extended["episodes"] = np.append(log["episodes"], 1_000 + np.arange(len(first)))
    return extended


def time_limit(*, terminated: bool) -> Change:
    """Return the change that cuts all episodes at 20 steps."""

    def change(log: Arrays) -> Arrays:
        cut = {name: values[step_numbers(log) < 20] for name, values in log.items()}
        cut["terminated"] = is_last(cut) & terminated
        return cut

    return change


def sentinel(log: Arrays) -> Any:
    """Return a column with -999 in every 20th row."""
    values = wave(log)
    values[::20] = -999
    return values


def outlier(log: Arrays) -> Any:
    values = wave(log)
    values[7] = 25
    return values


def sparse_rewards(log: Arrays) -> None:
    log["rewards"] = (is_last(log) & log["terminated"]).astype(float)


def late_rewards(log: Arrays) -> None:
    """Log each reward one row late; the first of an episode is 0."""
    log["rewards"] = np.where(is_first(log), 0.0, np.roll(log["rewards"], 1))


def copy_observations(log: Arrays) -> None:
    log["next_observations"] = log["observations"].copy()


def replaced(**changes: Any) -> Callable[[], Transitions]:
    return lambda: dataclasses.replace(cart_data(), **changes)


def with_propensities(value: float, first: float) -> Callable[[], Transitions]:
    def make() -> Transitions:
        data = cart_data(discrete=True)
        values = np.full(len(data), value, np.float32)
        values[0] = first
        return dataclasses.replace(data, propensities=values)

    return make


# Level, name, the change of the log or the data, the beginning of the message.
PROBLEMS: list[tuple[str, str, Change | Callable[[], Transitions], str]] = [
    ("error", "next_observation_shifted", copy_observations,
     "next_observation equals the observation of the same step in 1,710 of 1,710 pairs of steps"),
    ("error", "next_observation_shifted", roll("next_observations", -1),
     "next_observation equals the observation two steps later in 1,650 of 1,710 pairs"),
    ("warning", "next_observation_mismatch",
     lambda log: log["next_observations"].__setitem__(25, 7.0),
     "next_observation differs from the following step's observation in 1 of 1,710 pairs (<0.1%), "
     "in 1 episode, first in episode 1 at step 5"),
    ("warning", "action_shifted", roll("actions", 1),
     "the action of the following row explains 8"),
    ("warning", "action_shifted", roll("actions", -1), "the action of the previous row"),
    ("warning", "reward_shifted", late_rewards, "the step explains 97% of the reward of the foll"),
    ("error", "observation_leaks_action", column(lambda log: log["actions"][:, 0]),
     "observation columns tell the action of their own step, which is not known when the policy "
     "acts: observation 2 (action 0, scaled to [-1, 1]: equal)"),
    ("warning", "observation_leaks_action", column(lambda log: 3 - 7 * log["actions"][:, 0]),
     "observation columns tell the action of their own step, which is not known when the policy "
     "acts: observation 2 (action 0: 0.999)"),
    ("warning", "observation_leaks_reward", column(lambda log: log["rewards"]),
     "observation columns tell the reward of their own step, which follows the action: "
     "observation 2 (the reward: equal)"),
    ("warning", "observation_leaks_outcome", column(ends_well),
     "observation columns tell how the episode goes on or ends: observation 2 (whether the episode "
     "terminates: 1.000)"),
    ("warning", "observation_leaks_future", column(lambda log: log["next_observations"][:, 1]),
     "observation columns tell values of the next step: observation 2 (observation 1 of the next"),
    ("note", "observation_next_value", noise_and_its_next_value,
     "columns equal another one a step later: observation 3 (observation 2 of the next step: "),
    ("warning", "observation_identifier", column(row_numbers),
     "no two episodes share a value of columns, as of an id or a date: observation 2"),
    ("warning", "observation_sentinel", column(sentinel),
     "one value repeats far from all others, as a placeholder for a missing measurement does: "
     "observation 2 (-999)"),
    ("note", "observation_outliers", column(outlier),
     "values up to 27.07 standard deviations from the mean: observation 2 (1 row)"),
    ("warning", "observation_nearly_constant", column(lambda log: 1e6 + row_numbers(log) % 2 / 2),
     "columns hardly vary: observation 2; a value that is 1% of the mean off is at least 100 "
     "standard deviations off for the policy, of which float32 rounds away most"),
    ("note", "observation_constant", column(lambda log: row_numbers(log) * 0 + 3),
     "1 of 3 observation columns are constant: observation 2"),
    ("note", "observation_increasing", column(step_numbers), "columns grow with every step"),
    ("note", "observation_constant_per_episode", column(lambda log: log["episodes"] % 7 * 1.0),
     "columns do not change within an episode, as a goal or an id: observation 2"),
    ("error", "reward_constant", fill(rewards=0.0),
     "every reward is 0: no action is better than another"),
    ("note", "reward_constant", fill(rewards=1.0),
     "every reward is 1: only the length of an episode counts"),
    ("error", "reward_constant", fill(rewards=1.0, terminated=False), "every reward is 1: no act"),
    ("note", "reward_sparse", sparse_rewards, "only 1.7% of the rewards are not 0"),
    ("warning", "reward_scale", scale("rewards", 1e5), "critic values are of the order of "),
    ("warning", "reward_scale", scale("rewards", 1e-4), "critic values are of the order of 0.00"),
    ("error", "action_constant", fill(actions=0.5), "every action is constant; nothing"),
    ("warning", "action_constant",
     lambda log: log.update(actions=np.column_stack([log["actions"], 0 * log["actions"]])),
     "action dimensions are constant: 1;"),
    ("warning", "action_narrow", scale("actions", 0.05),
     "actions use a small part of their bounds: 0 (5%)"),
    ("note", "action_saturated", lambda log: log.update(actions=np.sign(log["actions"])),
     "most actions are at the action bounds: 0 (100%)"),
    ("warning", "time_limit_as_terminated", time_limit(terminated=True),
     "60 of 60 episodes terminate after exactly 20 steps, the largest length"),
    ("note", "no_terminated_episode", fill(terminated=False),
     "no episode terminates, all 60 are truncated"),
    ("warning", "single_step_episodes", lambda log: log.update(episodes=row_numbers(log)),
     "1,770 of 1,770 episodes have one step"),
    ("warning", "single_episode", fill(episodes=0), "there is only one episode"),
    ("note", "equal_returns",
     lambda log: log.update(rewards=is_last(log) * 1.0 - is_first(log) * 1.0),
     "all 60 episodes have the return 0"),
    ("note", "few_transitions", lambda log: {name: a[: 20 + 21] for name, a in log.items()},
     "41 transitions are few"),
    ("warning", "duplicate_episodes", repeat_episodes(3),
     "3 of 63 episodes are copies (3.4% of the transitions), the first is episode 60, a copy of "
     "episode 0"),
    ("note", "duplicate_transitions", repeat_first_steps,
     "60 transitions (3.3%) are copies outside copied episodes"),
    ("note", "behavior_deterministic",
     lambda log: log.update(actions=np.tanh(log["observations"][:, :1])),
     "similar states have similar actions (spread "),
    ("note", "repaired_clipped_actions", replaced(repairs={"clipped_actions": 3}),
     "3 actions outside their bounds by rounding were clipped"),
    ("note", "repaired_rows_of_a_new_kind", replaced(repairs={"rows_of_a_new_kind": 2}),
     "rows of a new kind: 2"),
    ("warning", "propensity_one", with_propensities(0.5, 1.0), "<0.1% of the propensities are 1"),
    ("warning", "propensity_small", with_propensities(0.5, 1e-5),
     "the smallest propensity is 1e-05: importance sampling may weigh a single step 100,000 times"),
    ("note", "propensity_effective_sample", with_propensities(0.5, 1e-5),
     "the effective sample size is <0.1% of the steps"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "name", "problem", "message"),
    PROBLEMS,
    ids=[f"{name}-{level}" for level, name, *_ in PROBLEMS],
)
def test_problem_gets_its_finding(level: str, name: str, problem: Any, message: str):
    is_change = problem.__code__.co_argcount == 1
    finding = findings_of(cart_data(problem) if is_change else problem())[name]
    assert finding.level == level
    assert finding.message.startswith(message)
    assert finding.remedy
    assert "\n" not in finding.message + finding.remedy


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_log_without_problems_has_no_findings(discrete: bool, short: bool):
    assert findings_of(cart_data(discrete=discrete), short=short) == {}


# --- Single rules --------------------------------------------------------------------------------


def test_discrete_actions_that_never_occur():
    def drop_last_action(log: Arrays) -> None:
        log["actions"] = np.minimum(log["actions"], 1)

    finding = findings_of(cart_data(drop_last_action, discrete=True))["action_unused"]
    assert finding.message == "1 of 3 actions never occur: 2"
    constant = findings_of(cart_data(fill(actions=1), discrete=True))
    assert constant["action_constant"].level == "error"
    assert "action_unused" not in constant


def test_truncated_time_limit_is_correct():
    assert "time_limit_as_terminated" not in findings_of(cart_data(time_limit(terminated=False)))


def test_states_too_far_apart_to_compare():
    def add_noise(log: Arrays) -> None:
        noise = np.random.default_rng(1).normal(size=(len(log["rewards"]), 300))
        for name in ("observations", "next_observations"):
            log[name] = np.column_stack([log[name], noise])

    names = findings_of(cart_data(add_noise))
    assert "neighbors_far" in names
    assert "behavior_deterministic" not in names


def test_single_outlier_is_not_a_sentinel():
    assert "observation_sentinel" not in findings_of(cart_data(column(outlier)))


def test_clipped_measurement_is_not_a_sentinel():
    clipped = column(lambda log: np.clip(np.tan(row_numbers(log) * 0.7), -5, 5))
    assert "observation_sentinel" not in findings_of(cart_data(clipped))


def test_missing_reference_returns_are_a_note():
    raw = Scores(0.0, None, None, None, None)
    names = [finding.name for finding in apply_rules(statistics_of(cart_data(), scores=raw))]
    assert names == ["no_reference_scores"]


def test_suggested_reward_scale_solves_the_problem():
    data = cart_data(scale("rewards", 1e5))
    remedy = findings_of(data)["reward_scale"].remedy
    override = remedy.removeprefix("set cql.alpha_unit=return, or ")
    key, _, value = override.partition("=")
    assert key == "dataset.reward_scale"
    assert 1e-5 < float(value) < 1e-3
    assert "reward_scale" not in findings_of(data, override)


def test_return_range_makes_a_reward_scale_unnecessary():
    data = cart_data(scale("rewards", 1e5))
    assert "reward_scale" not in findings_of(data, "dataset.return_range=1000")


def test_short_audit_finds_a_shift_too():
    data = cart_data(copy_observations)
    assert findings_of(data, short=True)["next_observation_shifted"].level == "error"


# --- All rules -----------------------------------------------------------------------------------


def test_errors_come_first_and_notes_last():
    def change(log: Arrays) -> None:
        log["rewards"].fill(0.0)
        log["terminated"].fill(False)
        log["actions"] *= 0.05

    levels = [finding.level for finding in apply_rules(statistics_of(cart_data(change)))]
    assert levels == sorted(levels, key=LEVELS.index)
    assert set(levels) == set(LEVELS)


def test_every_rule_is_tested_and_named_after_its_finding():
    """A finding's name is its rule's, and each is in PROBLEMS or has a test above."""
    names = {name for _, name, *_ in PROBLEMS if not name.startswith("repaired_")}
    names |= {"action_unused", "neighbors_far", "no_reference_scores"}
    names |= {"action_kind"}  # in tests/faults
    assert {rule.__name__ for rule in RULES} == names


# --- Formats -------------------------------------------------------------------------------------


def test_long_lists_of_names_are_cut():
    assert join_names(["a", "b"]) == "a, b"
    assert join_names(list("abcdef")) == "a, b, c, d and 2 more"


def test_finding_is_plain_text():
    finding = Finding(level="note", name="x", message="y", remedy="z")
    assert vars(finding) == {"level": "note", "name": "x", "message": "y", "remedy": "z"}


def test_log_has_the_documented_size():
    log = cart_arrays()
    assert (len(log["rewards"]), log["episodes"].max(), log["terminated"].sum()) == (1770, 59, 30)
