"""Guarantee: an invalid table is refused in one line with position and remedy."""

import datetime
import gzip
from pathlib import Path
from typing import Any

import numpy as np
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


def single_action(values: Any, **columns: Any) -> dict[str, Any]:
    """Return the change to the one action column `action`."""
    return {"action_0": None, "action_1": None, "action": values, **columns}


# --- Files -----


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(tmp_path: Path):
    assert "does not exist" in refusal(tmp_path / "none.parquet")
    assert "does not exist" in refusal(f"{tmp_path}/*.csv")
    assert f"{tmp_path} contains no file to read: " in refusal(tmp_path)
    (tmp_path / "logs.xlsx").write_text("{}")
    assert "supported are .parquet, .csv, .csv.gz" in refusal(tmp_path / "logs.xlsx")


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "json", "npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(kind: str, share: float, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", episodes([300], ["T"]))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    if kind == "csv" and share > 0.01:  # whole lines of a CSV are valid: cut within a line
        path.write_bytes(path.read_bytes().rpartition(b",")[0])
    assert str(path) in refusal(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "json", "npz"])
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
    message = refusal(write_changed(tmp_path, "npz", reward=np.zeros(5)))
    assert "the arrays differ in length" in message
    assert "reward 5" in message


def test_a_repeated_column_name_is_refused(tmp_path: Path):
    (tmp_path / "logs.csv").write_text("obs_0,obs_0,action\n1,2,3\n")
    assert "more than one column 'obs_0'" in refusal(tmp_path / "logs.csv")


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz"])
def test_a_table_without_rows_is_refused(kind: str, tmp_path: Path):
    columns = {name: values[:0] for name, values in episodes([2], ["T"]).items()}
    assert "no rows" in refusal(write(tmp_path / f"logs.{kind}", columns)) or kind == "csv"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_1": None}, "logs_2.parquet has no column obs_1"),
        ({"action_0": ["a", "b", "a"]}, "is string, in other files int64"),
        ({"episode": ["c", "c", "d"]}, "column episode is string, in other files"),
    ],
)
def test_files_of_different_columns_or_types_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
):
    first = episodes([3], ["T"]) | {"action_0": [0, 1, 0]}
    second = {**first, "episode": first["episode"] + 1, **changes}
    write(tmp_path / "logs_1.parquet", first)
    columns = {name: values for name, values in second.items() if values is not None}
    write(tmp_path / "logs_2.parquet", columns)
    assert message in refusal(f"{tmp_path}/logs_*.parquet", "action=[action_0]")


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
        *("episode=episode_id", "step=tick", "propensity=propensity", "terminated=done"),
        *("next_observation=[next_obs_*]", "observation=[obs_0,obs_7]"),
        "action=[action_*,throttle]",
    ],
)
def test_a_typed_column_must_exist_even_if_its_default_is_optional(setting: str, tmp_path: Path):
    assert "has no column" in refusal(write_changed(tmp_path), setting)


@pytest.mark.parametrize("missing", ["reward", "obs_", "action_"])
def test_rewards_observations_and_actions_are_required(missing: str, tmp_path: Path):
    names = [name for name in episodes([1], ["T"]) if name.startswith(missing)]
    assert "has no column" in refusal(write_changed(tmp_path, **dict.fromkeys(names)))


NO_ENDS = {"step": None, "terminated": None, "truncated": None}


@pytest.mark.parametrize(
    ("changes", "setting", "message"),
    [
        ({}, "observation=[obs_0,reward]", "both dataset.columns.observation and dataset.columns."),
        ({}, "observation=[obs_0,action_0]", "dataset.columns.action"),
        ({}, "reward=obs_*", "matches obs_0, obs_1: name one"),
        ({"next_obs_0": np.zeros(6)}, "", "has 1 columns, dataset.columns.observation 2"),
        ({"episode": None, **NO_ENDS}, "", "the ends of episodes are unknown"),
    ],
)
def test_a_mapping_that_is_ambiguous_or_incomplete_is_refused(
    changes: dict[str, Any], setting: str, message: str, tmp_path: Path
):
    assert message in refusal(write_changed(tmp_path, **changes), *filter(None, [setting]))


def test_the_step_may_be_observed(tmp_path: Path):
    data = load_table(write_changed(tmp_path), "observation=[obs_0,step]")
    assert data.observation_names == ("obs_0", "step")


# --- Order -----


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": [0, 1, 2, 0, 2, 3]}, "at row 4, column step: step 2 follows step 0"),
        ({"step": [0, 1, 1, 0, 1, 2]}, "step 1 follows step 1 in one episode, expected one more"),
        (
            {"episode": [7, 7, 8, 8, 7, 8], **NO_ENDS},
            "column episode: 2 times an episode continues after another one started",
        ),
        *(
            (
                {flag: [False, True, False, False, False, True]},
                "row 2, column episode: episode 0 continues after a row",
            )
            for flag in ("terminated", "truncated")
        ),
    ],
)
def test_rows_in_another_order_are_refused(
    changes: dict[str, Any], message: str, chunk: int, tmp_path: Path
):
    text = refusal(write_changed(tmp_path, **changes), chunk=chunk)
    assert message in text
    assert "sort by episode, step" in text


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
    path = write_changed(tmp_path, "csv", **single_action(["a", "b", None, "a", "b", "a"]))
    assert "row 2, column action: the value is missing" in refusal(path)
    write_changed(tmp_path, "csv", **single_action(["a", "NA", "a", "a", "NA", "a"]))
    assert load_table(path).action_names == ("NA", "a")


TIMES = [datetime.datetime(2026, 5, day) for day in range(1, 7)]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (["warm"] * 6, "holds text: encode it as numbers"),
        (TIMES, "holds times (timestamp[us]): convert it to numbers"),
        ([[[1.0, 2.0]]] * 6, "split it into one column per number"),
        ([b"x"] * 6, "holds binary, expected numbers"),
        *(([0, 0, 0, value, 0, 0], "row 3, column") for value in (np.nan, np.inf, -np.inf)),
    ],
)
@pytest.mark.parametrize("name", ["reward", "action_0"])
def test_values_that_are_not_numbers_are_refused_with_a_remedy(
    name: str, values: Any, hint: str, tmp_path: Path
):
    assert hint in refusal(write_changed(tmp_path, **{name: values}))


def test_all_observed_columns_of_text_and_times_are_named_with_the_remedy(tmp_path: Path):
    path = write_changed(
        tmp_path, obs_0=["1", "2", "off", "4", "5", "6"], obs_1=TIMES, obs_2=["a"] * 6
    )
    message = refusal(path)
    assert "text in obs_0 ('off'), obs_2 ('a'): correct what should be numbers" in message
    assert "'dataset.columns.categories=[obs_0,obs_2]'" in message
    assert "times in obs_1: observe a number of them, as the hour by '=epoch(obs_1) %" in message
    columns = ["observation=[obs_0,'=epoch(obs_1) % 86400']", "categories=[obs_0]"]
    assert load_table(path, *columns).observation_names[-2:] == (
        "obs_0=off",
        "epoch(obs_1) % 86400",
    )


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([[[1.0, 2.0]]] * 6, "split it into one column per number"),
        ([b"x"] * 6, "holds binary, expected numbers"),
        *(([0, 0, 0, value, 0, 0], "row 3, column") for value in (np.nan, np.inf, -np.inf)),
    ],
)
def test_observed_values_that_are_not_numbers_are_refused(values: Any, hint: str, tmp_path: Path):
    assert hint in refusal(write_changed(tmp_path, obs_0=values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminated": [0, 0, 1, 0, 0, 2]}, "row 5, column terminated: 2 must be 0 or 1"),
        ({"step": [b"x"] * 6}, "column step holds binary, expected integers or times"),
        ({"step": [0, 1, 1.5, 0, 1, 2]}, "not all are integers"),
        ({"episode": [[[1]]] * 6}, "episodes are identified by integers, text or dates"),
        ({"obs_0": [0, 0, 1e39, 0, 0, 0]}, "too large for float32"),
        (
            single_action([0, 1] * 3, propensity=[0.5, 0.5, 1.5, 0.5, 0.0, 0.5]),
            "propensities are not within (0, 1]",
        ),
    ],
)
def test_values_outside_the_range_of_their_role_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
):
    assert message in refusal(write_changed(tmp_path, **changes))


def test_a_table_of_episodes_that_are_too_short_is_refused(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", episodes([1, 1], ["U", "U"]) | {"action_0": [0, 0.5]})
    assert "2 of 2 rows (100%) would be dropped: each is truncated" in refusal(path)


# --- Actions ---


def test_a_constant_action_is_refused(tmp_path: Path):
    message = refusal(write_changed(tmp_path, action_1=[0.5] * 6))
    assert "column action_1 is always 0.5: remove it from dataset.columns.action" in message


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *(("push", "push"), ("é\n", "'é\\n'"), ("", "''"), (" a", "' a'"), (True, "true")),
        ("x" * 99, "x" * 40 + "…"),
    ],
)
def test_a_constant_discrete_action_is_refused_with_its_value_on_one_line(
    tmp_path: Path, value: Any, shown: str
):
    message = refusal(write_changed(tmp_path, **single_action([value] * 6)))
    assert f"column action is always {shown}: two actions are the minimum" in message


def test_more_than_a_thousand_discrete_actions_are_refused(tmp_path: Path):
    columns = episodes([1_001], ["T"]) | {"action": np.arange(1_001)}
    message = refusal(write(tmp_path / "logs.parquet", columns), "action=[action]")
    assert "more than 1,000 distinct actions" in message
    assert "dataset.columns.discrete=false" in message


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, ["discrete=true"], "not all are integers"),
        ({}, ["action_low=[0]", "action_high=[1]"], "needs 2 numbers"),
        (single_action([0, 1] * 3), ["action_low=[0]", "action_high=[1]"], "has no effect"),
        (single_action([0.5] * 6), ["discrete=true"], "not all are integers"),
        (single_action(["a"] * 6), ["discrete=false"], "holds text"),
        ({}, ["action_low=[0,0]", "action_high=[0.1,1]"], "are outside"),
    ],
)
def test_action_settings_that_do_not_fit_the_columns_are_refused(
    changes: dict[str, Any], settings: list[str], message: str, tmp_path: Path
):
    assert message in refusal(write_changed(tmp_path, **changes), *settings)


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


TWO_ACTIONS = Spaces(2, 2, True, (), ())


@pytest.mark.parametrize(
    ("changes", "simulator", "message"),
    [
        ({}, Spaces(3, 2, False, (-1, -1), (1, 1)), "matches 2 columns (obs_0, obs_1), the simula"),
        ({}, TWO_ACTIONS, "the simulator has 2 discrete actions"),
        ({}, Spaces(2, 1, False, (-1,), (1,)), "the simulator has 1 action dimensions"),
        ({}, Spaces(2, 2, False, (0, 0), (0.1, 1)), "are outside"),
        (single_action(["a", "b"] * 3), TWO_ACTIONS, "the simulator has 2 discrete actions"),
        (single_action([0, 1, 2] * 2), TWO_ACTIONS, "not among 0 … 1"),
    ],
)
def test_data_that_do_not_fit_the_simulator_are_refused(
    changes: dict[str, Any], simulator: Spaces, message: str, tmp_path: Path
):
    path = write_changed(tmp_path, **changes)
    assert message in refusal(path, spaces=simulator)
    assert "no effect with a simulator" in refusal(path, "discrete=false", spaces=TWO_ACTIONS)


def test_a_damaged_compressed_file_is_refused(tmp_path: Path):
    path = write(tmp_path / "logs.jsonl", episodes([100], ["T"]))
    content = bytearray(gzip.compress(path.read_bytes()))
    content[40:200] = bytes(160)
    damaged = tmp_path / "logs.jsonl.gz"
    damaged.write_bytes(content)
    with pytest.raises(DataError, match=r"logs\.jsonl\.gz cannot be read \(.*copy or download"):
        load_table(damaged)
