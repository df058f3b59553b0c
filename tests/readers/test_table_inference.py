"""Guarantee: a suggested mapping states reasons, uses no column twice, and can be pasted."""

import datetime
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from support.config import settings
from support.table_case import columns_of, episodes, load_table, write

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.table.columns import match_columns
from offline_cql.readers.table.inference import Inference, infer_columns
from offline_cql.readers.table.reader import TableReader

F, N, B, S = [0.5], [1], [True], ["a"]
T = [datetime.datetime(2026, 5, 1)]


def infer(tmp_path: Path, **columns: Any) -> Inference:
    """Write the columns to a file and infer the mapping."""
    return infer_columns(str(write(tmp_path / "logs.parquet", columns)))


def test_common_names_are_recognized_in_any_spelling(tmp_path: Path):
    columns = {"state_2": F, "state_10": F, "Act": N, "R": F, "traj_id": S, "timeStep": N}
    columns |= {"Done": B, "TimeOut": B, "nextState_2": F, "nextState_10": F}
    inference = infer(tmp_path, **columns, behavior_probability=F, written_at=T)
    assert inference.mapping == {
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
    assert "written_at (timestamp[us])" in inference.text()


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
def test_a_telling_name_determines_the_role(role: str, name: str, values: Any, tmp_path: Path):
    assert infer(tmp_path, **{name: values}).mapping[role] == (name,)


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
def test_a_name_or_type_that_does_not_fit_has_no_role(
    name: str, values: Any, role: str, tmp_path: Path
):
    assert role not in infer(tmp_path, **{name: values}).mapping


def test_other_numbers_are_observations(tmp_path: Path):
    inference = infer(tmp_path, price=F, stock=N, when=T, ordered=S, reward=F, day=N)
    assert inference.mapping["observation"] == ("price", "stock")
    assert inference.mapping["action"] == ("ordered",)
    assert inference.mapping["step"] == ("when",)
    assert "the only column of times" in inference.text()


def test_few_texts_are_categories(tmp_path: Path):
    """Of twelve rows: `mode` has two texts, `note` as many as there are rows."""
    path = write(
        tmp_path / "logs.parquet",
        {
            **{"episode": [0] * 6 + [1] * 6, "dose": [0.5, 1.5] * 6, "reward": [1.0] * 12},
            **{"age": [50.5] * 12, "mode": ["on", "off", "on"] * 4},
            "note": [f"note {number}" for number in range(12)],
        },
    )
    inference = infer_columns(str(path))
    assert inference.mapping["observation"] == ("age", "mode")
    assert "note (string)" in inference.text()
    overrides = [text.removeprefix("dataset.columns.") for text in inference.overrides()]
    assert "categories=[mode]" in overrides
    assert load_table(path, *overrides).observation_names == ("age", "mode=off", "mode=on")


def test_gaps_are_filled_by_the_printed_command(tmp_path: Path):
    columns = episodes([6, 6], ["T", "T"])
    gaps = [None if row == 2 else value for row, value in enumerate(columns["obs_0"].tolist())]
    path = write(tmp_path / "logs.parquet", columns | {"obs_0": gaps, "=x": columns["obs_0"]})
    inference = infer_columns(str(path))
    assert "fill: obs_0 lack values" in inference.text()
    assert "=x (its name begins with =" in inference.text()
    arguments = parse_command(inference)
    assert "dataset.missing=fill" in arguments
    prefix = "dataset.columns."
    overrides = [text.removeprefix(prefix) for text in arguments if text.startswith(prefix)]
    reader = TableReader(str(path), columns_of(*overrides), missing="fill")
    assert load(reader).observation_names == ("obs_0", "obs_0 missing", "obs_1")
    with pytest.raises(DataError, match="the name of column =x begins with =, as expressions do"):
        load_table(path, "observation=['=x']")


def test_roles_that_cannot_be_inferred_are_to_be_filled_in(tmp_path: Path):
    inference = infer(tmp_path, price=F, stock=N)
    overrides = inference.overrides()
    assert "dataset.columns.action=[FILL_IN]" in overrides
    assert "dataset.columns.reward=FILL_IN" in overrides
    assert "dataset.columns.episode=FILL_IN" in overrides
    assert "choose one and remove it from the observations" in inference.text()


def test_next_observations_are_used_when_every_observation_has_one(tmp_path: Path):
    inference = infer(tmp_path, obs_0=F, obs_1=F, next_obs_0=F, action=F, reward=F, step=N)
    assert "next_observation" not in inference.mapping
    assert inference.mapping["observation"] == ("obs_0", "obs_1")


def test_a_long_list_is_written_as_a_pattern_if_equivalent(tmp_path: Path):
    columns = {f"s{i}": F for i in range(12)} | {"a": N, "r": F, "t": N}
    assert "dataset.columns.observation=[s*]" in infer(tmp_path, **columns).overrides()
    columns["session"] = S
    observation = infer(tmp_path, **columns).overrides()[0]
    assert observation == f"dataset.columns.observation=[{','.join(f's{i}' for i in range(12))}]"


def parse_command(inference: Inference) -> list[str]:
    """Return the arguments that a shell parses from the printed command."""
    command = inference.text().partition("python audit.py ")[2].replace("\\\n", " ")
    return shlex.split(command)


def test_the_printed_command_loads_the_file(tmp_path: Path):
    """Names have spaces, quotes, brackets and YAML's keywords; one step column holds times."""
    columns = episodes([3, 2], ["T", "U"])
    renamed = {
        'inside "1" [°C], it\'s': columns["obs_0"],
        "null": columns["obs_1"],
        "2nd": columns["obs_1"],
        "done?": columns["terminated"],
        "heating command": columns["action_0"],
        "trip": columns["episode"],
        "reward": columns["reward"],
        "step": [*T, *T, *T, *T, *T],
        "propensity": ["unknown"] * 5,
    }
    path = write(tmp_path / "my logs.parquet", renamed)
    arguments = parse_command(infer_columns(str(path)))
    config = settings(*(text for text in arguments if "columns" not in text))
    assert config.dataset.path == str(path)
    prefix = "dataset.columns."
    columns_overrides = [t.removeprefix(prefix) for t in arguments if t.startswith(prefix)]
    data = load_table(path, *columns_overrides)
    assert data.observation_names == ('inside "1" [°C], it\'s', "null", "2nd")
    assert data.action_names == ("heating command",)
    assert data.lengths.tolist() == [3, 1]
    assert {"step=step", "propensity=null"} <= set(columns_overrides)


def test_the_kind_of_a_single_action_is_stated(tmp_path: Path):
    rest = {"obs_0": F, "reward": F, "step": N}
    lines = {
        kind: re.search("  action .*", infer(tmp_path, action=values, **rest).text())
        for kind, values in {"text": S, "whole": N, "amount": F}.items()
    }
    assert "discrete, one action per value" in lines["text"].group()
    assert "dataset.columns.discrete=false" in lines["whole"].group()
    assert "continuous" in lines["amount"].group()


def test_a_broken_value_further_below_does_not_stop_the_suggestion(tmp_path: Path):
    """Row 60,000 has text in a column of whole numbers, which a user may leave out."""
    lines = ["price,action,reward", *["1,0,0.5", "2,1,0.5"] * 30_000, "none,0,0.5"]
    path = tmp_path / "logs.csv"
    path.write_text("\n".join(lines))
    assert infer_columns(str(path)).mapping["observation"] == ("price",)


# --- Values ---

DAYS = [f"{number // 4:03}" + "-site" for number in range(40)]  # ten runs of four rows


def log(**columns: Any) -> dict[str, Any]:
    """Return 40 rows: columns of 40 values, and a price."""
    return {"price": [float(k * 7 % 11) for k in range(40)], **columns}


def test_text_that_stays_for_runs_of_rows_is_an_episode(tmp_path: Path):
    """The ten batches, not the two sites; a text that comes back is none."""
    sites = ["a"] * 20 + ["b"] * 20
    inference = infer(tmp_path, **log(site=sites, batch=DAYS, shift=["x", "y"] * 20, reward=F * 40))
    assert inference.mapping["episode"] == ("batch",)
    assert "its text stays for runs of rows, 10 in" in inference.text()
    assert "episode" not in infer(tmp_path, **log(shift=["x", "y"] * 20, reward=F * 40)).mapping


def test_few_different_values_are_an_action(tmp_path: Path):
    """`valve` is 0, 1, 2 in turn; `age` stays for an episode."""
    columns = log(batch=DAYS, valve=[k % 3 for k in range(40)], reward=F * 40)
    columns["age"] = [30 + k // 4 * 2 for k in range(40)]
    inference = infer(tmp_path, **columns)
    assert inference.mapping["action"] == ("valve",)
    assert inference.mapping["observation"] == ("price", "age")
    columns["mode"] = [k // 2 % 2 for k in range(40)]
    assert "valve, mode have few different values" in infer(tmp_path, **columns).text()


@pytest.mark.parametrize("mark", ["batch", "minute"])
def test_a_flag_that_is_true_on_last_rows_is_an_end(mark: str, tmp_path: Path):
    """`final` is; `alarm` is true on a first row too; `minute` is 0, 1, 2, 3 again and again."""
    marks = {"batch": DAYS, "minute": [k % 4 for k in range(40)]}
    flags = {"alarm": [k % 4 == 3 or k == 8 for k in range(40)]}
    flags["final"] = [k % 4 == 3 for k in range(40)]
    inference = infer(tmp_path, **log(**{mark: marks[mark]}, **flags, reward=F * 40))
    assert inference.mapping["terminated"] == ("final",)
    assert inference.mapping["step" if mark == "minute" else "episode"] == (mark,)


def test_a_column_that_counts_the_rows_is_left_out(tmp_path: Path):
    columns = log(count=list(range(7, 47)), action=[0, 1] * 20, reward=F * 40)
    path = write(tmp_path / "logs.csv", {"": list(range(40)), **columns})
    inference = infer_columns(str(path))
    assert inference.mapping["observation"] == ("price",)
    assert "(unnamed) (numbers the rows), count (numbers the rows)" in inference.text()


def test_what_follows_the_action_is_no_observation(tmp_path: Path):
    """One is the reward if there is no other; the next step's and another end are left out."""
    columns = log(action=[0, 1] * 20, revenue=F * 40, conversion=N * 40, next_price=F * 40)
    columns |= {
        "done": [k % 4 == 3 for k in range(40)],
        "terminated": [k % 8 == 7 for k in range(40)],
    }
    columns |= {"sales_last_week": F * 40}
    inference = infer(tmp_path, **columns)
    assert inference.mapping["reward"] == ("revenue",)
    assert inference.mapping["observation"] == ("price", "sales_last_week")
    assert inference.mapping["terminated"] == ("terminated",)
    assert set(inference.left_out) == {"conversion", "done", "next_price"}
    inference = infer(tmp_path, **columns, reward=F * 40)
    assert inference.left_out["revenue"] == "known after the action only"


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        (  # LeRobot
            "observation.state_0 observation.state_1 action_0 episode_index frame_index "
            "next.reward next.done index task_index",
            {"step": ("frame_index",), "reward": ("next.reward",), "terminated": ("next.done",)}
            | {"episode": ("episode_index",), "action": ("action_0",)},
        ),
        (  # Open Bandit
            "item_id position click propensity_score user_feature_0 user-item_affinity_0",
            {"action": ("item_id",), "reward": ("click",), "propensity": ("propensity_score",)},
        ),
        (  # RLlib
            "obs_0 new_obs_0 actions rewards terminateds truncateds eps_id t vf_preds advantages",
            {"reward": ("rewards",), "step": ("t",), "observation": ("obs_0",)},
        ),
        (  # tianshou
            "obs_0 act rew terminated truncated done obs_next_0",
            {"action": ("act",), "terminated": ("terminated",), "observation": ("obs_0",)},
        ),
        (  # d3rlpy
            "observations_0 observations_1 actions rewards terminals timeouts",
            {"terminated": ("terminals",), "truncated": ("timeouts",), "action": ("actions",)},
        ),
    ],
)
def test_the_names_of_libraries_are_known(names: str, mapping: dict[str, Any], tmp_path: Path):
    integers = {"item_id", "episode_index", "frame_index", "t", "eps_id", "act", "actions"}
    columns = {name: N if name in integers else F for name in names.split()}
    inferred = infer(tmp_path, **columns).mapping
    assert {role: inferred.get(role) for role in mapping} == mapping


def test_a_missing_file_is_a_data_error(tmp_path: Path):
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
def test_patterns_match_columns_in_natural_order(pattern: str, expected: list[str]):
    names = ["obs_10", "obs_2", "obs_1", "x_2", "t[1]", "a*b", "axb"]
    assert match_columns(pattern, names) == expected
