"""Guarantee: a suggested mapping states reasons, uses no column twice, and can be pasted."""

import datetime
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.config import settings
from support.table_case import episodes, load_table, write

from offline_cql.errors import DataError
from offline_cql.readers.table.columns import match_columns
from offline_cql.readers.table.inference import Inference, infer_columns

F, N, B, S = [0.5], [1], [True], ["a"]
T = [datetime.datetime(2026, 5, 1)]


def guessed(tmp_path: Path, **columns: Any) -> Inference:
    return infer_columns(str(write(tmp_path / "logs.parquet", columns)))


def test_common_names_are_known_in_any_spelling(tmp_path: Path):
    guess = guessed(
        tmp_path,
        state_2=F,
        state_10=F,
        Act=N,
        R=F,
        traj_id=S,
        timeStep=N,
        Done=B,
        TimeOut=B,
        nextState_2=F,
        nextState_10=F,
        behavior_probability=F,
        written_at=T,
    )
    assert guess.mapping == {
        "observation": ("state_2", "state_10"),
        "action": ("Act",),
        "next_observation": ("nextState_2", "nextState_10"),
        "reward": ("R",),
        "terminated": ("Done",),
        "step": ("timeStep",),
        "episode": ("traj_id",),
        "propensity": ("behavior_probability",),
        "truncated": ("TimeOut",),
    }
    assert "written_at (timestamp[us])" in guess.text()


@pytest.mark.parametrize(
    ("role", "name", "values"),
    [
        ("episode", "session", S),
        ("episode", "Episode", N),
        ("episode", "user_session_id", N),
        ("episode", "date", [datetime.date(2026, 5, 1)]),
        ("step", "t", N),
        ("step", "step_nr", N),
        ("terminated", "is_terminal", B),
        ("truncated", "timeouts", N),
        ("reward", "totalReward", F),
        ("reward", "payoff", F),
        ("propensity", "action_prob", F),
        ("action", "a", N),
        ("action", "heating_command", F),
        ("action", "u1", F),
        ("action", "label", S),
        ("observation", "x3", F),
    ],
)
def test_a_name_that_says_what_a_column_is(role: str, name: str, values: Any, tmp_path: Path):
    assert guessed(tmp_path, **{name: values}).mapping[role] == (name,)


@pytest.mark.parametrize(
    ("name", "values", "role"),
    [
        ("step", T, "step"),
        ("steps_walked", N, "step"),
        ("reward", S, "reward"),
        ("prob", S, "propensity"),
        ("day_temperature", F, "episode"),
    ],
)
def test_a_name_or_a_type_that_does_not_fit(name: str, values: Any, role: str, tmp_path: Path):
    assert role not in guessed(tmp_path, **{name: values}).mapping


def test_what_no_name_claims_is_observed(tmp_path: Path):
    guess = guessed(tmp_path, price=F, stock=N, when=T, ordered=S, reward=F, day=N)
    assert guess.mapping["observation"] == ("price", "stock")
    assert guess.mapping["action"] == ("ordered",)
    assert "  unused           when (timestamp[us])" in guess.text()


def test_what_cannot_be_guessed_is_left_to_fill_in(tmp_path: Path):
    guess = guessed(tmp_path, price=F, stock=N)
    settings_ = guess.overrides()
    assert "dataset.columns.action=[FILL_IN]" in settings_
    assert "dataset.columns.reward=FILL_IN" in settings_
    assert "dataset.columns.episode=FILL_IN" in settings_
    assert "choose one and remove it from the observations" in guess.text()


def test_next_columns_need_a_partner_for_each_observation(tmp_path: Path):
    guess = guessed(tmp_path, obs_0=F, obs_1=F, next_obs_0=F, action=F, reward=F, step=N)
    assert "next_observation" not in guess.mapping
    assert guess.mapping["observation"] == ("obs_0", "obs_1")


def test_a_long_list_is_written_as_a_pattern_where_it_means_the_same(tmp_path: Path):
    columns = {f"s{i}": F for i in range(12)} | {"a": N, "r": F, "t": N}
    assert "dataset.columns.observation=[s*]" in guessed(tmp_path, **columns).overrides()
    columns["session"] = S
    listed = guessed(tmp_path, **columns).overrides()[0]
    assert listed == f"dataset.columns.observation=[{','.join(f's{i}' for i in range(12))}]"


def typed(guess: Inference) -> list[str]:
    """What a shell makes of the command that was printed."""
    command = guess.text().partition("python audit.py ")[2].replace("\\\n", " ")
    return shlex.split(command)


def test_the_printed_command_loads_the_file(tmp_path: Path):
    """Names with spaces, quotes, brackets and the words of YAML; a step that is a time."""
    columns = episodes([3, 2], ["T", "U"])
    renamed = {
        'room "1" [°C], it\'s': columns["obs_0"],
        "null": columns["obs_1"],
        "2nd": columns["obs_1"],
        "done?": columns["terminated"],
        "heating command": columns["action_0"],
        "trip": columns["episode"],
        "reward": columns["reward"],
        "step": [*T, *T, *T, *T, *T],
    }
    path = write(tmp_path / "my logs.parquet", renamed)
    arguments = typed(infer_columns(str(path)))
    dataset = settings(*(text for text in arguments if "columns" not in text))
    assert dataset.dataset.path == str(path)
    given = [text.removeprefix("dataset.columns.") for text in arguments if "columns" in text]
    data = load_table(path, *given)
    assert data.observation_names == ('room "1" [°C], it\'s', "null", "2nd")
    assert data.action_names == ("heating command",)
    assert data.lengths.tolist() == [3, 1]
    assert "step=null" in given


def test_the_kind_of_a_lone_action_is_said(tmp_path: Path):
    rest = {"obs_0": F, "reward": F, "step": N}
    said = {
        kind: re.search("  action .*", guessed(tmp_path, action=values, **rest).text())
        for kind, values in {"text": S, "whole": N, "amount": F}.items()
    }
    assert "discrete, one action per value" in said["text"].group()
    assert "dataset.columns.discrete=false" in said["whole"].group()
    assert "continuous" in said["amount"].group()


def test_no_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        infer_columns(str(tmp_path / "none.csv"))


# --- Patterns ---


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("obs_*", ["obs_1", "obs_2", "obs_10"]),
        ("*_2", ["obs_2", "x_2"]),
        ("o*1*", ["obs_1", "obs_10"]),
        ("obs_1", ["obs_1"]),
        ("obs_?", []),
        ("t[1]*", ["t[1]"]),
        ("a*b", ["a*b"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]):
    names = ["obs_10", "obs_2", "obs_1", "x_2", "t[1]", "a*b", "axb"]
    assert match_columns(pattern, names) == expected
