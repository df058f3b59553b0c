"""Guarantee: logged rows are read completely and unshifted in every format and chunk size."""

import datetime
import decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.table_case import FORMATS, columns_of, episodes, load_table, write

from offline_cql.errors import DataError
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Spaces, Transitions

LENGTHS = [*range(1, 12), 1, 1, 5]
ENDS = ["T", "U", "", "T", "U"] * 2 + ["", "T", "U", "U"]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Transitions:
    """Return fourteen episodes of 1 to 11 steps, read from one Parquet file in one chunk."""
    folder = tmp_path_factory.mktemp("marked")
    return load_table(write(folder / "logs.parquet", episodes(LENGTHS, ENDS)))


def equal(one: Transitions, other: Transitions) -> bool:
    return one.sha256 == other.sha256 and one.repairs == other.repairs


def test_every_row_that_has_a_next_observation_is_a_transition(marked: Transitions):
    lengths = [n - (end != "T") for n, end in zip(LENGTHS, ENDS, strict=True)]
    assert marked.lengths.tolist() == [length for length in lengths if length]


def test_nothing_is_shifted_and_nothing_crosses_an_episode(marked: Transitions):
    number, step = marked.observations.T
    np.testing.assert_array_equal(marked.rewards, 100 * number + step)
    np.testing.assert_array_equal(marked.next_observations[:, 0], number)
    next_step = step + 1 - marked.terminated  # a terminal row has no next observation: its own
    np.testing.assert_array_equal(marked.next_observations[:, 1], next_step)
    np.testing.assert_allclose(marked.actions[:, 0], step / 5 - 1, atol=1e-6)  # 0 … 1 as -1 … 1
    np.testing.assert_array_equal(np.diff(number) != 0, np.diff(marked.episodes) != 0)


def test_repairs_are_counted(marked: Transitions):
    unterminated = [(length, end) for length, end in zip(LENGTHS, ENDS, strict=True) if end != "T"]
    assert marked.repairs == {
        "dropped_episodes_of_one_step": sum(length == 1 for length, _ in unterminated),
        "dropped_last_steps": sum(length > 1 for length, _ in unterminated),
        "episodes_without_an_end": ENDS.count(""),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_transitions(kind: str, marked: Transitions, tmp_path: Path):
    assert equal(load_table(write(tmp_path / f"logs.{kind}", episodes(LENGTHS, ENDS))), marked)


def next_columns(columns: dict[str, Any]) -> dict[str, Any]:
    return {f"next_obs_{i}": columns[f"obs_{i}"] + 0.5 for i in range(2)}


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("next_column", [False, True])
def test_the_chunk_size_does_not_matter(chunk: int, next_column: bool, tmp_path: Path):
    columns = episodes(LENGTHS, ENDS)
    if next_column:
        columns |= next_columns(columns)
    whole = load_table(write(tmp_path / "whole.parquet", columns))
    assert equal(load_table(write(tmp_path / "pieces.parquet", columns), chunk=chunk), whole)


@pytest.mark.parametrize(
    ("missing", "lengths", "repairs"),
    [([], [2, 3], {}), ([1, 4], [2, 2], {"dropped_last_steps": 1})],
)
def test_a_column_of_next_observations_keeps_the_last_steps(
    missing: list[int], lengths: list[int], repairs: dict[str, int], tmp_path: Path
):
    """A terminated row does not need its next observation; a truncated row without is dropped."""
    columns = episodes([2, 3], ["T", "U"])
    columns |= next_columns(columns)
    columns["next_obs_1"][missing] = np.nan
    data = load_table(write(tmp_path / "logs.parquet", columns))
    present = ~data.terminated if missing else slice(None)
    np.testing.assert_array_equal((data.next_observations - data.observations)[present], 0.5)
    assert data.lengths.tolist() == lengths
    assert data.truncated.tolist() == [False] * (sum(lengths) - 1) + [True]
    assert data.repairs == repairs


def without(columns: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the other columns."""
    return {name: values for name, values in columns.items() if name not in names}


def test_a_flag_ends_an_episode_whose_steps_continue(tmp_path: Path):
    columns = without(episodes([3, 2], ["T", "T"]), "episode")
    columns["step"] = np.array([0, 1, 2, 7, 8])
    assert load_table(write(tmp_path / "logs.parquet", columns)).lengths.tolist() == [3, 2]


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "b", "a", "a", "a"],
        [3.0, 3.0, 1.0, 1.0, 1.0],
        [datetime.date(2026, 5, day) for day in (1, 1, 2, 2, 2)],
        pa.array(["x", "x", "y", "y", "y"]).dictionary_encode(),
    ],
)
def test_episodes_are_identified_by_text_numbers_dates_or_categories(ids: Any, tmp_path: Path):
    columns = episodes([2, 3], ["T", "T"]) | {"episode": ids}
    assert load_table(write(tmp_path / "logs.parquet", columns), chunk=2).lengths.tolist() == [2, 3]


def test_many_files_are_one_table_in_natural_order(tmp_path: Path):
    """Episode 4 continues in the third file; part_10 comes after part_2."""
    columns = episodes(LENGTHS, ENDS)
    whole = load_table(write(tmp_path / "whole.parquet", columns))
    size = len(columns["reward"])
    boundaries = [0, 7, 14, 15, *range(20, size, 7), size]
    for number, (start, end) in enumerate(pairwise(boundaries)):
        part = {name: values[start:end] for name, values in columns.items()}
        write(tmp_path / f"part_{number}.{FORMATS[number % 4]}", part)
    data = load_table(f"{tmp_path}/part_*")
    assert len(boundaries) > 11
    assert data.sha256 == whole.sha256
    assert data.repairs["episodes_over_two_files"] > 0


def test_without_an_episode_column_the_end_of_a_file_ends_an_episode(tmp_path: Path):
    columns = without(episodes([4], ["T"]), "episode", "step")
    for number in range(2):
        part = {name: values[2 * number : 2 * number + 2] for name, values in columns.items()}
        write(tmp_path / f"{number}.csv", part)
    assert load_table(f"{tmp_path}/*.csv").lengths.tolist() == [1, 2]


def test_observations_keep_the_order_of_the_list_and_patterns_sort_naturally(tmp_path: Path):
    columns = episodes([3], ["T"])
    columns |= {f"x_{i}": np.full(3, float(i)) for i in (10, 2, 1)}
    path = write(tmp_path / "logs.parquet", columns)
    data = load_table(path, "observation=[obs_1,x_*,obs_0]")
    assert data.observation_names == ("obs_1", "x_1", "x_2", "x_10", "obs_0")
    assert data.observations[2].tolist() == [2, 1, 2, 10, 0]


def test_a_two_dimensional_array_is_read_as_columns(tmp_path: Path):
    columns = episodes(LENGTHS, ENDS)
    two = np.stack([columns.pop("obs_0"), columns.pop("obs_1")], axis=1)
    reward = columns.pop("reward")[:, None]
    ignored = {"version": np.array(3), "images": np.zeros((2, 2, 2)), "notes": np.array([{}, None])}
    np.savez(tmp_path / "logs.npz", **columns, observations=two, reward=reward, **ignored)
    data = load_table(tmp_path / "logs.npz", "observation=[observations_*]")
    assert data.observation_names == ("observations_0", "observations_1")
    assert data.sha256 == load_table(write(tmp_path / "l.csv", episodes(LENGTHS, ENDS))).sha256


def test_numbers_of_every_type_are_read_exactly(tmp_path: Path):
    kinds = [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32()]
    columns = episodes([4], ["T"])
    columns |= {f"n_{i}": pa.array([0, 1, 2, 3]).cast(kind) for i, kind in enumerate(kinds)}
    columns["n_6"] = pa.array([decimal.Decimal(i) for i in range(4)])
    columns["n_7"] = pa.array([0, 1, 2, 3]).dictionary_encode()
    columns["b"] = [False, True, True, False]
    path = write(tmp_path / "logs.parquet", columns)
    data = load_table(path, "observation=[n_*,b]")
    expected = [[i] * 8 + [float(0 < i < 3)] for i in range(4)]
    assert data.observations.tolist() == expected


# --- Actions ---


def one_action(values: Any) -> dict[str, Any]:
    columns = without(episodes([4], ["T"]), "action_0", "action_1")
    return columns | {"action": values}


@pytest.mark.parametrize(
    ("values", "settings", "indices", "names"),
    [
        ([10, 2, -1, 2], [], [2, 1, 0, 1], ("-1", "2", "10")),
        (["full", "off", "half", "off"], [], [0, 2, 1, 2], ("full", "half", "off")),
        ([True, False, True, True], [], [1, 0, 1, 1], ("false", "true")),
        ([1.5, 0.0, 1.5, 1.5], ["discrete=false"], [1, -1, 1, 1], ("action",)),
        ([1, 2, 3, 2], ["discrete=false"], [-1, 0, 1, 0], ("action",)),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_single_column_of_text_or_whole_numbers_is_a_discrete_action(
    values: Any, settings: list[str], indices: Any, names: Any, kind: str, tmp_path: Path
):
    data = load_table(write(tmp_path / f"logs.{kind}", one_action(values)), *settings, chunk=2)
    assert data.spaces.discrete == (not settings)
    assert data.spaces.action_dim == len(names)
    assert data.actions.ravel().tolist() == indices
    assert data.action_names == names


def test_categories_that_do_not_occur_are_not_actions(tmp_path: Path):
    values = pa.DictionaryArray.from_arrays([1, 0, 1, 1], ["b", "a", "never"])
    data = load_table(write(tmp_path / "logs.parquet", one_action(values)))
    assert data.action_names == ("a", "b")
    assert data.actions.tolist() == [0, 1, 0, 0]


def test_whole_floats_are_discrete_with_discrete_true(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", one_action([1.0, 0.0, 1.0, 1.0]))
    assert load_table(path, "discrete=true").actions.tolist() == [1, 0, 1, 1]


def test_typed_bounds_replace_those_of_the_data(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", episodes([5], ["T"]))
    data = load_table(path, "action_low=[-1,-2]", "action_high=[1,2]")
    assert (data.spaces.action_low, data.spaces.action_high) == ((-1, -2), (1, 2))
    assert data.actions[4].tolist() == pytest.approx([0.4, 0.02])


def test_propensities_stay_with_their_steps(tmp_path: Path):
    columns = one_action([0, 1, 1, 0]) | {"propensity": [0.5, 0.25, 1.0, 0.125]}
    columns = without(columns, "terminated")
    data = load_table(write(tmp_path / "logs.parquet", columns))
    assert data.propensities is not None
    assert data.propensities.tolist() == [0.5, 0.25, 1.0]


def test_a_simulator_determines_the_kind_of_actions(tmp_path: Path):
    path = write(tmp_path / "logs.csv", one_action([0, 1, 1, 0]))
    continuous = Spaces(2, 1, False, (-2.0,), (2.0,))
    assert load_table(path, spaces=continuous).actions[:, 0].tolist() == [0, 0.5, 0.5, 0]
    discrete = load_table(path, spaces=Spaces(2, 4, True, (), ()))
    assert discrete.spaces.action_dim == 4
    assert discrete.actions.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("column", "loads"), [("reward", True), ("episode", False)])
def test_a_csv_column_may_turn_from_whole_numbers_to_fractions(
    column: str, loads: bool, tmp_path: Path
):
    """After 25,000 rows: DuckDB infers types from fewer, and rounds 2.5 in a column of integers."""
    n = 25_000
    columns = {"obs_0": np.ones(n), "action": np.arange(n) % 2, "reward": np.ones(n, int)}
    path = write(tmp_path / "logs.csv", columns | {"episode": np.zeros(n, int)})
    last = {"obs_0": "2.5", "action": "1", "reward": "1", "episode": "0"} | {column: "2.5"}
    path.write_text(path.read_text() + ",".join(last.values()) + "\n" + ",".join(last.values()))
    if loads:
        data = load_table(path)
        assert data.rewards.tolist() == [1] * n + [2.5]
        assert data.observations[n] == 2.5
    else:
        with pytest.raises(
            DataError, match=r"column episode: '2\.5' is not a whole number as in the"
        ):
            load_table(path)


# --- Identity --


def test_the_fingerprint_depends_on_settings_simulator_and_file(tmp_path: Path):
    path = write(tmp_path / "logs.csv", episodes([3], ["T"]))

    def fingerprint(*overrides: str, spaces: Spaces | None = None) -> Any:
        return TableReader(str(path), columns_of(*overrides), spaces=spaces).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint("observation=[obs_1]") != first
    assert fingerprint(spaces=Spaces(2, 2, False, (0, 0), (1, 1))) != first
    write(tmp_path / "logs.csv", episodes([4], ["T"]))
    assert fingerprint() != first
