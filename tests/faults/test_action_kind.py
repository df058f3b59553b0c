"""Guarantee: actions are taken as choices or amounts by what the user says, never in silence.

And what is said of them is true: no shift where a policy answers an observation that no action
changes; no confidence where inputs are far outside the data.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.builders import settings
from support.config import ROOT
from support.logged import cart_data, findings_of, statistics_of
from support.table_case import Columns, load_table, write

from offline_cql.audit.describe import describe
from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import apply_rules
from offline_cql.audit.statistics import compute_statistics
from offline_cql.commands.export import observation_range
from offline_cql.errors import DataError
from offline_cql.readers.table.inference import infer_columns
from offline_cql.transitions import Spaces, Transitions

Array = npt.NDArray[Any]
TABLE = ("env=logged", "dataset=table", "dataset.path=x")


def log(size: int = 1_000, **actions: Any) -> Columns:
    """Return 25-step episodes with two random observations and the action columns."""
    rng = np.random.default_rng(0)
    observations = {f"obs_{k}": rng.normal(size=size) for k in range(2)}
    episode = np.repeat(np.arange(size // 25), 25)
    return {"episode": episode, **observations, **actions, "reward": rng.normal(size=size)}


def draw(*values: float, size: int = 1_000) -> Array:
    """Return random choices among the values."""
    return np.random.default_rng(1).choice(values, size)


def audit(path: Path, *overrides: str) -> tuple[dict[str, Finding], str]:
    """Return the findings of a table's audit by name, and its line on the kind of actions."""
    dataset = settings(*TABLE, *(f"dataset.columns.{text}" for text in overrides)).dataset
    data = load_table(path, *overrides)
    statistics = compute_statistics(
        data, dataset, statistics_of(cart_data()).scores, gamma=0.9, short=False
    )
    findings = {finding.name: finding for finding in apply_rules(statistics)}
    return findings, describe(statistics)["Actions"]["taken as"]


# --- Choices or amounts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actions", "column"),
    [
        ({"action_0": draw(0, 1, 2), "action_1": draw(0, 1)}, "action_0 holds 3 whole numbers"),
        ({"action_0": draw(0, 1, 2) + 0.0, "action_1": draw(*range(101))}, "action_0 holds 3"),
        ({"action": draw(0.0, 2.0, 3.0)}, r"action holds 3 whole numbers \(0, 2, 3\)"),
        ({"action_0": draw(0, 1) == 1, "action_1": draw(0, 1) == 0}, "action_0 holds 2"),
    ],
    ids=["several", "beside an amount", "floats", "booleans"],
)
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_numbers_that_may_be_choices_need_a_setting(
    actions: Columns, column: str, kind: str, tmp_path: Path
):
    """A policy with continuous actions would serve 0.85 of a choice."""
    path = write(tmp_path / f"logs.{kind}", log(**actions))
    with pytest.raises(DataError, match=column) as caught:
        load_table(path)
    message = str(caught.value)
    assert "dataset.columns.discrete=true for choices" in message
    assert "dataset.columns.discrete=false for amounts" in message


@pytest.mark.parametrize(
    ("actions", "ambiguous"),
    [
        ({"action_0": draw(0, 1, 2), "action_1": draw(*range(101))}, ("action_0",)),
        ({"action": np.where(np.arange(1_000) == 3, np.nan, draw(0.0, 2.0, 3.0))}, ("action",)),
        ({"action": draw(0, 1)}, ()),  # choices by the type
        ({"action_0": draw(0.5, 1.0), "action_1": draw(*range(101))}, ()),
        ({"action_0": np.where(draw(0, 1), "a", "b"), "action_1": draw(0, 1)}, ()),
    ],
)
def test_a_suggested_mapping_asks_for_the_kind(
    actions: Columns, ambiguous: tuple[str, ...], tmp_path: Path
):
    inference = infer_columns(str(write(tmp_path / "logs.parquet", log(**actions))))
    assert inference.ambiguous == ambiguous
    asked = "dataset.columns.discrete=FILL_IN" in inference.overrides()
    assert asked == ("true for choices, false for amounts" in inference.text()) == bool(ambiguous)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_choices_in_several_columns_are_one_action_per_combination(kind: str, tmp_path: Path):
    """3 × 2 levels: six actions with the names of both; each row keeps its own."""
    m, k = draw(0, 1, 2), np.random.default_rng(2).integers(0, 2, 1_000)
    data = load_table(
        write(tmp_path / f"logs.{kind}", log(action_0=m, action_1=k)), "discrete=true"
    )
    assert data.spaces == Spaces(2, 6, True, (), ())
    names = [f"action_0={i}, action_1={j}" for i in range(3) for j in range(2)]
    assert list(data.action_names) == names
    last = np.arange(1_000) % 25 == 24  # has no next observation
    expected = [f"action_0={i}, action_1={j}" for i, j in zip(m[~last], k[~last], strict=True)]
    assert [names[int(action)] for action in data.actions] == expected


def test_ids_as_floats_keep_their_names(tmp_path: Path):
    data = load_table(
        write(tmp_path / "logs.csv", log(action=draw(0.0, 2.0, 3.0))), "discrete=true"
    )
    assert data.spaces.discrete
    assert data.action_names == ("0", "2", "3")


@pytest.mark.parametrize(
    "settings", [("discrete=false",), ("action_low=[0,0]", "action_high=[2,1]")]
)
def test_amounts_that_the_user_declares_are_amounts(settings: tuple[str, ...], tmp_path: Path):
    actions = {"action_0": draw(0, 1, 2), "action_1": np.arange(1_000) % 2}
    data = load_table(write(tmp_path / "logs.parquet", log(**actions)), *settings)
    assert data.spaces == Spaces(2, 2, False, (0.0, 0.0), (2.0, 1.0))


def test_whole_amounts_in_several_columns_load_unasked(tmp_path: Path):
    """Thousands of whole numbers up to 5,000 are amounts."""
    rng = np.random.default_rng(0)
    actions = {f"action_{k}": rng.integers(0, 5_001, 1_000) for k in range(2)}
    data = load_table(write(tmp_path / "logs.csv", log(**actions)))
    assert not data.spaces.discrete
    assert data.spaces.action_high[0] > 4_900


@pytest.mark.parametrize(
    ("actions", "overrides", "line", "finding"),
    [
        (draw(*range(101)), (), "choices, by the type", "101 whole numbers, 0 … 100"),
        (draw(*range(101)), ("discrete=true",), "choices", None),
        (draw(*range(101)), ("discrete=false",), "amounts", None),
        (draw(0, 1, 2), (), "choices, by the type", None),
        (draw("warm", "cold"), (), "choices, by the type", None),
        (draw(18.0, 18.5, 19.0), (), "amounts, by the type", "action (3 values)"),
    ],
    ids=["doses", "doses as choices", "doses as amounts", "ids", "text", "few levels"],
)
def test_the_audit_says_which_kind_it_took_and_the_setting_for_the_other(
    actions: Any, overrides: tuple[str, ...], line: str, finding: str | None, tmp_path: Path
):
    findings, taken_as = audit(write(tmp_path / "logs.parquet", log(action=actions)), *overrides)
    assert taken_as.startswith(line)
    assert ("dataset.columns.discrete=" in taken_as) == (not overrides)
    if finding is None:
        assert "action_kind" not in findings
    else:
        assert finding in findings["action_kind"].message
        assert "dataset.columns.discrete=false" in findings["action_kind"].remedy


# --- Shifts --------------------------------------------------------------------------------------

Policy = Callable[[Array, np.random.Generator], float]


def closed_loop(*, drive: float, policy: Policy, cycle: bool = False) -> Transitions:
    """Return 60 episodes of 60 steps: an observation of its own, and one that the action drives.

    The first is an autoregressive process, or a cycle with a random phase; the second moves by
    `drive` times the action.
    """
    rng = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"observations": [], "next_observations": [], "actions": []}
    for _ in range(60):
        state, phase = rng.normal(size=2), rng.uniform(0, 6)
        for step in range(60):
            action = policy(state, rng)
            free = np.sin(step / 4 + phase) if cycle else 0.9 * state[0] + 0.4 * rng.normal()
            driven = 0.9 * state[1] + drive * action + 0.1 * rng.normal()
            rows["observations"].append(state)
            rows["actions"].append([action])
            state = np.array([free, driven])
            rows["next_observations"].append(state)
    return Transitions.pack(
        **{name: np.array(values) for name, values in rows.items()},
        rewards=rng.normal(size=3_600),
        terminated=np.zeros(3_600, bool),
        episodes=np.repeat(np.arange(60), 60),
        spaces=Spaces(2, 1, False, (-9.0,), (9.0,)),
        dataset_id="test/loop",
    )


def shifted(data: Transitions, by: int) -> Transitions:
    """Return the data with the action of another row."""
    data.rows[:, data.columns.action] = np.roll(data.rows[:, data.columns.action], by, axis=0)
    return data


POLICIES: dict[str, Policy] = {
    "proportional": lambda state, rng: float(np.clip(state[0] + 0.3 * rng.normal(), -8, 8)),
    "exact": lambda state, rng: float(state[0]),
    "on and off": lambda state, rng: float(np.sign(state[0])),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("drive", [0.0, 0.3])
@pytest.mark.parametrize("cycle", [False, True])
def test_a_policy_that_answers_an_observation_of_its_own_course_is_not_shifted(
    policy: Policy, drive: float, cycle: bool
):
    """The following action reveals the new observation: that is no evidence of a late column."""
    assert "action_shifted" not in findings_of(closed_loop(drive=drive, policy=policy, cycle=cycle))


@pytest.mark.parametrize(("by", "timing"), [(1, "late"), (-1, "early")])
def test_an_action_that_drives_an_observation_is_found_in_another_row(by: int, timing: str):
    data = closed_loop(drive=0.5, policy=lambda state, rng: float(rng.uniform(-1, 1)))
    finding = findings_of(shifted(data, by))["action_shifted"]
    assert finding.message.endswith(f"it may be logged one step {timing}")


# --- Inputs outside the data ---------------------------------------------------------------------


@pytest.mark.parametrize(("std", "named"), [(0.5, True), (2.0, False)])
@pytest.mark.parametrize("short", [True, False])
def test_a_column_that_hardly_varies_is_named(std: float, named: bool, short: bool):
    """Around 10,000: 0.5 is below a ten-thousandth of it, 2 is above; also at training (short)."""

    def replace(arrays: dict[str, Any]) -> None:
        values = 10_000 + std * np.random.default_rng(0).normal(size=len(arrays["rewards"]))
        for name in ("observations", "next_observations"):
            arrays[name] = np.column_stack([arrays[name], values])

    findings = findings_of(cart_data(replace), short=short)
    assert ("observation_nearly_constant" in findings) == named
    if named:
        finding = findings["observation_nearly_constant"]
        assert finding.level == "warning"
        assert "columns hardly vary: observation 2" in finding.message


def test_the_range_of_the_data_is_that_of_each_column():
    data = cart_data()
    low, high = observation_range(data)
    assert low == data.observations.min(axis=0).tolist()
    assert high == data.observations.max(axis=0).tolist()


SERVE = """
import importlib.util, json, sys, types
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")  # not called
spec = importlib.util.spec_from_file_location("serve", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
policy = object.__new__(module.ServedPolicy)
policy.description = {"observation": json.loads(sys.argv[2])}
policy.columns = []
for row in json.loads(sys.argv[3]):
    print(json.dumps(policy.far_outside(module.np.array(row, module.np.float32))))
"""


def test_served_inputs_far_outside_the_data_are_named():
    """Data from 11,999 to 12,001 and 0 to 10: outside by more than that width is far."""
    observation = {"names": ["T", "flow"], "low": [11_999, 0], "high": [12_001, 10]}
    rows = [[12_000, 5], [12_002.9, -9.9], [11_996, 5], [12_000, 21]]
    arguments = [str(ROOT / "examples" / "serve_policy.py"), *map(json.dumps, (observation, rows))]
    process = subprocess.run(
        [sys.executable, "-c", SERVE, *arguments], capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in process.stdout.splitlines()] == [
        None,
        None,
        "T is 11996, in the training data 11999 to 12001",
        "flow is 21, in the training data 0 to 10",
    ]
