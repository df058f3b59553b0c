"""Guarantee: an invalid table is refused in one line with position and remedy."""

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


def refusal(path: Path | str, *overrides: str, **others: Any) -> str:
    """Return the message with which loading fails."""
    with pytest.raises(DataError) as caught:
        load_table(path, *overrides, **others)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_changed(tmp_path: Path, kind: str = "parquet", **columns: Any) -> Path:
    """Write two episodes of three steps with some columns replaced; None removes a column."""
    table = episodes([3, 3], ["T", "T"]) | columns
    table = {name: values for name, values in table.items() if values is not None}
    return write(tmp_path / f"logs.{kind}", table)


# --- Files -----


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(tmp_path: Path):
    assert "does not exist" in refusal(tmp_path / "none.parquet")
    assert "does not exist" in refusal(f"{tmp_path}/*.csv")
    assert f"dataset.path={tmp_path}/*.parquet" in refusal(tmp_path)
    (tmp_path / "logs.json").write_text("{}")
    assert ".parquet, .csv, .csv.gz, .npz" in refusal(tmp_path / "logs.json")


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(kind: str, share: float, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", episodes([300], ["T"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    if kind == "csv" and share > 0.01:  # whole lines of a CSV are valid: cut within a line
        path.write_bytes(path.read_bytes().rpartition(b",")[0])
    assert str(path) in refusal(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "npz"])
def test_a_web_page_under_the_name_is_refused(kind: str, tmp_path: Path):
    (tmp_path / f"logs.{kind}").write_text("<html><body>502 Bad Gateway</body></html>")
    assert f"logs.{kind}" in refusal(tmp_path / f"logs.{kind}")


def test_objects_are_not_unpickled(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    columns = episodes([2], ["T"]) | {"obs_0": np.array([Trap(), Trap()], object)}
    np.savez(tmp_path / "logs.npz", **columns)
    assert "Object arrays cannot be loaded" in refusal(tmp_path / "logs.npz")
    assert not (tmp_path / "ran").exists()


def test_arrays_of_different_lengths_are_refused(tmp_path: Path):
    path = write_changed(tmp_path, "npz", reward=np.zeros(5))
    assert "the arrays differ in length" in (message := refusal(path))
    assert "reward 5" in message


def test_a_repeated_column_name_is_refused(tmp_path: Path):
    (tmp_path / "logs.csv").write_text("obs_0,obs_0,action\n1,2,3\n")
    assert "more than one column 'obs_0'" in refusal(tmp_path / "logs.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz"])
def test_a_table_without_rows_is_refused(kind: str, tmp_path: Path):
    columns = {name: values[:0] for name, values in episodes([2], ["T"]).items()}
    assert "no rows" in refusal(write(tmp_path / f"logs.{kind}", columns)) or kind == "csv"


def test_files_with_different_columns_are_refused(tmp_path: Path):
    write(tmp_path / "a_1.parquet", episodes([2], ["T"]))
    other = episodes([2], ["T"])
    del other["obs_1"]
    write(tmp_path / "a_2.parquet", other)
    assert "a_2.parquet has no column obs_1" in refusal(f"{tmp_path}/a_*.parquet")


# --- Columns ---


def test_a_missing_column_is_refused_with_a_similar_name_and_a_remedy(tmp_path: Path):
    path = write_changed(tmp_path)
    message = refusal(path, "reward=rewards")
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
def test_a_typed_column_must_exist_even_if_its_default_is_optional(setting: str, tmp_path: Path):
    assert "has no column" in refusal(write_changed(tmp_path), setting)


@pytest.mark.parametrize("missing", ["reward", "obs_", "action_"])
def test_rewards_observations_and_actions_are_required(missing: str, tmp_path: Path):
    names = [name for name in episodes([1], ["T"]) if name.startswith(missing)]
    assert "has no column" in refusal(write_changed(tmp_path, **dict.fromkeys(names)))


def test_a_column_with_two_roles_is_refused(tmp_path: Path):
    path = write_changed(tmp_path)
    both = "both dataset.columns.observation and dataset.columns.reward"
    assert both in refusal(path, "observation=[obs_0,reward]")
    assert "dataset.columns.action" in refusal(path, "observation=[obs_0,action_0]")
    assert load_table(path, "observation=[obs_0,step]").observation_names == ("obs_0", "step")


def test_a_pattern_for_one_column_that_matches_two_is_refused(tmp_path: Path):
    assert "matches obs_0, obs_1: name one" in refusal(write_changed(tmp_path), "reward=obs_*")


def test_next_observations_without_a_partner_are_refused(tmp_path: Path):
    path = write_changed(tmp_path, next_obs_0=np.zeros(6))
    assert "has 1 columns, dataset.columns.observation 2" in refusal(path)


def test_a_table_without_episode_boundaries_is_refused(tmp_path: Path):
    path = write_changed(tmp_path, episode=None, step=None, terminated=None, truncated=None)
    assert "the ends of episodes are unknown" in refusal(path)


# --- Order -----


def test_a_missing_or_unordered_step_is_refused(tmp_path: Path):
    path = write_changed(tmp_path, step=[0, 1, 2, 0, 2, 3])
    message = refusal(path)
    assert f"{path} at row 4, column step: step 2 follows step 0" in message
    assert "sort by episode, step" in message
    assert "step 1 follows step 1" in refusal(write_changed(tmp_path, step=[0, 1, 1, 0, 1, 2]))


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_an_episode_that_continues_after_another_is_refused(chunk: int, tmp_path: Path):
    path = write_changed(
        tmp_path, episode=[7, 7, 8, 8, 7, 8], step=None, terminated=None, truncated=None
    )
    message = refusal(path, chunk=chunk)
    assert "episode 7 (and 1 others) continues after another one started" in message


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_an_episode_that_continues_after_its_end_is_refused(flag: str, chunk: int, tmp_path: Path):
    path = write_changed(tmp_path, **{flag: [False, True, False, False, False, True]})
    assert "row 2, column episode: episode 0 continues after a row" in refusal(path, chunk=chunk)


# --- Values ----


@pytest.mark.parametrize("name", ["obs_1", "action_0", "reward", "step", "episode", "terminated"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("chunk", [2, 100])
def test_a_missing_value_is_refused_with_row_and_column(
    name: str, kind: str, chunk: int, tmp_path: Path
):
    values = episodes([3, 3], ["T", "T"])[name].tolist()
    values[4] = None
    path = write_changed(tmp_path, kind, **{name: values})
    message = refusal(path, chunk=chunk)
    assert f"{path} at row 4, column {name}: the value is missing" in message


def test_a_missing_action_is_refused_and_a_quoted_NA_is_an_action(tmp_path: Path):
    columns = write_single_action(tmp_path, ["a", "b", None, "a", "b", "a"], kind="csv")
    assert "row 2, column action: the value is missing" in refusal(columns)
    named = write_single_action(tmp_path, ["a", "NA", "a", "a", "NA", "a"], kind="csv")
    assert load_table(named).action_names == ("NA", "a")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(value: float, tmp_path: Path):
    path = write_changed(tmp_path, obs_0=[0, 0, 0, value, 0, 0])
    assert f"{path} at row 3, column obs_0: the value is" in refusal(path)


def test_numbers_beyond_float32_are_refused(tmp_path: Path):
    assert "too large for float32" in refusal(write_changed(tmp_path, obs_0=[0, 0, 1e39, 0, 0, 0]))


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
def test_values_that_are_not_numbers_are_refused_with_a_remedy(
    name: str, values: Any, hint: str, tmp_path: Path
):
    assert hint in refusal(write_changed(tmp_path, **{name: values}))


def test_flags_steps_and_episodes_of_a_wrong_type_are_refused(tmp_path: Path):
    message = refusal(write_changed(tmp_path, terminated=[0, 0, 1, 0, 0, 2]))
    assert "row 5, column terminated: 2 must be 0 or 1" in message
    times = [datetime.datetime(2026, 5, day) for day in range(1, 7)]
    assert "column step holds timestamp[us], expected int" in refusal(
        write_changed(tmp_path, step=times)
    )
    assert "not all are integers" in refusal(write_changed(tmp_path, step=[0, 1, 1.5, 0, 1, 2]))
    message = refusal(write_changed(tmp_path, episode=[[1]] * 6))
    assert "episodes are identified by integers, text or dates" in message


# --- Actions ---


def write_single_action(tmp_path: Path, values: Any, **columns: Any) -> Path:
    """Write a table with the one action column `action`."""
    return write_changed(
        tmp_path, **{"action_0": None, "action_1": None, "action": values, **columns}
    )


def test_a_constant_action_is_refused(tmp_path: Path):
    message = refusal(write_changed(tmp_path, action_1=[0.5] * 6))
    assert "column action_1 is always 0.5: remove it from dataset.columns.action" in message
    assert "is always push: two actions are the minimum" in refusal(
        write_single_action(tmp_path, ["push"] * 6)
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [("é\n", "'é\\n'"), ("", "''"), (" a", "' a'"), ("x" * 99, "x" * 40 + "…"), (True, "true")],
)
def test_a_value_is_printed_on_one_line(tmp_path: Path, value: Any, shown: str):
    message = refusal(write_single_action(tmp_path, [value] * 6))
    assert f"column action is always {shown}: two actions are the minimum" in message


def test_more_than_a_thousand_discrete_actions_are_refused(tmp_path: Path):
    columns = episodes([1_001], ["T"])
    columns["action"] = np.arange(1_001)
    path = write(tmp_path / "logs.parquet", columns)
    message = refusal(path, "action=[action]")
    assert "more than 1,000 distinct actions" in message
    assert "dataset.columns.discrete=false" in message


def test_action_settings_that_do_not_fit_the_columns_are_refused(tmp_path: Path):
    path = write_changed(tmp_path)
    assert "needs one action column" in refusal(path, "discrete=true")
    assert "needs 2 numbers" in refusal(path, "action_low=[0]", "action_high=[1]")
    bounds = ("action_low=[0]", "action_high=[1]")
    assert "has no effect" in refusal(write_single_action(tmp_path, [0, 1, 0, 1, 0, 1]), *bounds)
    assert "not all are integers" in refusal(
        write_single_action(tmp_path, [0.5] * 6), "discrete=true"
    )
    assert "holds text" in refusal(write_single_action(tmp_path, ["a"] * 6), "discrete=false")


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
def test_incomplete_or_empty_bounds_are_refused(bounds: tuple[str, ...]):
    with pytest.raises(ConfigError, match="action_"):
        columns_of(*bounds)


def test_actions_beyond_the_typed_bounds_are_refused(tmp_path: Path):
    path = write_changed(tmp_path)
    assert "are outside" in refusal(path, "action_low=[0,0]", "action_high=[0.1,1]")


def test_propensities_that_are_not_probabilities_are_refused(tmp_path: Path):
    path = write_single_action(
        tmp_path, [0, 1, 0, 1, 0, 1], propensity=[0.5, 0.5, 1.5, 0.5, 0.0, 0.5]
    )
    assert "propensities are not within (0, 1]" in refusal(path)


def test_data_that_do_not_fit_the_simulator_are_refused(tmp_path: Path):
    path = write_changed(tmp_path)
    message = refusal(path, spaces=Spaces(3, 2, False, (-1, -1), (1, 1)))
    assert "matches 2 columns (obs_0, obs_1), the simulator has 3" in message
    two = "the simulator has 2 discrete actions"
    assert two in refusal(path, spaces=Spaces(2, 2, True, (), ()))
    one = "the simulator has 1 action dimensions"
    assert one in refusal(path, spaces=Spaces(2, 1, False, (-1,), (1,)))
    real = Spaces(2, 2, False, (-1, -1), (1, 1))
    assert "has no effect with a simulator" in refusal(path, "discrete=false", spaces=real)
    assert "are outside" in refusal(path, spaces=Spaces(2, 2, False, (0, 0), (0.1, 1)))
    text = write_single_action(tmp_path, ["a", "b"] * 3)
    assert two in refusal(text, spaces=Spaces(2, 2, True, (), ()))
    beyond = write_single_action(tmp_path, [0, 1, 2] * 2)
    assert "not among 0 … 1" in refusal(beyond, spaces=Spaces(2, 2, True, (), ()))


def test_files_with_different_types_of_actions_or_episodes_are_refused(tmp_path: Path):
    first, second = episodes([2, 2], ["T", "T"]), episodes([2, 2], ["T", "T"])
    first["action"], second["action"] = [0, 1, 0, 1], ["a", "b", "a", "b"]
    second["episode"] += 2
    write(tmp_path / "x_1.parquet", first)
    write(tmp_path / "x_2.parquet", second)
    assert "is string, in other files int64" in refusal(
        f"{tmp_path}/x_*.parquet", "action=[action]"
    )
    second["action"], second["episode"] = [1, 0, 1, 0], ["c", "c", "d", "d"]
    write(tmp_path / "x_2.parquet", second)
    assert "column episode is string, in other files" in refusal(f"{tmp_path}/x_*.parquet")


def test_a_table_of_episodes_that_are_too_short_is_refused(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", episodes([1, 1], ["U", "U"]) | {"action_0": [0, 1.0]})
    assert "holds no transitions" in refusal(path)


def test_a_column_of_structs_is_refused(tmp_path: Path):
    path = tmp_path / "logs.parquet"
    columns = episodes([2], ["T"]) | {"obs_0": pa.array([{"a": 1}, {"a": 2}])}
    pa.parquet.write_table(pa.table(columns), path)
    assert "split it into one column per number" in refusal(path)
