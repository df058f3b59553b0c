"""Guarantee: an invalid table is a one-line error with position and remedy."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.table_case import columns_of, episodes, load_table, write

from offline_cql.errors import ConfigError, DataError
from offline_cql.transitions import Spaces


def refused(path: Path | str, *overrides: str, **others: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_table(path, *overrides, **others)
    message = str(caught.value)
    assert "\n" not in message
    return message


def changed(tmp_path: Path, kind: str = "parquet", **columns: Any) -> Path:
    """Two episodes of three steps, some columns replaced; None leaves a column out."""
    made = episodes([3, 3], ["T", "T"]) | columns
    kept = {name: values for name, values in made.items() if values is not None}
    return write(tmp_path / f"logs.{kind}", kept)


# --- Files ---


def test_no_file_a_folder_and_a_foreign_suffix(tmp_path: Path):
    assert "does not exist" in refused(tmp_path / "none.parquet")
    assert "does not exist" in refused(f"{tmp_path}/*.csv")
    assert f"dataset.path={tmp_path}/*.parquet" in refused(tmp_path)
    (tmp_path / "logs.json").write_text("{}")
    assert ".parquet, .csv, .csv.gz, .npz" in refused(tmp_path / "logs.json")


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file(kind: str, share: float, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", episodes([300], ["T"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    if kind == "csv" and share > 0.01:  # a shorter CSV is a CSV: cut within a line it is none
        path.write_bytes(path.read_bytes().rpartition(b",")[0])
    assert str(path) in refused(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "npz"])
def test_something_else_under_the_name(kind: str, tmp_path: Path):
    (tmp_path / f"logs.{kind}").write_text("<html><body>502 Bad Gateway</body></html>")
    assert f"logs.{kind}" in refused(tmp_path / f"logs.{kind}")


def test_objects_are_not_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    columns = episodes([2], ["T"]) | {"obs_0": np.array([Trap(), Trap()], object)}
    np.savez(tmp_path / "logs.npz", **columns)
    assert "Object arrays cannot be loaded" in refused(tmp_path / "logs.npz")
    assert not (tmp_path / "ran").exists()


def test_arrays_of_different_lengths(tmp_path: Path):
    path = changed(tmp_path, "npz", reward=np.zeros(5))
    assert "the arrays differ in length" in (message := refused(path))
    assert "reward 5" in message


def test_the_same_name_twice(tmp_path: Path):
    (tmp_path / "logs.csv").write_text("obs_0,obs_0,action\n1,2,3\n")
    assert "more than one column 'obs_0'" in refused(tmp_path / "logs.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz"])
def test_no_rows(kind: str, tmp_path: Path):
    columns = {name: values[:0] for name, values in episodes([2], ["T"]).items()}
    assert "no rows" in refused(write(tmp_path / f"logs.{kind}", columns)) or kind == "csv"


def test_files_that_differ_in_their_columns(tmp_path: Path):
    write(tmp_path / "a_1.parquet", episodes([2], ["T"]))
    other = episodes([2], ["T"])
    del other["obs_1"]
    write(tmp_path / "a_2.parquet", other)
    assert "a_2.parquet has no column obs_1" in refused(f"{tmp_path}/a_*.parquet")


# --- Columns ---


def test_a_column_that_is_not_there_is_named_with_the_closest_and_a_way_out(tmp_path: Path):
    path = changed(tmp_path)
    message = refused(path, "reward=rewards")
    assert "no column rewards (dataset.columns.reward); did you mean reward?" in message
    assert "columns: obs_0, obs_1, action_0" in message
    assert f"python audit.py env=logged dataset=table dataset.path={path} infer=true" in message


@pytest.mark.parametrize(
    "setting",
    [
        "episode=episode_id",
        "step=tick",
        "propensity=propensity",
        "terminated=done",
        "next_observation=[next_obs_*]",
        "observation=[obs_0,obs_7]",
        "action=[action_*,throttle]",
    ],
)
def test_what_was_typed_has_to_be_there_although_the_default_would_do_without(
    setting: str, tmp_path: Path
):
    assert "has no column" in refused(changed(tmp_path), setting)


@pytest.mark.parametrize("missing", ["reward", "obs_", "action_"])
def test_what_every_step_needs_has_to_be_there(missing: str, tmp_path: Path):
    names = [name for name in episodes([1], ["T"]) if name.startswith(missing)]
    assert "has no column" in refused(changed(tmp_path, **dict.fromkeys(names)))


def test_a_column_has_one_use(tmp_path: Path):
    path = changed(tmp_path)
    both = "both dataset.columns.observation and dataset.columns.reward"
    assert both in refused(path, "observation=[obs_0,reward]")
    assert "dataset.columns.action" in refused(path, "observation=[obs_0,action_0]")
    assert load_table(path, "observation=[obs_0,step]").observation_names == ("obs_0", "step")


def test_a_pattern_for_one_column_that_fits_two(tmp_path: Path):
    assert "matches obs_0, obs_1: name one" in refused(changed(tmp_path), "reward=obs_*")


def test_next_observations_fit_the_observations(tmp_path: Path):
    path = changed(tmp_path, next_obs_0=np.zeros(6))
    assert "has 1 columns, dataset.columns.observation 2" in refused(path)


def test_nothing_says_where_an_episode_ends(tmp_path: Path):
    path = changed(tmp_path, episode=None, step=None, terminated=None, truncated=None)
    assert "the ends of episodes are unknown" in refused(path)


# --- Order ---


def test_a_step_that_is_missing_or_out_of_order(tmp_path: Path):
    path = changed(tmp_path, step=[0, 1, 2, 0, 2, 3])
    message = refused(path)
    assert f"{path} at row 4, column step: step 2 follows step 0" in message
    assert "sort by episode, step" in message
    assert "step 1 follows step 1" in refused(changed(tmp_path, step=[0, 1, 1, 0, 1, 2]))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_an_episode_that_comes_back(chunk: int, tmp_path: Path):
    path = changed(tmp_path, episode=[7, 7, 8, 8, 7, 8], step=None, terminated=None, truncated=None)
    message = refused(path, chunk=chunk)
    assert "episode 7 (and 1 others) continues after another one started" in message


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_an_episode_that_goes_on_after_its_end(flag: str, chunk: int, tmp_path: Path):
    path = changed(tmp_path, **{flag: [False, True, False, False, False, True]})
    assert "row 2, column episode: episode 0 continues after a row" in refused(path, chunk=chunk)


# --- Values ---


@pytest.mark.parametrize("name", ["obs_1", "action_0", "reward", "step", "episode", "terminated"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("chunk", [2, 100])
def test_a_missing_value_is_named_by_row_and_column(
    name: str, kind: str, chunk: int, tmp_path: Path
):
    values = episodes([3, 3], ["T", "T"])[name].tolist()
    values[4] = None
    path = changed(tmp_path, kind, **{name: values})
    message = refused(path, chunk=chunk)
    assert f"{path} at row 4, column {name}: the value is missing" in message


def test_nothing_is_no_action_but_a_quoted_NA_is_one(tmp_path: Path):
    columns = lone(tmp_path, ["a", "b", None, "a", "b", "a"], kind="csv")
    assert "row 2, column action: the value is missing" in refused(columns)
    named = lone(tmp_path, ["a", "NA", "a", "a", "NA", "a"], kind="csv")
    assert load_table(named).action_names == ("NA", "a")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none(value: float, tmp_path: Path):
    path = changed(tmp_path, obs_0=[0, 0, 0, value, 0, 0])
    assert f"{path} at row 3, column obs_0: the value is" in refused(path)


def test_numbers_beyond_float32(tmp_path: Path):
    assert "too large for float32" in refused(changed(tmp_path, obs_0=[0, 0, 1e39, 0, 0, 0]))


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (["warm"] * 6, "holds text: encode it as numbers"),
        ([datetime.datetime(2026, 5, 1)] * 6, "holds times (timestamp[us]): convert it to numbers"),
        ([[1.0, 2.0]] * 6, "split it into one column per number"),
        ([b"x"] * 6, "holds binary, expected numbers"),
    ],
)
@pytest.mark.parametrize("name", ["obs_0", "reward", "action_0"])
def test_what_is_no_number(name: str, values: Any, hint: str, tmp_path: Path):
    assert hint in refused(changed(tmp_path, **{name: values}))


def test_flags_steps_and_episodes_of_a_wrong_kind(tmp_path: Path):
    message = refused(changed(tmp_path, terminated=[0, 0, 1, 0, 0, 2]))
    assert "row 5, column terminated: 2 must be 0 or 1" in message
    times = [datetime.datetime(2026, 5, day) for day in range(1, 7)]
    assert "column step holds timestamp[us], expected int" in refused(changed(tmp_path, step=times))
    assert "not all are integers" in refused(changed(tmp_path, step=[0, 1, 1.5, 0, 1, 2]))
    message = refused(changed(tmp_path, episode=[[1]] * 6))
    assert "episodes are identified by integers, text or dates" in message


# --- Actions ---


def lone(tmp_path: Path, values: Any, **columns: Any) -> Path:
    return changed(tmp_path, **{"action_0": None, "action_1": None, "action": values, **columns})


def test_an_action_that_never_changes(tmp_path: Path):
    message = refused(changed(tmp_path, action_1=[0.5] * 6))
    assert "column action_1 is always 0.5: remove it from dataset.columns.action" in message
    assert "is always push: two actions are the minimum" in refused(lone(tmp_path, ["push"] * 6))


@pytest.mark.parametrize(
    ("value", "shown"),
    [("é\n", "'é\\n'"), ("", "''"), (" a", "' a'"), ("x" * 99, "x" * 40 + "…"), (True, "true")],
)
def test_a_value_is_told_on_one_line(tmp_path: Path, value: Any, shown: str):
    message = refused(lone(tmp_path, [value] * 6))
    assert f"column action is always {shown}: two actions are the minimum" in message


def test_more_choices_than_anyone_has(tmp_path: Path):
    columns = episodes([1_001], ["T"])
    columns["action"] = np.arange(1_001)
    path = write(tmp_path / "logs.parquet", columns)
    message = refused(path, "action=[action]")
    assert "more than 1,000 distinct actions" in message
    assert "dataset.columns.discrete=false" in message


def test_settings_of_the_actions_that_do_not_fit(tmp_path: Path):
    path = changed(tmp_path)
    assert "needs one action column" in refused(path, "discrete=true")
    assert "needs 2 numbers" in refused(path, "action_low=[0]", "action_high=[1]")
    bounds = ("action_low=[0]", "action_high=[1]")
    assert "has no effect" in refused(lone(tmp_path, [0, 1, 0, 1, 0, 1]), *bounds)
    assert "not all are integers" in refused(lone(tmp_path, [0.5] * 6), "discrete=true")
    assert "holds text" in refused(lone(tmp_path, ["a"] * 6), "discrete=false")


@pytest.mark.parametrize(
    "bounds",
    [
        ("action_low=[0]",),
        ("action_high=[0]",),
        ("action_low=[0,0]", "action_high=[1]"),
        ("action_low=[0,1]", "action_high=[1,1]"),
        ("action_low=[0,nan]", "action_high=[1,1]"),
    ],
)
def test_bounds_come_in_pairs(bounds: tuple[str, ...]):
    with pytest.raises(ConfigError, match="action_"):
        columns_of(*bounds)


def test_actions_beyond_the_bounds_of_the_settings(tmp_path: Path):
    path = changed(tmp_path)
    assert "are outside" in refused(path, "action_low=[0,0]", "action_high=[0.1,1]")


def test_propensities_that_are_no_probabilities(tmp_path: Path):
    path = lone(tmp_path, [0, 1, 0, 1, 0, 1], propensity=[0.5, 0.5, 1.5, 0.5, 0.0, 0.5])
    assert "propensities are not within (0, 1]" in refused(path)


def test_data_that_are_not_the_simulators(tmp_path: Path):
    path = changed(tmp_path)
    message = refused(path, spaces=Spaces(3, 2, False, (-1, -1), (1, 1)))
    assert "matches 2 columns (obs_0, obs_1), the simulator has 3" in message
    two = "the simulator has 2 discrete actions"
    assert two in refused(path, spaces=Spaces(2, 2, True, (), ()))
    one = "the simulator has 1 action dimensions"
    assert one in refused(path, spaces=Spaces(2, 1, False, (-1,), (1,)))
    real = Spaces(2, 2, False, (-1, -1), (1, 1))
    assert "has no effect with a simulator" in refused(path, "discrete=false", spaces=real)
    assert "are outside" in refused(path, spaces=Spaces(2, 2, False, (0, 0), (0.1, 1)))
    text = lone(tmp_path, ["a", "b"] * 3)
    assert two in refused(text, spaces=Spaces(2, 2, True, (), ()))
    beyond = lone(tmp_path, [0, 1, 2] * 2)
    assert "not among 0 … 1" in refused(beyond, spaces=Spaces(2, 2, True, (), ()))


def test_files_that_disagree_about_the_kind_of_an_action_or_an_episode(tmp_path: Path):
    first, second = episodes([2, 2], ["T", "T"]), episodes([2, 2], ["T", "T"])
    first["action"], second["action"] = [0, 1, 0, 1], ["a", "b", "a", "b"]
    second["episode"] += 2
    write(tmp_path / "x_1.parquet", first)
    write(tmp_path / "x_2.parquet", second)
    assert "is string, in other files int64" in refused(
        f"{tmp_path}/x_*.parquet", "action=[action]"
    )
    second["action"], second["episode"] = [1, 0, 1, 0], ["c", "c", "d", "d"]
    write(tmp_path / "x_2.parquet", second)
    assert "column episode is string, in other files" in refused(f"{tmp_path}/x_*.parquet")


def test_every_episode_is_too_short(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", episodes([1, 1], ["U", "U"]) | {"action_0": [0, 1.0]})
    assert "holds no transitions" in refused(path)


def test_a_table_of_types_that_nobody_reads(tmp_path: Path):
    path = tmp_path / "logs.parquet"
    columns = episodes([2], ["T"]) | {"obs_0": pa.array([{"a": 1}, {"a": 2}])}
    pa.parquet.write_table(pa.table(columns), path)
    assert "split it into one column per number" in refused(path)
