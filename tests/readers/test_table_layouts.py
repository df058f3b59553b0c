"""Guarantee: tables as other programs write them are read as the same steps, in the right order.

Shuffled rows, times as steps, partitioned folders, objects and lists, odd names; and no file but
those of dataset.path is opened.
"""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from support.table_case import Columns, columns_of, episodes, load_table, write

from offline_cql.data.returns import returns_to_go
from offline_cql.errors import ConfigError, DataError
from offline_cql.readers import load
from offline_cql.readers.table import database
from offline_cql.readers.table.database import Database
from offline_cql.readers.table.files import open_tables
from offline_cql.readers.table.reader import TableReader
from offline_cql.readers.table.selection import Selection
from offline_cql.readers.table.values import numbers

LENGTHS, ENDS = [3, 1, 5, 4], ["T", "T", "U", "T"]


def rows(columns: Columns, order: Any) -> Columns:
    """Return the rows of columns in another order."""
    return {name: np.asarray(values)[order] for name, values in columns.items()}


# --- Order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "csv", "npz"])
@pytest.mark.parametrize("seed", range(3))
def test_shuffled_rows_are_sorted_by_episode_and_step(kind: str, seed: int, tmp_path: Path):
    """Episodes come in the order of their first rows; each as in the sorted table."""
    columns = episodes(LENGTHS, ENDS)
    order = np.random.default_rng(seed).permutation(len(columns["reward"]))
    data = load_table(write(tmp_path / f"logs.{kind}", rows(columns, order)))
    first = list(dict.fromkeys(columns["episode"][order].tolist()))
    expected = [row for number in first for row in np.flatnonzero(columns["episode"] == number)]
    whole = load_table(write(tmp_path / "sorted.parquet", rows(columns, expected)))
    assert data.sha256 == whole.sha256
    assert data.repairs == whole.repairs | {"sorted_rows": 13}


def test_episodes_that_take_turns_over_files_are_sorted(tmp_path: Path):
    """Two files, each with a part of the episodes 0 and 1; a table in order is not sorted."""
    columns = episodes([4, 4], ["T", "T"])
    for number, order in enumerate([[0, 4, 1, 5], [6, 2, 3, 7]]):
        write(tmp_path / f"part_{number}.csv", rows(columns, order))
    whole = load_table(write(tmp_path / "whole.parquet", columns))
    assert load_table(f"{tmp_path}/part_*.csv").sha256 == whole.sha256
    assert "sorted_rows" not in whole.repairs


def test_ids_that_repeat_across_files_are_not_joined(tmp_path: Path):
    """Episode 0 of the second file is another one: its steps start again."""
    for number in range(2):
        write(tmp_path / f"part_{number}.csv", episodes([3, 2], ["T", "T"]))
    with pytest.raises(DataError, match=r"make ids unique across files"):
        load_table(f"{tmp_path}/part_*.csv")


TIMES = [datetime.datetime(2026, 5, 1, 8, minute) for minute in (0, 5, 5, 20, 0, 30)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("zone", [None, datetime.UTC])
def test_a_time_orders_the_rows_and_ties_keep_their_order(kind: str, zone: Any, tmp_path: Path):
    """Episode 0 at 8:00, 8:05 twice, 8:20; in the file 8:20 comes first."""
    order = [3, 0, 1, 2, 5, 4]
    columns = rows(episodes([4, 2], ["T", "T"]), order)
    columns["step"] = [TIMES[row].replace(tzinfo=zone) for row in order]
    columns["terminated"] = np.array([row in (3, 5) for row in order])
    data = load_table(write(tmp_path / f"logs.{kind}", columns))
    assert data.rewards.tolist() == [0, 1, 2, 3, 100, 101]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_gamma_discounts_a_unit_of_time(kind: str, chunk: int, tmp_path: Path):
    """Steps of 30, 60 and 15 minutes in hours; the last, terminated one has no discount."""
    minutes = [0, 30, 90, 105, 0, 60]
    columns = episodes([4, 2], ["T", "T"])
    columns["step"] = [TIMES[0] + datetime.timedelta(minutes=m) for m in minutes]
    path = write(tmp_path / f"logs.{kind}", columns)
    data = load(TableReader(str(path), columns_of(), time_unit=3600, chunk_size=chunk))
    assert data.durations is not None
    assert data.durations.tolist() == [0.5, 1, 0.25, 1, 1, 1]
    assert data.elapsed.tolist() == [0, 0.5, 1.5, 1.75, 0, 1]
    assert data.episode_times().tolist() == [2.75, 2]
    np.testing.assert_allclose(data.discounts(0.81)[:3], [0.9, 0.81, 0.81**0.25])
    rewards = data.rewards[:4].astype(np.float64)
    expected = rewards @ 0.81 ** np.array([0, 0.5, 1.5, 1.75])
    np.testing.assert_allclose(
        returns_to_go(data.rewards, data.ends, gamma=data.discounts(0.81))[0], expected
    )


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"step": TIMES[:3] + TIMES[3:]}, [], "row 2, column step: the time of the row before"),
        ({}, [], "column step: holds int64, expected times|holds int64, expected times"),
        ({}, ["step=null"], "dataset.time_unit needs a column of times as dataset.columns.step"),
    ],
)
def test_a_unit_of_time_needs_times_that_grow(
    changes: Columns, settings: list[str], message: str, tmp_path: Path
):
    path = write(tmp_path / "logs.parquet", episodes([4, 2], ["T", "T"]) | changes)
    with pytest.raises(DataError, match=message):
        load(TableReader(str(path), columns_of(*settings), time_unit=60))


def test_days_of_a_csv_are_read_as_iso_dates_only(tmp_path: Path):
    """01/02/2026 is another day in America: it stays text and is refused as a step."""
    columns = episodes([3], ["T"]) | {"step": ["01/02/2026", "02/02/2026", "03/02/2026"]}
    with pytest.raises(DataError, match=r"column step holds string, expected integers or times"):
        load_table(write(tmp_path / "logs.csv", columns))


@pytest.mark.slow
def test_a_table_larger_than_the_memory_is_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """150 MB of shuffled rows with 96 MB: temporary files are written, the result is the same."""
    monkeypatch.setattr(database, "MEMORY", "96MB")
    rng = np.random.default_rng(0)
    size, length = 1_000_000, 100
    order = rng.permutation(size)
    columns = {f"obs_{i}": order * 20.0 + i for i in range(18)}
    columns |= {"episode": order // length, "step": order % length}
    path = tmp_path / "logs.parquet"
    pa.parquet.write_table(pa.table(columns), path, row_group_size=50_000)
    selection = Selection(open_tables(str(path)), list(columns), list(columns))
    assert selection.sort_if_needed("episode", "step")
    first = list(dict.fromkeys((order // length).tolist()))
    expected = np.array(first)[:, None] * length + np.arange(length)
    obs = [numbers(chunk, "obs_17") for chunk in selection.chunks(list(columns), 8192)]
    np.testing.assert_array_equal(np.concatenate(obs), expected.ravel() * 20 + 17)


# --- Folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["", "/*/*/part*.parquet"])
def test_a_partitioned_folder_has_its_keys_as_columns(pattern: str, tmp_path: Path):
    """site=a/episode=0/part.parquet and so on: the id of the episode is in the path alone."""
    columns = episodes([3, 2, 4], ["T", "T", "T"])
    numbers = columns.pop("episode")
    folder = tmp_path / "alpha=5"  # above the data: no column
    for number in (0, 1, 2):
        path = folder / f"site={'aab'[number]}" / f"episode={number}" / "part.parquet"
        path.parent.mkdir(parents=True)
        write(path, rows(columns, numbers == number))
    (folder / "_SUCCESS").touch()
    (folder / ".part.parquet.crc").touch()
    path = f"{folder}{pattern}"
    data = load_table(path)
    assert data.lengths.tolist() == [3, 2, 4]
    assert list(open_tables(path)[0].columns)[:2] == ["site", "episode"]


def test_a_folder_without_tables_is_refused(tmp_path: Path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError, match="contains no file to read"):
        load_table(tmp_path)


# --- Columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_objects_and_lists_are_columns(kind: str, tmp_path: Path):
    """{"state": {"pos": [x, y], "speed": v}} is state.pos_0, state.pos_1 and state.speed."""
    step = np.arange(10)
    records = [{"speed": k + 0.5, "angle": -1.5 * k} for k in range(10)]
    table = {"state": records, "pos": [[k, -k] for k in range(10)], "action": step % 2}
    table |= {"reward": step / 2, "terminated": step % 5 == 4}
    path = write(tmp_path / f"logs.{kind}", table)
    data = load_table(path, "observation=[state.*,pos_*]")
    assert set(data.observation_names) == {"state.speed", "state.angle", "pos_0", "pos_1"}
    order = ["state.angle", "state.speed", "pos_0", "pos_1"]
    at = [data.observation_names.index(name) for name in order]
    assert data.observations[3, at].tolist() == [-4.5, 3.5, 3, -3]


def test_columns_that_differ_in_case_stay_apart(tmp_path: Path):
    """SQL's names do not distinguish them."""
    columns = episodes([3, 2], ["T", "T"]) | {"Reward": np.zeros(5), "REWARD": np.ones(5)}
    for kind in ("parquet", "csv"):
        data = load_table(write(tmp_path / f"logs.{kind}", columns), "reward=REWARD")
        assert data.rewards.tolist() == [1] * 5


NAMES = ['inside "1" [°C], it\'s', "select", "file", "row", "c0", "offline row", "a;b", "x\ty"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_any_name_of_a_column_or_file_is_read(kind: str, tmp_path: Path):
    columns = episodes([3, 2], ["T", "T"])
    columns |= {name: np.full(5, number) for number, name in enumerate(NAMES)}
    path = write(tmp_path / f"it's [1] *;?.{kind}", columns)
    quoted = ",".join(json.dumps(name, ensure_ascii=False) for name in NAMES if "\t" not in name)
    data = load_table(path, f"observation=[{quoted}]")
    assert data.observations[0].tolist() == list(range(7))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("inner", ["\n", "\r\n"])
def test_the_ends_of_lines_of_a_csv(end: str, inner: str, tmp_path: Path):
    """Spreadsheets write \\r\\n after a line and \\n inside a quoted cell or name."""
    lines = [f'"dose{inner}in mg",action,reward,episode', f'0.5,"a{inner}b",1,0', "1.5,c,2,0"]
    path = tmp_path / "logs.csv"
    path.write_text(end.join([*lines, *lines[1:], ""]), newline="")
    data = load_table(path, f"observation=['dose{inner}in mg']")
    assert data.observations[:, 0].tolist() == [0.5, 1.5, 0.5]
    assert data.action_names == (f"a{inner}b", "c")


@pytest.mark.parametrize("ends", [("\r\n", "\n"), ("\n", "\r\n")])
def test_lines_of_different_ends_are_refused(ends: tuple[str, str], tmp_path: Path):
    content = f"x,action,reward,episode{ends[0]}" + f"0.5,a,1,0{ends[0]}1.5,b,1,0{ends[0]}" * 5_000
    path = tmp_path / "logs.csv"
    path.write_text(f"{content}2.5,b,1,0{ends[1]}3.5,b,1,0{ends[1]}", newline="")
    with pytest.raises(DataError, match=r"its lines end in different ways"):
        load_table(path, "observation=[x]")


def test_a_line_of_a_csv_that_begins_with_a_hash_is_a_row(tmp_path: Path):
    columns = episodes([3, 2], ["T", "T"])
    columns = {"episode": np.array(["#1", "#1", "#1", "#2", "#2"]), **rows(columns, slice(None))}
    columns["episode"] = np.array(["#1", "#1", "#1", "#2", "#2"])
    assert load_table(write(tmp_path / "logs.csv", columns)).lengths.tolist() == [3, 2]


@pytest.mark.parametrize("before", [0, 30_000])  # DuckDB looks at the first 20,480 rows
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,1", "at line {line:,}: 3 columns, the header has 5"),
        ("1,2,1,0.5,0,9", "at line {line:,}: 6 columns, the header has 5"),
        ('1,2,1,0.5,"0', "unterminated quote"),
    ],
)
def test_a_broken_line_is_named(line: str, message: str, before: int, tmp_path: Path):
    path = tmp_path / "logs.csv"
    lines = ["episode,obs_0,action,reward,terminated", *["1,2,1,0.5,0"] * before, line]
    path.write_text("\n".join(lines) + "\n1,2,1,0.5,1\n")
    with pytest.raises(DataError, match=message.format(line=before + 2)):
        load_table(path)


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("obs_0", "warm", "a number"),
        ("episode", "1.5", "a whole number"),
        ("terminated", "maybe", "true or false"),
    ],
)
def test_a_later_value_of_another_type_is_named(
    column: str, value: str, kind: str, separator: str, tmp_path: Path
):
    path = tmp_path / "logs.csv"
    names = ["episode", "obs_0", "action", "reward", "terminated"]
    row = dict(zip(names, ["1", "2.5", "1", "0.5", "false"], strict=True))
    lines = [separator.join(line) for line in (names, *[row.values()] * 30_000)]
    path.write_text("\n".join([*lines, separator.join((row | {column: value}).values())]))
    where = "" if column == "episode" else " at line 30,002"
    message = f"{where}, column {column}: '{value}' is not {kind} as in the first rows"
    with pytest.raises(DataError, match=message):
        load_table(path)


@pytest.mark.parametrize(
    ("kind", "separator", "point"),
    [("csv", ",", "."), ("csv", ";", ","), ("csv", "\t", "."), ("jsonl", "", ".")],
)
def test_a_decimal_is_the_nearest_double(kind: str, separator: str, point: str, tmp_path: Path):
    """As Python reads it, to the last bit: any double, and texts of up to 30 digits."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    texts = [repr(float(value)) for value in values[np.isfinite(values)]]
    texts += [f"{value:.{digits}f}" for value in rng.normal(size=30) for digits in range(30)]
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        lines = [f"a{separator}b", *(f"{t.replace('.', point)}{separator}x" for t in texts)]
    else:
        lines = [f'{{"a": {text}, "b": "x"}}' for text in texts]
    path.write_text("\n".join(lines))
    (chunk,) = Selection(open_tables(str(path)), ["a"], ["a"]).chunks(["a"], len(texts))
    assert numbers(chunk, "a").tolist() == [float(text) for text in texts]


def test_a_name_in_another_encoding_is_not_replaced(tmp_path: Path):
    """Only the header has bytes that are not UTF-8."""
    path = tmp_path / "logs.csv"
    header = "obs_0,temp °C,action,reward,terminated"
    path.write_bytes("\n".join([header, "1,2,0,1,0", "3,4,1,1,1"]).encode("cp1252"))
    with pytest.raises(DataError, match=r"is not UTF-8: set dataset\.encoding"):
        open_tables(str(path))
    assert "temp °C" in open_tables(str(path), "cp1252")[0].columns


def test_an_unknown_encoding_is_a_config_error(tmp_path: Path):
    from support.config import settings

    for name in ("utf-9", "rot13", "zip"):
        with pytest.raises(ConfigError, match=r"dataset\.encoding"):
            settings("env=logged", "dataset=table", "dataset.path=x", f"dataset.encoding={name}")


def test_bytes_of_an_npz_that_are_not_ascii_are_refused(tmp_path: Path):
    columns = episodes([3, 2], ["T", "T"]) | {
        "episode": np.array([b"a", b"a", b"a", b"\xab", b"c"])
    }
    with pytest.raises(DataError, match=r"cannot be read .*ascii.*: store numbers, or text"):
        load_table(write(tmp_path / "logs.npz", columns))


# --- Access --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '{own}'",
        "ATTACH '{folder}/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SELECT * FROM secret",
    ],
)
def test_no_other_file_is_read_or_written(sql: str, tmp_path: Path):
    """Also not by a link, nor a Python variable of the caller's."""
    own = write(tmp_path / "logs.csv", episodes([3], ["T"]))
    path = write(tmp_path / "secret.csv", episodes([3], ["T"]))
    secret = pa.table({"a": [1]})
    reader = Database([own])
    os.symlink(path, Path(reader.folder) / "link.csv")
    content = own.read_bytes()
    with pytest.raises(duckdb.Error):
        reader.fetch(sql.format(secret=path, folder=tmp_path, own=own))
    with pytest.raises(duckdb.Error):
        reader.fetch(f"SELECT * FROM read_csv('{reader.folder}/link.csv')")
    assert own.read_bytes() == content
    assert len(secret) == 1


def test_temporary_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OFFLINE_CQL_CACHE", str(tmp_path / "cache"))
    reader = TableReader(str(write(tmp_path / "x.csv", episodes([3], ["T"]))), columns_of())
    reader.spaces()
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
    del reader
    assert list((tmp_path / "cache" / "tables").iterdir()) == []
