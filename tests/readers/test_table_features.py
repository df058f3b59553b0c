"""Guarantee: categories, fills, expressions and filters of a table, in every format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.config import settings
from support.table_case import columns_of, write

from offline_cql.errors import ConfigError, DataError
from offline_cql.readers import load
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Spaces, Transitions

# Two episodes of three rows; the last rows are terminated.
LOG: dict[str, Any] = {
    "episode": [0, 0, 0, 1, 1, 1],
    "age": [40.0, None, 60.0, 50.0, 50.0, 50.0],
    "mode": ["off", "auto", None, "auto", "off", "off"],
    "ward": [3, 3, 5, 5, 3, 3],
    "dose": [0.5, 1.0, 2.0, 4.0, 1.0, 1.0],
    "action": ["a", "b", "a", "b", "a", "b"],
    "revenue": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "cost": [0.5, 0.5, 0.5, 1.0, 1.0, 1.0],
    "terminated": [0, 0, 1, 0, 0, 1],
}
KINDS = ["parquet", "csv", "jsonl"]


def read(
    path: Path, *overrides: str, missing: str = "fill", condition: str | None = None, chunk: int = 4
) -> Transitions:
    columns = columns_of("reward=revenue", *overrides)
    return load(
        TableReader(str(path), columns, missing=missing, condition=condition, chunk_size=chunk)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_missing_numbers_and_categories_are_filled_and_flagged(
    kind: str, chunk: int, tmp_path: Path
):
    """The mean age of the five rows that have one is 50."""
    path = write(tmp_path / f"logs.{kind}", LOG)
    data = read(path, "observation=[age,mode,ward]", "categories=[mode,ward]", chunk=chunk)
    assert data.observation_names == (
        *("age", "age missing", "mode=auto", "mode=off", "mode missing", "ward=3", "ward=5"),
    )
    assert data.observations.tolist() == [
        [40, 0, 0, 1, 0, 1, 0],
        [50, 1, 1, 0, 0, 1, 0],
        [60, 0, 0, 0, 1, 0, 1],
        [50, 0, 1, 0, 0, 0, 1],
        [50, 0, 0, 1, 0, 1, 0],
        [50, 0, 0, 1, 0, 1, 0],
    ]
    assert data.next_observations[0].tolist() == data.observations[1].tolist()
    assert data.repairs["flagged_observations"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_categories_can_be_given(kind: str, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", LOG)
    given = "categories=[{column:mode,values:[manual,off,auto]},{column:ward,values:6}]"
    data = read(path, "observation=[mode,ward]", given)
    assert data.observations[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    with pytest.raises(
        DataError, match=r"row 1, column mode: auto is not among the values in dataset"
    ):
        read(path, "observation=[mode]", "categories=[{column:mode,values:[off]}]")
    with pytest.raises(
        DataError, match=r"categories: mode is not in dataset\.columns\.observation"
    ):
        read(path, "observation=[age]", "categories=[mode]")


def test_what_cannot_be_a_category_is_refused(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG)
    with pytest.raises(DataError, match=r"column dose holds (0\.5|inf): categories are"):
        read(path, "observation=[dose]", "categories=[dose]")
    infinite = write(tmp_path / "infinite.parquet", LOG | {"dose": [float("inf"), 1.0] * 3})
    with pytest.raises(DataError, match=r"column dose holds (0\.5|inf): categories are"):
        read(infinite, "observation=[dose]", "categories=[dose]")
    with pytest.raises(DataError, match=r"has no column mod \(dataset\.columns\.categories\)"):
        read(path, "observation=[dose]", "categories=[mod]")


@pytest.mark.parametrize(
    "entry", ["3.5", "{column:mode}", "{column:mode,values:0}", "{column:mode,values:[A,1]}"]
)
def test_other_values_of_categories_are_refused(entry: str):
    with pytest.raises(ConfigError, match=r"categories: .*(must be a name|needs)|must be"):
        settings(
            *("env=logged", "dataset=table", "dataset.path=x"),
            f"dataset.columns.categories=[{entry}]",
        )


def test_next_observations_of_another_type_are_refused(tmp_path: Path):
    log = LOG | {"next_ward": [b"x"] * 6}
    path = write(tmp_path / "logs.parquet", log)
    columns = ("observation=[ward]", "next_observation=[next_ward]", "categories=[ward]")
    with pytest.raises(DataError, match="column next_ward holds binary, the values in"):
        read(path, *columns)


@pytest.mark.parametrize("kind", KINDS)
def test_forward_keeps_the_last_category(kind: str, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", LOG)
    data = read(path, "observation=[age,mode]", "categories=[mode]", missing="forward")
    assert data.observations[:3].tolist() == [[40, 0, 1], [40, 1, 0], [60, 1, 0]]


def test_a_missing_category_is_refused_with_its_count(tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG)
    with pytest.raises(DataError, match=r"column mode: the value is missing.*: mode 1; leave"):
        read(path, "observation=[mode]", "categories=[mode]", missing="refuse")


@pytest.mark.parametrize("kind", KINDS)
def test_expressions_of_every_part(kind: str, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", LOG)
    data = read(
        path,
        'observation=["=dose * 2 + ward"]',
        "reward='=revenue - 2 * cost'",
        "episode='=episode + 10'",
        "action=[\"=CASE WHEN dose >= 1 THEN 'high' ELSE 'low' END\"]",
    )
    assert data.observation_names == ("dose * 2 + ward",)
    assert data.observations[:, 0].tolist() == [4, 5, 9, 13, 5, 5]
    assert data.rewards.tolist() == [0, 1, 2, 2, 3, 4]
    assert data.action_names == ("high", "low")
    assert data.actions.tolist() == [1, 0, 0, 0, 0, 0]
    assert data.ends.tolist() == [3, 6]


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_keeps_rows_and_their_positions(kind: str, tmp_path: Path):
    path = write(tmp_path / f"logs.{kind}", LOG)
    data = read(path, "observation=[dose]", condition="episode = 1")
    assert data.observations[:, 0].tolist() == [4, 1, 1]
    with pytest.raises(DataError, match="at row 1, column age: the value is missing"):
        read(path, "observation=[age]", condition="dose > 0.5", missing="refuse")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("reward='=revenu'", "there is no column revenu; did you mean revenue?"),
        ("reward='=1; DROP TABLE x'", "cannot be computed"),
        ("reward='=mode + 1'", "cannot be computed: Binder Error: No function matches"),
        ("reward='=rank() OVER (ORDER BY dose)'", "OVER changes the order or the number of rows"),
        ("reward='=(SELECT content FROM read_text($secret$/etc/passwd$secret$))'", "Permission"),
        (
            "observation=['=dosis * 2']",
            "has no column dosis (dataset.columns.observation); did you",
        ),
        ("observation=['=dose ** 2']", "which an exported policy cannot compute"),
        ("observation=['=revenue * 2']", "revenue is both dataset.columns.observation and"),
    ],
)
def test_invalid_expressions_are_one_line(setting: str, message: str, tmp_path: Path):
    path = write(tmp_path / "logs.parquet", LOG)
    with pytest.raises(DataError) as error:
        read(path, "observation=[dose]", setting)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="must be a condition, as in age >= 18"):
        read(path, "observation=[dose]", condition="dose + 1")


def test_next_observations_are_encoded_alike(tmp_path: Path):
    """The last row has no next observation at all: nothing is filled, the row is dropped."""
    log = {name: LOG[name] for name in ("age", "mode", "action", "revenue")}
    log |= {"next_age": [1.0, None, 3.0, 4.0, 5.0, None], "truncated": [0, 0, 1, 0, 0, 1]}
    log["next_mode"] = ["auto", "off", "off", "auto", "off", None]
    path = write(tmp_path / "logs.parquet", log)
    data = read(
        path,
        *("observation=[age,mode]", "next_observation=[next_age,next_mode]"),
        "categories=[mode]",
    )
    assert data.next_observations.tolist() == [
        [1, 0, 1, 0, 0],
        [50, 1, 0, 1, 0],
        [3, 0, 0, 1, 0],
        [4, 0, 1, 0, 0],
        [5, 0, 0, 1, 0],
    ]


def test_a_state_that_is_a_number_fits_a_simulator_of_discrete_states(tmp_path: Path):
    """Discrete(6) is one-hot in the simulator."""
    path = write(tmp_path / "logs.parquet", LOG | {"action": [0, 1, 0, 1, 0, 1]})
    columns = columns_of(
        "reward=revenue", "observation=[ward]", "categories=[{column:ward,values:6}]"
    )
    data = load(TableReader(str(path), columns, spaces=Spaces(6, 2, True, (), ())))
    assert data.observations.argmax(axis=1).tolist() == LOG["ward"]
    assert np.all(data.observations.sum(axis=1) == 1)
