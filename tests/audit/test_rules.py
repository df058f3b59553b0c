"""Promise: each fault is found in a log that has it, by one line with a remedy, and in no other.

The log without a fault has no finding at all, so every test here fails when its fault is missed.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.logged import Arrays, Change, arrays, figures, found, logged, with_column

from offline_cql.audit.finding import LEVELS, Finding, figure, listed, share
from offline_cql.audit.rules import findings
from offline_cql.audit.statistics import Scores
from offline_cql.transitions import Transitions


def column(make: Callable[[Arrays], Any]) -> Change:
    """The change that adds an observation column."""
    return lambda log: with_column(log, make(log))


def last(log: Arrays) -> Any:
    return np.append(np.diff(log["episodes"]) != 0, True)


def starts(log: Arrays) -> Any:
    return np.diff(log["episodes"], prepend=-1) != 0


def every(**values: Any) -> Change:
    """The change that sets whole arrays to one value."""
    return lambda log: log.update(
        {name: np.full_like(log[name], value) for name, value in values.items()}
    )


def shifted(name: str, by: int) -> Change:
    return lambda log: log.update({name: np.roll(log[name], by, axis=0)})


def repeated(count: int) -> Change:
    """The log followed by its first `count` episodes once more."""

    def change(log: Arrays) -> Arrays:
        rows = log["episodes"] < count
        copies = {name: values[rows] for name, values in log.items()}
        copies["episodes"] = copies["episodes"] + 1_000
        return {name: np.concatenate([log[name], copies[name]]) for name in log}

    return change


def stuttered(log: Arrays) -> Arrays:
    """The first step of each episode is logged 3 times, each as an episode: more steps repeat."""
    first = np.flatnonzero(starts(log))
    again = {name: np.concatenate([log[name], log[name][first]]) for name in log}
    again["episodes"] = np.append(log["episodes"], 1_000 + np.arange(len(first)))
    return again


def one_length(log: Arrays) -> Arrays:
    """All episodes cut at 20 steps."""
    step = np.arange(len(log["rewards"])) - np.maximum.accumulate(
        np.where(starts(log), np.arange(len(log["rewards"])), 0)
    )
    return {name: values[step < 20] for name, values in log.items()}


def at_the_limit(terminated: bool) -> Change:
    def change(log: Arrays) -> Arrays:
        cut = one_length(log)
        cut["terminated"] = last(cut) & terminated
        return cut

    return change


def missing(log: Arrays) -> None:
    """A reading of -999 in every 20th row."""
    values = np.sin(np.arange(len(log["rewards"])) * 0.7)
    values[::20] = -999
    with_column(log, values)


def spike(log: Arrays) -> None:
    values = np.sin(np.arange(len(log["rewards"])) * 0.7)
    values[7] = 25
    with_column(log, values)


def sparse(log: Arrays) -> None:
    log["rewards"] = (last(log) & log["terminated"]).astype(float)


def single_steps(log: Arrays) -> None:
    log["episodes"] = np.arange(len(log["rewards"]))


def bang_bang(log: Arrays) -> None:
    log["actions"] = np.sign(log["actions"])


def following_reward(log: Arrays) -> None:
    """Rewards that stand one row late; the first of an episode is 0."""
    log["rewards"] = np.where(starts(log), 0.0, np.roll(log["rewards"], 1))


def few(log: Arrays) -> Arrays:
    return {name: values[: 20 + 21] for name, values in log.items()}


def replaced(**changes: Any) -> Callable[[], Transitions]:
    return lambda: dataclasses.replace(logged(), **changes)


def propensity(value: float, first: float) -> Callable[[], Transitions]:
    def make() -> Transitions:
        data = logged(discrete=True)
        values = np.full(len(data), value, np.float32)
        values[0] = first
        return dataclasses.replace(data, propensities=values)

    return make


FAULTS: list[tuple[str, str, Change | Callable[[], Transitions], str]] = [
    ("error", "next_observation_shifted",
     lambda log: log.update(next_observations=log["observations"].copy()),
     "next_observation is its own observation in 1,710 of 1,710 pairs of steps: the arrays were"),
    ("error", "next_observation_shifted", shifted("next_observations", -1),
     "next_observation is that of two steps on in 1,650 of 1,710 pairs"),
    ("warning", "next_observation_differs",
     lambda log: log["next_observations"].__setitem__(25, 7.0),
     "next_observation is not the following step's observation in 1 of 1,710 pairs (< 0.1 %), in 1 "
     "episode, first in episode 1 at step 5"),
    ("warning", "action_shifted", shifted("actions", 1),
     "the action of the following row explains 8"),
    ("warning", "action_shifted", shifted("actions", -1), "the action of the previous row"),
    ("warning", "reward_shifted", following_reward, "the reward of the following row fits"),
    ("error", "observation_repeats_action", column(lambda log: log["actions"][:, 0]),
     "observation 2 (action 0, scaled to [-1, 1]): an observation that repeats the action"),
    ("warning", "observation_repeats_reward", column(lambda log: log["rewards"]),
     "observation 2 repeats the reward"),
    ("warning", "observation_sentinel", missing, "one value repeats far from all others, as a sta"),
    ("note", "observation_far", spike, "values up to 27.07 standard deviations from"),
    ("warning", "observation_nearly_constant",
     column(lambda log: 1e6 + 0.5 * (np.arange(len(log["rewards"])) % 2)), "observation 2 varies"),
    ("note", "observation_constant", column(lambda log: np.full(len(log["rewards"]), 3.0)),
     "1 of 3 observation columns are constant: observation 2"),
    ("note", "observation_grows", column(lambda log: np.arange(len(log["rewards"]), dtype=float)),
     "observation 2 grows with every step"),
    ("note", "observation_fixed_in_episodes", column(lambda log: log["episodes"] * 1.0),
     "observation 2 stays the same throughout an episode"),
    ("error", "reward_constant", every(rewards=0.0), "every reward is 0: no action is the better"),
    ("note", "reward_constant", every(rewards=1.0), "every reward is 1: only an episode's length"),
    ("error", "reward_constant", every(rewards=1.0, terminated=False), "every reward is 1: no act"),
    ("note", "reward_sparse", sparse, "only 1.7 % of the rewards are not 0"),
    ("warning", "reward_scale", lambda log: log.update(rewards=log["rewards"] * 1e5),
     "values are of the order of "),
    ("warning", "reward_scale", lambda log: log.update(rewards=log["rewards"] * 1e-4),
     "values are of the order of 0.00"),
    ("error", "action_constant", every(actions=0.5), "every action is constant"),
    ("warning", "action_constant",
     lambda log: log.update(actions=np.column_stack([log["actions"], 0 * log["actions"]])),
     "action 1 is constant"),
    ("warning", "action_narrow", lambda log: log.update(actions=log["actions"] * 0.05),
     "actions stay within a small share of their bounds: 0 (5.0 %)"),
    ("note", "action_saturated", bang_bang, "most actions are at a bound: 0 (100 %)"),
    ("warning", "time_limit_as_terminal", at_the_limit(True),
     "60 of 60 episodes end terminal after exactly 20 steps, the longest"),
    ("note", "no_terminal", every(terminated=False), "no episode ends terminal, all 60 are trunc"),
    ("warning", "episodes_of_one_step", single_steps, "1,770 of 1,770 episodes have one step"),
    ("warning", "one_episode", every(episodes=0), "there is one episode"),
    ("note", "returns_equal", lambda log: log.update(rewards=last(log) - starts(log) * 1.0),
     "all 60 episodes have the return 0"),
    ("note", "few_transitions", few, "41 transitions are few"),
    ("warning", "duplicate_episodes", repeated(3),
     "3 of 63 episodes are copies of another (3.4 % of the transitions), first episode 60 of 0"),
    ("note", "duplicate_transitions", stuttered, "60 transitions (3.3 %) occur again outside"),
    ("note", "behavior_decided",
     lambda log: log.update(actions=np.tanh(log["observations"][:, :1])),
     "similar states have similar actions"),
    ("note", "mended_clipped_actions", replaced(repairs={"clipped_actions": 3}),
     "3 actions beyond their bounds by rounding were clipped"),
    ("note", "mended_rows_of_a_new_kind", replaced(repairs={"rows_of_a_new_kind": 2}),
     "rows of a new kind: 2"),
    ("warning", "propensity_certain", propensity(0.5, 1.0), "< 0.1 % of the propensities are 1"),
    ("warning", "propensity_rare", propensity(0.5, 1e-5),
     "the smallest propensity is 1e-05: a single step may weigh 100,000 times"),
    ("note", "propensity_effective", propensity(0.5, 1e-5), "reweighted to random actions, < 0."),
]  # fmt: skip


NAMES = [f"{name}-{level}" for level, name, *_ in FAULTS]


@pytest.mark.parametrize(("level", "name", "fault", "message"), FAULTS, ids=NAMES)
def test_a_fault_is_found(level: str, name: str, fault: Any, message: str):
    data = fault() if not fault.__code__.co_argcount else logged(fault)
    finding = found(data)[name]
    assert finding.level == level
    assert finding.message.startswith(message)
    assert finding.remedy
    assert "\n" not in finding.message + finding.remedy


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_nothing_is_found_in_a_log_without_a_fault(discrete: bool, short: bool):
    assert found(logged(discrete=discrete), short=short) == {}


def test_choices_that_never_occur():
    def without(log: Arrays) -> None:
        log["actions"] = np.minimum(log["actions"], 1)

    finding = found(logged(without, discrete=True))["action_unused"]
    assert finding.message == "1 of 3 actions never occur: 2"
    assert found(logged(every(actions=1), discrete=True))["action_constant"].level == "error"


def test_time_limits_marked_as_truncated_are_right():
    assert "time_limit_as_terminal" not in found(logged(at_the_limit(False)))


def test_states_too_far_apart_to_compare():
    def wide(log: Arrays) -> None:
        noise = np.random.default_rng(1).normal(size=(len(log["rewards"]), 300))
        for name in ("observations", "next_observations"):
            log[name] = np.column_stack([log[name], noise])

    names = found(logged(wide))
    assert "neighbors_far" in names
    assert "behavior_decided" not in names


def test_a_single_outlier_is_no_sentinel():
    assert "observation_sentinel" not in found(logged(spike))


def test_a_clipped_measurement_is_no_sentinel():
    limited = column(lambda log: np.clip(np.tan(np.arange(len(log["rewards"])) * 0.7), -5, 5))
    assert "observation_sentinel" not in found(logged(limited))


def test_no_reference_scores():
    data = logged()
    raw = Scores(0.0, None, None, None, None)
    names = [f.name for f in findings(figures(data, scores=raw))]
    assert names == ["no_reference"]


def test_the_suggested_reward_scale_brings_values_to_about_a_hundred():
    data = logged(lambda log: log.update(rewards=log["rewards"] * 1e5))
    remedy = found(data)["reward_scale"].remedy
    key, _, scale = remedy.partition("=")
    assert key == "dataset.reward_scale"
    assert "reward_scale" not in found(data, remedy)
    assert 1e-5 < float(scale) < 1e-3
    # The stretch to a range of returns makes a scale unnecessary.
    assert "reward_scale" not in found(data, "dataset.return_range=1000")


def test_a_shift_is_found_in_the_short_form_too():
    data = logged(lambda log: log.update(next_observations=log["observations"].copy()))
    assert found(data, short=True)["next_observation_shifted"].level == "error"


def test_errors_come_first_and_notes_last():
    def faults(log: Arrays) -> None:
        log["rewards"].fill(0.0)
        log["terminated"].fill(False)
        log["actions"] *= 0.05

    levels = [f.level for f in findings(figures(logged(faults)))]
    assert levels == sorted(levels, key=LEVELS.index)
    assert set(levels) == set(LEVELS)


def test_every_finding_has_a_test():
    """The names in the source are those in this file."""
    import ast
    import inspect

    from offline_cql.audit import behavior_rules as other
    from offline_cql.audit import rules as one

    named = set()
    for module in (one, other):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                name = node.args[1]
                named.add(name.value if isinstance(name, ast.Constant) else ast.unparse(name))
    here = Path(__file__).read_text()
    tested = {name for name in named if name.startswith("f'") or f'"{name}"' in here}
    assert len(named) > 25
    assert named - tested == set()


# --- Words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "text"),
    [
        *((0, "0 %"), (1, "100 %"), (0.0004, "< 0.1 %"), (0.9996, "> 99.9 %"), (0.5, "50 %")),
        *((0.0123, "1.2 %"), (0.0996, "10 %"), (0.998, "99.8 %")),
    ],
)
def test_a_share_is_all_or_nothing_only_when_it_is(part: float, text: str):
    assert share(part) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (1.5, "1.5"), (-20.272, "-20.27"), (329.0, "329"), (1234.6, "1,235")),
        *((2e-7, "2e-07"), (3.2e9, "3.2e+09"), (100, "100"), (0.01, "0.01")),
    ],
)
def test_figures_have_as_many_digits_as_say_something(value: float, text: str):
    assert figure(value) == text


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"


def test_a_finding_is_plain():
    assert vars(Finding("note", "x", "y", "z")) == {
        "level": "note",
        "name": "x",
        "message": "y",
        "remedy": "z",
    }


def test_the_log_itself_is_what_it_says():
    log = arrays()
    assert (len(log["rewards"]), log["episodes"].max(), log["terminated"].sum()) == (1770, 59, 30)
