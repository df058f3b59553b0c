"""Guarantee: what a table tells apart stays apart (codes, names, gaps), in every format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.table_case import columns_of, write

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Transitions

KINDS = ["parquet", "csv", "jsonl"]
# Two episodes of four rows; the last rows are terminated.
LOG: dict[str, Any] = {
    "episode": [0] * 4 + [1] * 4,
    "x": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5],
    "action": ["a", "b"] * 4,
    "reward": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    "terminated": [0, 0, 0, 1] * 2,
}


def read(path: Path | str, *overrides: str, chunk: int = 4, **settings: Any) -> Transitions:
    columns = columns_of("observation=[x]", *overrides)
    return load(TableReader(str(path), columns, chunk_size=chunk, **settings))


def write_csv(path: Path, **columns: list[Any]) -> Path:
    """Write LOG with other columns as they are, without quotes."""
    content = LOG | columns
    lines = [",".join(map(str, row)) for row in zip(*content.values(), strict=True)]
    path.write_text("\n".join([",".join(content), *lines]))
    return path


def rewards(data: Transitions) -> list[list[float]]:
    """Return the rewards by episode."""
    return [part.tolist() for part in np.split(data.rewards, np.cumsum(data.lengths)[:-1])]


# --- Names in SQL ---


def test_sql_tells_names_apart_that_differ_by_case(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG | {"Reward": [v + 100 for v in LOG["reward"]]})
    assert read(path, "reward='=Reward * 2'").rewards[0] == 202
    assert read(path, "reward='=reward * 2'").rewards[0] == 2
    for sql in ("=REWARD", "=Reward - reward"):
        with pytest.raises(DataError, match="SQL does not tell the columns reward and Reward"):
            read(path, f"reward='{sql}'")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("=avg(reward)", "it needs several rows: add a column to the table"),
        ("=", "there is nothing after ="),
        ("=true /*", "Parser Error: unterminated /* comment"),
        ("=rewards", "there is no column rewards; did you mean reward?; columns: episode, x"),
    ],
)
def test_errors_of_sql_show_the_names_of_the_table(sql: str, message: str, tmp_path: Path):
    for path in (write(tmp_path / "logs.parquet", LOG), write_csv(tmp_path / "logs.csv")):
        with pytest.raises(DataError) as error:
            read(path, f"reward='{sql}'")
        assert f"{sql} cannot be computed: {message}" in str(error.value)
        assert "offline_cql" not in str(error.value)
        if sql == "=":
            continue  # a filter cannot be empty
        with pytest.raises(DataError, match=r"dataset\.filter cannot be computed"):
            read(path, condition=f"{sql.removeprefix('=')} > 1")


# --- Codes ---

CODES = ["007", "7", "07", "12", "007", "7", "07", "12"]


def test_codes_with_leading_zeros_stay_apart(tmp_path: Path):
    path = write_csv(tmp_path / "logs.csv", code=CODES)
    data = read(path, "observation=[code]", "categories=[code]")
    assert data.observation_names == ("code=007", "code=07", "code=12", "code=7")
    assert data.observations[0].tolist() == [1, 0, 0, 0]
    assert read(path, "observation=[code]").observations[:3, 0].tolist() == [7, 7, 7]
    assert read(path, "action=[code]").action_names == ("007", "07", "12", "7")
    given = "categories=[{column:code,values:['12','7','07','007']}]"
    assert read(path, "observation=[code]", given).observations[0].tolist() == [0, 0, 0, 1]
    episodes = write_csv(tmp_path / "episodes.csv", episode=["01"] * 4 + ["1"] * 4)
    assert read(episodes).lengths.tolist() == [4, 4]


def test_a_code_after_the_first_rows_is_refused(tmp_path: Path):
    steps = 25_000  # types are found by 20,480 rows
    rows = [f"{i // 4},{i % 4},{'007' if i == steps - 1 else 7 + i % 2},a,1" for i in range(steps)]
    path = tmp_path / "logs.csv"
    path.write_text("\n".join(["episode,x,code,action,reward", *rows]))
    with pytest.raises(DataError, match="column code: '007' is not a whole number as in the first"):
        read(path, "observation=[code]", "categories=[code]")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_beyond_float64_are_categories_as_text_only(kind: str, tmp_path: Path):
    ids = [2**53, 2**53 + 1] * 4
    path = write(tmp_path / f"logs.{kind}", LOG | {"id": ids})
    texts = ",".join(f"'{value}'" for value in ids[:2])
    given = f"categories=[{{column:id,values:[{texts}]}}]"
    data = read(path, "observation=[id]", given)
    assert data.observations[:2].tolist() == [[1, 0], [0, 1]]
    if kind == "csv":  # its numbers are text in any case
        assert read(path, "observation=[id]", "categories=[id]").observation_names == (
            *("id=9007199254740992", "id=9007199254740993"),
        )
    else:
        with pytest.raises(DataError, match="column id holds 9,007,199,254,740,993: categories"):
            read(path, "observation=[id]", "categories=[id]")


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_is_a_missing_category(kind: str, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", LOG | {"mode": ["", "a", "b", "a"] * 2})
    settings = ("observation=[mode]", "categories=[mode]")
    data = read(path, *settings, missing="fill")
    assert data.observation_names == ("mode=a", "mode=b", "mode missing")
    assert data.observations[:2].tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(DataError, match="of 8 rows are missing: mode 2; "):
        read(path, *settings)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (["1", "2"] * 4, [""] * 8, ("code=1", "code=2", "code missing")),
        ([""] * 8, ["b", "a"] * 4, ("code=a", "code=b", "code missing")),
        (["1", "2"] * 4, ["x", "2"] * 4, ("code=1", "code=2", "code=x")),
        (["1", "2"] * 4, ["01", "2"] * 4, ("code=01", "code=1", "code=2")),
    ],
)
def test_files_of_a_csv_agree_on_the_type_of_a_code(
    first: list[str], second: list[str], names: tuple[str, ...], tmp_path: Path
):
    write_csv(tmp_path / "part_1.csv", code=first)
    write_csv(tmp_path / "part_2.csv", code=second, episode=[2] * 4 + [3] * 4)
    data = read(tmp_path, "observation=[code]", "categories=[code]", missing="fill")
    assert data.observation_names == names
    assert (data.observations.sum(axis=1) == 1).all()


def test_a_parquet_file_without_a_value_has_the_type_of_the_others(tmp_path: Path):
    write(tmp_path / "part_1.parquet", LOG | {"code": [None] * 8})
    write(tmp_path / "part_2.parquet", LOG | {"code": [5, 6] * 4, "episode": [2] * 4 + [3] * 4})
    data = read(tmp_path, "observation=[code]", "categories=[code]", missing="fill")
    assert data.observation_names == ("code=5", "code=6", "code missing")


# --- Rows that are left out ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("step", [True, False])
def test_a_filter_ends_an_episode_where_it_leaves_out_rows(
    kind: str, chunk: int, step: bool, tmp_path: Path
):
    """Of rows 1 to 4 of an episode without the second one: row 1 has no next observation."""
    log = LOG | {"time": [0, 1, 2, 3] * 2}
    path = write(tmp_path / f"logs.{kind}", log)
    columns = ["step=time"] if step else []
    data = read(path, *columns, condition="reward <> 2", chunk=chunk)
    assert rewards(data) == [[3, 4], [5, 6, 7, 8]]
    assert data.repairs["episodes_split_by_filter"] == 1
    ends = read(path, *columns, condition="reward NOT IN (1, 5)", chunk=chunk)
    assert rewards(ends) == [[2, 3, 4], [6, 7, 8]]
    assert "episodes_split_by_filter" not in ends.repairs
    whole = read(path, *columns, condition="episode = 1", chunk=chunk)
    assert rewards(whole) == [[5, 6, 7, 8]]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_filter_of_rows_out_of_order_leaves_out_those_of_its_episode(chunk: int, tmp_path: Path):
    """The two episodes take turns; leaving out one of them splits none."""
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    log = {name: [values[row] for row in order] for name, values in LOG.items()}
    path = write(tmp_path / "logs.parquet", log | {"time": [0, 0, 1, 1, 2, 2, 3, 3]})
    assert rewards(read(path, condition="episode = 0", chunk=chunk)) == [[1, 2, 3, 4]]
    data = read(path, "step=time", condition="reward <> 2", chunk=chunk)
    assert rewards(data) == [[3, 4], [5, 6, 7, 8]]
    assert data.repairs["episodes_split_by_filter"] == 1


@pytest.mark.parametrize("episode", ["episode=episode", "episode=null"])
def test_a_filter_splits_an_episode_over_two_files(episode: str, tmp_path: Path):
    parts = [{name: values[part] for name, values in LOG.items()} for part in
             (slice(0, 2), slice(2, 8))]  # fmt: skip
    for number, part in enumerate(parts):
        write(tmp_path / f"part_{number}.parquet", part)
    joined = [[1, 2, 3, 4]] if "null" not in episode else [[1], [3, 4]]  # files end episodes
    assert rewards(read(tmp_path, episode, condition="episode = 0")) == joined
    assert rewards(read(tmp_path, episode, condition="reward NOT IN (2, 5)"))[0] == [3, 4]


def test_a_filter_that_keeps_no_row_is_named(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG | {"dose": LOG["x"]})
    for action in ("action", "dose"):
        with pytest.raises(DataError, match=r"dataset\.filter='reward > 9' keeps no row"):
            read(path, f"action=[{action}]", condition="reward > 9")


def test_gaps_that_split_most_episodes_are_the_named_cause(tmp_path: Path):
    size = 40
    log = {
        "episode": [0] * size,
        "x": [float(i) if i % 2 else None for i in range(size)],
        "action": ["a", "a", "b", "b"] * (size // 4),
        "reward": [1.0] * size,
    }
    path = write(tmp_path / "logs.parquet", log)
    with pytest.raises(DataError, match=r"dataset\.missing=drop splits episodes where it leaves"):
        read(path, missing="drop")
    with pytest.raises(DataError, match=r"dataset\.filter splits episodes where it leaves out"):
        read(path, condition="x IS NOT NULL")


# --- Next observations with missing values ---

NEXT = LOG | {
    "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    "nx": [1.0, None, 3.0, None, 5.0, 6.0, 7.0, None],
}


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        # Terminated rows need no next observation: their own stands there.
        ("fill", [[1], [3], [3], [5], [6], [7], [7]]),
        ("forward", [[1], [1], [3], [3], [5], [6], [7], [7]]),
        ("drop", [[1], [3], [3], [5], [6], [7], [7]]),
    ],
)
def test_next_observations_with_gaps(
    missing: str, expected: list[list[float]], chunk: int, tmp_path: Path
):
    path = write(tmp_path / "logs.parquet", NEXT)
    data = read(path, "next_observation=[nx]", missing=missing, chunk=chunk)
    assert data.next_observations.tolist() == expected
    dropped = missing != "forward"
    assert data.repairs.get("dropped_incomplete_rows", 0) == dropped
    assert rewards(data)[0] == ([1] if dropped else [1, 2, 3, 4])  # n-step sums end there


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_next_observations_are_filled_as_observations_are(chunk: int, tmp_path: Path):
    """The mean of x is 3.5; the row where both next values are missing is dropped."""
    log = NEXT | {"y": [0.0] * 8, "ny": [0.0, 1.0, None, None] * 2}
    path = write(tmp_path / "logs.parquet", log)
    settings = ("observation=[x,y]", "next_observation=[nx,ny]")
    data = read(path, *settings, missing="fill", chunk=chunk)
    assert data.observation_names == ("x", "x missing", "y", "y missing")
    assert data.next_observations.tolist() == [
        *([1, 0, 0, 0], [3.5, 1, 1, 0], [3, 0, 0, 1], [3, 0, 0, 0]),
        *([5, 0, 0, 0], [6, 0, 1, 0], [7, 0, 0, 1], [7, 0, 0, 0]),
    ]


def test_a_missing_next_observation_is_refused_with_counts(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", NEXT)
    with pytest.raises(DataError) as error:
        read(path, "next_observation=[nx]")
    text = str(error.value)
    assert "1 rows lack a value of the next observation inside an episode; of 8 rows" in text
    assert "are missing: nx 3; leave a column out, or set dataset.missing=drop" in text


# --- Numbers ---


@pytest.mark.parametrize("missing", ["refuse", "fill", "forward", "drop"])
def test_a_number_that_is_not_finite_is_named_with_its_row(missing: str, tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG | {"y": [1.0, 2.0, 0.0, 1.0] * 2})
    with pytest.raises(DataError, match=r"at row 2, column ln\(y\) is -inf: change the expression"):
        read(path, "observation=['=ln(y)']", missing=missing)
    infinite = write(tmp_path / "infinite.parquet", LOG | {"y": [1.0, 2.0, np.inf, 1.0] * 2})
    with pytest.raises(DataError, match="at row 2, column y: the value is infinite"):
        read(infinite, "observation=[y]", missing=missing)


def test_a_column_without_any_value_is_not_filled(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG | {"y": [np.nan] * 8})
    with pytest.raises(DataError, match="column y has no values: leave it out"):
        read(path, "observation=[x,y]", missing="fill")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_times_of_any_year_are_seconds(kind: str, tmp_path: Path):
    """9999-12-31 00:00 UTC is 253,402,214,400 s after 1970."""
    times = np.array(["9999-12-31", "0200-01-01", "1970-01-02", "2026-05-01"] * 2, "datetime64[us]")
    path = write(tmp_path / f"logs.{kind}", LOG | {"time": times})
    data = read(path, "observation=['=epoch(time) / 86400']")
    days = [253_402_214_400 / 86_400, -646_479, 1, 20_574]
    np.testing.assert_allclose(data.observations[:4, 0], days, rtol=1e-6)
