"""Guarantee: logs as people have them are trained on, or refused in one line that names all faults.

Every log that is read is trained on, exported and asked by its raw columns: the exported policy
answers as the run's. All logs hold the same 12 stays of 10 rows (`log`), in other clothes.
"""

import datetime
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from support.config import compose_config
from support.train import DISCRETE, train_run

from offline_cql import Run, load_policy
from offline_cql.commands.train import validate
from offline_cql.errors import DataError

Columns = dict[str, Any]
SIZE = 120
START = datetime.datetime(2026, 3, 1, 8)
TINY = tuple(k for k in DISCRETE if not k.startswith(("env=", "dataset.size")))
MAPPED = (
    *("observation=[age,mode]", "categories=[mode]", "action=[drug]", "reward=effect"),
    *("episode=stay", "step=hour", "terminated=left"),
)


def log() -> Columns:
    """Return the columns; ages have one decimal."""
    generator = np.random.default_rng(0)
    hour = np.tile(np.arange(10), 12)
    return {
        "stay": np.repeat([f"s{number:02}" for number in range(12)], 10).tolist(),
        "hour": hour.tolist(),
        "age": generator.normal(60, 10, SIZE).round(1).tolist(),
        "mode": generator.choice(["größer", "kleiner", "aus"], SIZE).tolist(),
        "drug": generator.choice(["none", "low", "high"], SIZE).tolist(),
        "effect": generator.normal(size=SIZE).round(3).tolist(),
        "left": (hour == 9).astype(int).tolist(),
    }


def text_of(columns: Columns, separator: str = ",", decimal: str = ".") -> str:
    """Return the columns as CSV."""

    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return text.replace(".", decimal) if isinstance(value, float) else text

    rows = [map(cell, row) for row in zip(*columns.values(), strict=True)]
    return "".join(f"{separator.join(row)}\n" for row in [columns, *rows])


def with_gaps(columns: Columns, **rows: list[int]) -> Columns:
    """Return the columns with missing values at some rows."""
    return {
        name: [None if row in rows.get(name, ()) else v for row, v in enumerate(values)]
        for name, values in columns.items()
    }


# --- Logs that are read: write(folder) returns the path and the settings beside MAPPED ---

Written = tuple[Path, tuple[str, ...]]


def csv(
    name: str, separator: str = ",", decimal: str = ".", encoding: str = "utf-8", *settings: str
) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        path = folder / name
        path.write_text(text_of(log(), separator, decimal), encoding)
        return path, settings

    return write


def parquet(changes: Callable[[Columns], Columns], *settings: str) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        pq.write_table(pa.table(changes(log())), folder / "log.parquet")
        return folder / "log.parquet", settings

    return write


def compressed(folder: Path) -> Written:
    (folder / "log.csv.gz").write_bytes(gzip.compress(text_of(log()).encode()))
    return folder / "log.csv.gz", ()


def windows_lines(folder: Path) -> Written:
    (folder / "log.csv").write_bytes(text_of(log()).replace("\n", "\r\n").encode())
    return folder / "log.csv", ()


def quoted_names(folder: Path) -> Written:
    text = text_of(log()).replace("age", '"age, in ""years"""', 1)
    (folder / "log.csv").write_text(text)
    return folder / "log.csv", ("observation=['age, in \"years\"',mode]",)


def partitions(folder: Path) -> Written:
    columns = log()
    for ward in (3, 4):
        rows = [row for row in range(SIZE) if int(columns["stay"][row][1:]) % 2 == ward % 2]
        part = {name: [values[row] for row in rows] for name, values in columns.items()}
        path = folder / "logs" / f"ward={ward}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(part), path)
    return folder / "logs", ("observation=[age,mode,ward]", "categories=[mode,ward]")


def files(folder: Path) -> Written:
    table = pa.table(log())
    (folder / "logs").mkdir()
    for number in range(3):
        part = table.slice(40 * number, 40)
        pc.write_csv(part, folder / "logs" / f"day {number + 9}.csv")
    return folder / "logs", ()


def json_lines(folder: Path) -> Written:
    rows = pa.table(log()).to_pylist()
    path = folder / "log.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path, ()


def json_objects(folder: Path) -> Written:
    rows = pa.table(log()).to_pylist()
    nested = [row | {"vitals": {"age": row["age"], "mode": row["mode"]}} for row in rows]
    (folder / "log.json").write_text(json.dumps(nested))
    observation = "observation=[vitals.age,vitals.mode]"
    return folder / "log.json", (observation, "categories=[vitals.mode]")


def lists(columns: Columns) -> Columns:
    ages = np.array(columns["age"])
    return columns | {"vitals": np.stack([ages, ages / 2, -ages], axis=1).tolist()}


def wide(columns: Columns) -> Columns:
    numbers = np.random.default_rng(1).normal(size=(200, SIZE))
    return columns | {f"lab {k}": values for k, values in enumerate(numbers)}


def dictionary(columns: Columns) -> Columns:
    return columns | {"mode": pa.array(columns["mode"]).dictionary_encode()}


def decimals(columns: Columns) -> Columns:
    return columns | {"age": pa.array(columns["age"]).cast(pa.decimal128(10, 1))}


def integer_category(columns: Columns) -> Columns:
    return columns | {"mode": [len(mode) for mode in columns["mode"]]}


def booleans(columns: Columns) -> Columns:
    return columns | {"mode": [mode == "aus" for mode in columns["mode"]]}


def incomplete(columns: Columns) -> Columns:
    return with_gaps(columns, age=[3, 14, 50], mode=[4, 51, 70])


def shuffled(columns: Columns) -> Columns:
    order = np.random.default_rng(2).permutation(SIZE)
    return {name: [values[row] for row in order] for name, values in columns.items()}


def times(columns: Columns) -> Columns:
    hours = [START + datetime.timedelta(hours=hour) for hour in columns["hour"]]
    return columns | {"hour": hours}


def zones(folder: Path) -> Written:
    """Times of Berlin in CSV: summer time begins after the first rows."""
    columns = times(log())
    columns["hour"] = [f"{time.isoformat()}+02:00" for time in columns["hour"]]
    (folder / "log.csv").write_text(text_of(columns))
    return folder / "log.csv", ("observation=[age,mode,'=epoch(hour) % 86400 / 3600']",)


def npz(folder: Path) -> Written:
    columns = log()
    numbers = {name: np.array(columns[name]) for name in ("age", "effect", "left", "hour")}
    texts = {name: np.unique(columns[name], return_inverse=True)[1] for name in ("stay", "drug")}
    np.savez(folder / "log.npz", **numbers, **texts)
    return folder / "log.npz", ("observation=[age]", "categories=[]")


FILL, FORWARD, DROP = (f"dataset.missing={name}" for name in ("fill", "forward", "drop"))
HOUR = "observation=[age,mode,'=epoch(hour) % 86400 / 3600']"
READ: dict[str, Callable[[Path], Written]] = {
    "comma": csv("log.csv"),
    "semicolon and decimal comma": csv("log.csv", ";", ","),
    "tab": csv("log.tsv", "\t"),
    "pipe": csv("log.txt", "|"),
    "cp1252": csv("log.csv", ";", ",", "cp1252", "dataset.encoding=cp1252"),
    "UTF-16 with a mark": csv("log.csv", encoding="utf-16"),
    "UTF-8 with a mark": csv("log.csv", encoding="utf-8-sig"),
    "gzip": compressed,
    "line ends of Windows": windows_lines,
    "names with quotes": quoted_names,
    "partitions": partitions,
    "many files": files,
    "JSON lines": json_lines,
    "JSON objects": json_objects,
    "lists": parquet(lists, "observation=[vitals_*,mode]"),
    "wide": parquet(wide, "observation=['lab *',mode]"),
    "dictionary of Parquet": parquet(dictionary),
    "decimals": parquet(decimals),
    "integer categories": parquet(integer_category),
    "Discrete(n)": parquet(integer_category, "categories=[{column:mode,values:10}]"),
    "booleans": parquet(booleans, "categories=[]"),
    "filled": parquet(incomplete, FILL),
    "forward": parquet(incomplete, FORWARD),
    "dropped": parquet(incomplete, DROP),
    "unsorted": parquet(shuffled),
    "times": parquet(times, HOUR),
    "time zones": zones,
    "expressions": parquet(
        lambda columns: columns,
        "observation=['=ln(age) * 2','=greatest(age, 60)',mode]",
        "reward='=effect - 0.1 * (drug = $$high$$)::INT'",
        "dataset.filter='age > 40 OR hour > 0'",
        "episode='=stay || $$!$$'",
        "step=null",
    ),
    "NPZ": npz,
}


def arguments(path: Path, settings: tuple[str, ...]) -> list[str]:
    """Return the overrides of train.py; later settings replace those of MAPPED."""
    chosen = {text.partition("=")[0]: text for text in (*MAPPED, *settings)}
    prefixed = [
        text if text.startswith("dataset.") else f"dataset.columns.{text}"
        for text in chosen.values()
    ]
    return ["env=logged", "dataset=table", f"dataset.path={path}", *prefixed]


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_log_is_trained_on_exported_and_asked_by_its_columns(name: str, tmp_path: Path):
    path, settings = READ[name](tmp_path)
    quoted = f"'{path}'" if " " in str(path) else path
    typed = arguments(Path(str(quoted)), settings)
    run = Run(train_run(tmp_path / "run", *TINY, *typed, "updates=20"))
    features = run.policy().features
    assert features is not None
    described = features.describe()
    generator = np.random.default_rng(3)
    observation: Columns = {}
    for column in described:
        numbers = generator.uniform(41, 99, 20)
        values = generator.choice(column.get("categories") or [0], 20).tolist()
        observation[column["name"]] = values if "categories" in column else numbers.tolist()
        if column["optional"]:
            observation[column["name"]][0] = None
    expected = run.policy().predict(observation)
    np.testing.assert_array_equal(
        load_policy(run.export(["support=false"])).predict(observation), expected
    )


# --- Logs that are refused: all faults in one line ---


def written(name: str, content: str) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        (folder / name).write_text(content)
        return folder / name, ()

    return write


def mixed(columns: Columns) -> Columns:
    """Return text in a column of numbers, text that has to be encoded, and times."""
    ages = [str(age) for age in columns["age"]]
    return times(columns) | {"age": [*ages[:-1], "n.a."], "hour 2": times(columns)["hour"]}


REFUSED: dict[str, tuple[Callable[[Path], Written], str]] = {
    "header only": (
        written("log.csv", text_of(log()).partition("\n")[0]),
        "column mode has no values",
    ),
    "empty": (written("log.csv", ""), r"log\.csv"),
    "no columns of these names": (
        written("log.csv", "a,b\n1,2\n"),
        r"has no column age \(dataset\.columns\.observation\).*columns: a, b.*infer=true",
    ),
    "several types": (
        parquet(mixed, "observation=[age,mode,'hour 2']", "categories=[]"),
        r"text in age \('n\.a\.'\), mode \('\w+'\):.*and times in hour 2: observe a number of them",
    ),
    "missing values": (
        parquet(lambda c: with_gaps(c, age=[1, 2], mode=[5], effect=[7], drug=[8, 9, 10])),
        "of 120 rows are missing: drug 3, age 2, mode 1, effect 1; leave a column out, or set",
    ),
    "names twice": (
        written("log.csv", text_of(log()).replace("mode", "age", 1)),
        "more than one column 'age': rename one",
    ),
    "a short line": (
        written("log.csv", text_of(log()) + "s12,0,1\n"),
        "at line 122: 3 columns, the header has 7: correct or complete the line",
    ),
    "another encoding": (
        lambda folder: csv("log.csv", ";", ",", "cp1252")(folder),
        "is not UTF-8: set dataset.encoding to its encoding, as in dataset.encoding=cp1252",
    ),
    "Excel": (written("log.xlsx", "PK"), "cannot be read: supported are"),
    "a new category": (
        parquet(lambda c: c, "categories=[{column:mode,values:[aus,kleiner]}]"),
        r"column mode: größer is not among the values in dataset\.columns\.categories",
    ),
    "an expression that no file can carry": (
        parquet(lambda c: c, "observation=['=upper(mode)']", "categories=[]"),
        "has 'upper\\(mode\\)', which an exported policy cannot compute",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_is_refused_in_one_line(name: str, tmp_path: Path):
    write, message = REFUSED[name]
    path, settings = write(tmp_path)
    with pytest.raises(DataError) as error:
        validate(compose_config(*TINY, *arguments(path, settings)), [])
    assert re.search(message, str(error.value))
    assert "\n" not in str(error.value)
