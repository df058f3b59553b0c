"""Guarantee: at least 9 of 10 made-up leaks are found; at most 1 of 20 clean logs has a warning.

Counted on logs that no threshold was chosen on (`support/leak_cases.py`), some of them recorded in
simulators; the other half of the logs is tested too.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.builders import discrete_data, image_data, settings
from support.leak_cases import (
    COUNTED_CLEAN,
    COUNTED_LEAKS,
    TUNED_CLEAN,
    TUNED_LEAKS,
    leak,
    market,
    next_value,
    one_hot,
    pack,
    tabular,
)
from support.logged import Arrays, cart_arrays, cart_data, statistics_of
from support.train import SIZE

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.leakage import Leak, find_leaks
from offline_cql.audit.rules import apply_rules
from offline_cql.commands.load_data import load_transitions
from offline_cql.transitions import Transitions

RECORDED = {"pendulum": SIZE, "cartpole": SIZE, "hopper": 1_000}


def leaks_of(data: Transitions) -> list[Leak]:
    leakage = find_leaks(BlockReader(data))
    assert leakage is not None
    return leakage.leaks


def is_found(kind: str, case: Callable[[], Transitions]) -> bool:
    """Return True if the last column of the log is a leak of this kind."""
    data = case()
    column = f"observation {data.spaces.observation_dim - 1}"
    return (column, kind) in [(leak.column, leak.kind) for leak in leaks_of(data)]


def has_warning(data: Transitions) -> bool:
    """Return True if a rule about leaks has a finding that is not a note."""
    statistics = dataclasses.replace(STATISTICS, leakage=find_leaks(BlockReader(data)))
    findings = [f for f in apply_rules(statistics) if f.name.startswith("observation_")]
    return any(finding.level != "note" for finding in findings)


STATISTICS = statistics_of(cart_data(), short=True)


def recordings() -> Iterator[Transitions]:
    for env, size in RECORDED.items():
        config = settings(f"env={env}", f"dataset.size={size}")
        yield load_transitions(config.env, config.dataset)


def test_nine_of_ten_counted_leaks_are_found():
    found = [is_found(*case) for case in COUNTED_LEAKS.values()]
    assert len(found) == 10
    assert sum(found) >= 9


@pytest.mark.usefixtures("recorded")
def test_one_of_twenty_counted_clean_logs_has_a_warning_at_most():
    warned = [has_warning(case()) for case in COUNTED_CLEAN.values()]
    warned += [has_warning(data) for data in recordings()]
    assert len(warned) == 20
    assert sum(warned) <= 1


@pytest.mark.parametrize("name", TUNED_LEAKS)
def test_leak_is_found(name: str):
    assert is_found(*TUNED_LEAKS[name])


@pytest.mark.parametrize("name", TUNED_CLEAN)
def test_clean_log_has_no_warning(name: str):
    assert not has_warning(TUNED_CLEAN[name]())


def with_columns(log: Arrays, *columns: Any, actions: int | None = None) -> list[Leak]:
    """Return the leaks among columns that are added to a log, numbered from 0."""
    width = log["observations"].shape[1]
    leaks = leaks_of(pack(leak(log, *columns), actions=actions))
    places = [int(found.column.removeprefix("observation ")) - width for found in leaks]
    return [
        dataclasses.replace(found, column=str(place))
        for found, place in zip(leaks, places, strict=True)
        if place >= 0
    ]


def previous(log: Arrays, name: str) -> Any:
    values = np.roll(log[name].reshape(len(log["rewards"]), -1)[:, 0], 1)
    return np.where(np.diff(log["episodes"], prepend=-1) != 0, 0, values)


@pytest.mark.parametrize("discrete", [False, True])
def test_previous_action_and_reward_are_known(discrete: bool):
    log = cart_arrays(discrete=discrete)
    columns = previous(log, "actions"), previous(log, "rewards")
    assert with_columns(log, *columns, actions=3 if discrete else None) == []


def test_previous_action_is_known_where_actions_are_held():
    """In 99.8% of the rows it equals the row's own action, too."""
    log = cart_arrays(discrete=True)
    rows = np.arange(len(log["rewards"]))
    log["actions"] = (rows // 500) % 3
    held = np.append(0, log["actions"][:-1])
    assert with_columns(log, held, actions=3) == []


def test_one_hot_previous_action_is_known():
    log = tabular(80)
    assert with_columns(log, *one_hot(previous(log, "actions"), 3), actions=3) == []


def test_copies_are_named_in_either_unit():
    log = cart_arrays()
    action = log["actions"][:, 0]
    log["observations"] = np.column_stack([log["observations"], action, 2 * action, log["rewards"]])
    log["next_observations"] = log["observations"]
    leaks = leaks_of(cart_data(lambda _: log))
    assert [(leak.source, leak.copy) for leak in leaks] == [
        ("action 0, scaled to [-1, 1]", True),
        ("action 0", True),
        ("the reward", True),
    ]


def test_flags_of_all_actions_but_one_are_a_leak_and_one_flag_is_not():
    """A policy may answer an alarm with one of its actions."""
    log = tabular(81)
    flags = one_hot(log["actions"], 3)
    assert [found.kind for found in with_columns(log, *flags[1:], actions=3)] == ["action"] * 2
    assert with_columns(log, flags[1], actions=3) == []


def test_next_price_shows_in_the_profit():
    log = market(82, lagged=False)
    (found,) = with_columns(log, next_value(log, 0))
    assert (found.kind, found.source) == ("future", "observation 0 of the next step")


def test_lagged_price_is_a_note():
    """Nothing tells it from the next price: the other column may be the one a step ahead."""
    data = TUNED_CLEAN["lagged price"]()
    statistics = dataclasses.replace(STATISTICS, leakage=find_leaks(BlockReader(data)))
    names = {finding.name: finding.level for finding in apply_rules(statistics)}
    assert names["observation_next_value"] == "note"


def test_repeated_call_finds_the_same():
    data = TUNED_LEAKS["return to go"][1]()
    assert find_leaks(BlockReader(data)) == find_leaks(BlockReader(data))


def test_images_and_few_rows_are_not_compared():
    assert find_leaks(BlockReader(image_data(400))) is None
    assert find_leaks(BlockReader(discrete_data(199))) is None
    leakage = find_leaks(BlockReader(discrete_data(200)))
    assert leakage is not None
    assert (leakage.rows, leakage.leaks) == (200, [])
