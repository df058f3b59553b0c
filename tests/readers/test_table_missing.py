"""Guarantee: missing values are refused with all counts, or handled as dataset.missing says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.config import settings
from support.table_case import columns_of, episodes, write

from offline_cql.errors import ConfigError, DataError
from offline_cql.readers import load
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Transitions

LENGTHS, ENDS = [5, 4], ["T", "T"]  # rows 0 to 4, and 5 to 8


def without(columns: dict[str, Any], **rows: list[int]) -> dict[str, Any]:
    """Return the columns with the values at some rows missing."""
    gaps = {name: set(rows.get(name, ())) for name in columns}
    return {
        name: [None if row in gaps[name] else value for row, value in enumerate(values.tolist())]
        for name, values in columns.items()
    }


def read(path: Path, missing: str, *overrides: str, chunk: int = 65_536) -> Transitions:
    columns = columns_of(*overrides)
    return load(TableReader(str(path), columns, missing=missing, chunk_size=chunk))


def steps(data: Transitions) -> list[list[float]]:
    """Return the observed steps (obs_1) by episode."""
    starts = np.cumsum(data.lengths)[:-1]
    return [part.tolist() for part in np.split(data.observations[:, 1], starts)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_refusal_names_all_columns_with_counts_and_the_remedy(kind: str, tmp_path: Path):
    columns = without(episodes(LENGTHS, ENDS), obs_1=[3, 4, 8], reward=[6], action_1=[1, 2])
    path = write(tmp_path / f"logs.{kind}", columns)
    with pytest.raises(DataError) as error:
        read(path, "refuse")
    text = str(error.value)
    assert "of 9 rows are missing: obs_1 3, action_1 2, reward 1; leave a column out" in text
    assert "dataset.missing=drop" in text
    assert "at row 1, column action_1" in text


def test_nan_counts_as_missing(tmp_path: Path):
    columns = episodes([5, 5, 5], ["T"] * 3)
    columns["obs_0"][2] = np.nan
    path = write(tmp_path / "logs.npz", columns)
    with pytest.raises(DataError, match="of 15 rows are missing: obs_0 1; "):
        read(path, "refuse")
    assert steps(read(path, "drop"))[:2] == [[0], [3, 4]]


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_a_dropped_row_ends_the_episode_before_it(chunk: int, tmp_path: Path):
    """Row 2 of five is dropped: 0 keeps its next observation, 1 has none; 3 and 4 are an episode.

    The reward of row 6 is missing too: of the second episode 5 has no next row, 7 and 8 stay.
    """
    columns = without(episodes([5, 4, 6, 6], ["T"] * 4), obs_0=[2], reward=[6])
    data = read(write(tmp_path / "logs.parquet", columns), "drop", chunk=chunk)
    assert steps(data) == [[0], [3, 4], [2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    assert data.next_observations[0].tolist() == [0, 1]
    assert data.truncated[0]
    assert data.terminated[2]
    assert data.repairs["dropped_incomplete_rows"] == 2


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_forward_keeps_the_last_value_of_the_episode(chunk: int, tmp_path: Path):
    """Rows 2 and 3 take the value of row 1; row 5 begins an episode without one and is dropped."""
    columns = episodes([5, 4, 4], ["T", "T", "T"])
    columns["obs_0"] = np.arange(13.0)
    data = read(
        write(tmp_path / "logs.parquet", without(columns, obs_0=[2, 3, 5])), "forward", chunk=chunk
    )
    assert data.observations[:, 0].tolist() == [0, 1, 1, 1, 4, 6, 7, 8, 9, 10, 11, 12]
    assert data.next_observations[:3, 0].tolist() == [1, 1, 1]
    assert data.repairs == {"filled_observations": 2, "dropped_incomplete_rows": 1}


def test_forward_fills_a_next_observation_that_is_missing_in_part(tmp_path: Path):
    """The next row's column is missing: the value that was observed before stays."""
    columns = episodes([3, 3], ["T", "U"])
    columns |= {f"next_obs_{i}": columns[f"obs_{i}"] + 7 for i in range(2)}
    gaps = {"next_obs_0": [1, 5], "next_obs_1": [5]}
    data = read(write(tmp_path / "logs.parquet", without(columns, **gaps)), "forward")
    assert data.next_observations[1].tolist() == [0, 8]
    assert len(data.rewards) == 5  # row 5 is truncated and has no next observation


@pytest.mark.parametrize("name", ["episode", "step", "terminated"])
def test_a_missing_mark_of_an_episode_is_refused_always(name: str, tmp_path: Path):
    path = write(tmp_path / "logs.csv", without(episodes(LENGTHS, ENDS), **{name: [4]}))
    for missing in ("refuse", "drop", "forward"):
        with pytest.raises(DataError, match=f"column {name}: the value is missing"):
            read(path, missing)


def test_missing_actions_are_dropped_choices_too(tmp_path: Path):
    columns = episodes([5, 5, 5], ["T"] * 3)
    choices = np.array(["a", "b", "c"] * 5)
    columns = {n: v for n, v in columns.items() if "action" not in n} | {"action": choices}
    data = read(write(tmp_path / "logs.csv", without(columns, action=[13])), "drop")
    assert data.action_names == ("a", "b", "c")
    assert data.repairs["dropped_incomplete_rows"] == 1


@pytest.mark.parametrize("missing", ["drop", "forward"])
def test_infinity_is_not_a_missing_value(missing: str, tmp_path: Path):
    columns = episodes(LENGTHS, ENDS)
    columns["obs_0"][3] = np.inf
    with pytest.raises(DataError, match=r"obs_0|observation"):
        read(write(tmp_path / "logs.parquet", columns), missing)


def test_forward_has_no_effect_on_decisions_of_their_own():
    log = ("env=logged", "dataset=table", "dataset.path=x", "dataset.one_step=true")
    with pytest.raises(ConfigError, match=r"dataset\.missing"):
        settings(*log, "dataset.missing=forward")


def test_a_column_of_text_is_named_where_all_rows_are_dropped(tmp_path: Path):
    columns = episodes([3], ["T"]) | {"action_0": [float("nan")] * 3, "reward": ["x"] * 3}
    bounds = ("action_low=[0,0]", "action_high=[1,1]")
    with pytest.raises(DataError, match=r"logs\.parquet, column reward holds text"):
        read(write(tmp_path / "logs.parquet", columns), "drop", *bounds)
