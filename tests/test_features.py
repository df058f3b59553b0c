"""Guarantee: an observation is computed from the columns of a table as documented, as SQL does."""

import datetime
import math
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pytest
from support.expressions import EXPRESSIONS

from offline_cql.errors import DataError
from offline_cql.features import Expression, Feature, Features

AGE = Feature("age", fill=50.0)
MODE = Feature("mode", categories=("auto", "off"))
WARD = Feature("ward", categories=(3, 5), fill=0.0)
MIXED = Features([AGE, MODE, WARD, Feature('=ln("heart rate") + 1'), Feature("=epoch(time) % 60")])
ROW = {"age": 71, "mode": "off", "ward": 5, "heart rate": 1.0, "time": "2026-01-01T00:00:07"}


def test_an_observation_worked_by_hand():
    values, single = MIXED.rows(ROW)
    assert single
    assert MIXED.names == (
        *("age", "age missing", "mode=auto", "mode=off", "ward=3", "ward=5", "ward missing"),
        *('ln("heart rate") + 1', "epoch(time) % 60"),
    )
    assert MIXED.encode(values).tolist() == [[71, 0, 0, 1, 0, 1, 0, 1, 7]]


def test_missing_values_are_filled_and_flagged():
    values, _ = MIXED.rows({**ROW, "age": None, "ward": float("nan")})
    assert MIXED.encode(values)[0, :7].tolist() == [50, 1, 0, 1, 0, 0, 1]


def test_columns_of_many_rows():
    columns: dict[str, Any] = {name: [value, value] for name, value in ROW.items()}
    columns["time"] = [datetime.datetime(2026, 1, 1, 0, 0, 9), np.datetime64("2026-01-01T00:01:00")]
    values, single = MIXED.rows(columns)
    assert not single
    assert MIXED.encode(values)[:, -1].tolist() == [9, 0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("age", value, [3.0, 0]) for value in (3, np.int8(3), np.float32(3), np.array(3.0))),
        *(("age", value, [3.0, 0]) for value in (Decimal(3), 3.0)),
        *(("age", value, [50.0, 1]) for value in (None, np.nan, np.float32("nan"))),
        *(("ward", value, [0, 1, 0]) for value in (5, 5.0, np.int64(5), np.float32(5))),
        *(("ward", value, [0, 0, 1]) for value in (None, np.float32("nan"))),
        *(("mode", value, [0, 1]) for value in ("off", np.str_("off"))),
        *(("time", value, [7]) for value in (67, np.int64(67), np.datetime64(67, "s"))),
    ],
)
def test_values_may_be_of_any_type_of_numbers(name: str, value: Any, expected: list[float]):
    first = {"age": 0, "mode": 2, "ward": 4, "time": 8}[name]
    values, single = MIXED.rows(ROW | {name: value})
    assert single
    assert MIXED.encode(values)[0, first : first + len(expected)].tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": np.inf}, "age is inf, expected a number"),
        ({"ward": np.inf}, "ward is inf, in the training data: 3, 5"),
        ({"ward": True}, "ward is True, in the training data: 3, 5"),
        ({"mode": "on"}, "mode is 'on', in the training data: auto, off"),
        ({"mode": None}, "mode is missing: send a value"),
        ({"ward": 4}, "ward is 4, in the training data: 3, 5"),
        ({"age": "old"}, "age is 'old', expected a number"),
        ({"time": "noon"}, "time is 'noon', expected a time"),
        ({"age": [1, 2]}, "have different lengths"),
        ({"sex": 1}, "the observation has the unknown sex"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(DataError, match=message):
        MIXED.rows(ROW | changes)
    with pytest.raises(DataError, match="does not have mode"):
        MIXED.rows({name: value for name, value in ROW.items() if name != "mode"})


def test_a_description_is_read_back():
    assert Features.from_json(MIXED.to_json()).features == MIXED.features
    for content in (
        [{}],
        [{"value": 1}],
        [{"value": "a", "fill": "x"}],
        3,
        [{"value": "=__import__('os')"}],
    ):
        with pytest.raises(DataError):
            Features.from_json(content)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_means_what_it_means_in_sql(text: str):
    """DuckDB computes the same; comparisons are 0 and 1 there after a cast."""
    generator = np.random.default_rng(0)
    values = {name: generator.uniform(0.5, 5, 50) for name in ("a", "b", "heart rate")}
    ours = Expression(text)(values, np)
    sql = text.replace(") * ", ")::DOUBLE * ") if "<" in text else text
    columns = ", ".join(f'CAST(? AS DOUBLE) AS "{name}"' for name in values)
    rows = zip(*values.values(), strict=True)
    theirs = [
        duckdb.execute(f"SELECT CAST({sql} AS DOUBLE) FROM (SELECT {columns})", [*row]).fetchall()
        for row in rows
    ]
    np.testing.assert_allclose(ours, np.array(theirs).ravel(), rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("substr(name, 1)", "has 'substr(name, 1)', which an exported policy cannot compute"),
        ("a ** 2", "has 'a ** 2', which an exported policy cannot compute: use + - * /"),
        ("a.b", "has 'a.b'"),
        ("ln(a, b)", "has 'ln(a, b)'"),
        ("[a for a in b]", "cannot compute"),
        ("a +", "is not an expression"),
        ("1 + 2", "names no column"),
        ("-" * 60 + "a", "more than 50 nested parts"),
        ("a" * 2000, "longer than 1,000 characters"),
        ("a\n\x1b[31m", r"observation: ='a\n\x1b[31m' is not an expression"),
    ],
)
def test_other_text_is_refused(text: str, message: str):
    with pytest.raises(DataError) as error:
        Expression(text)
    assert message in str(error.value)


def test_one_column_has_one_kind():
    with pytest.raises(DataError, match="column mode is observed both as category and as number"):
        Features([MODE, Feature("=mode + 1")])


def test_an_expression_without_a_value_is_not_finite():
    (value,) = Features([Feature("=ln(a)")]).encode(np.array([[-1.0]]))
    assert math.isnan(value[0])


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("µg * 2", "µg"),  # Python would read the Greek letter mu
        ("gro\u0308\u00dfe * 2", "gro\u0308\u00dfe"),  # o and an umlaut mark
        ('"class" * 2', "class"),
        ('"lab.k" * 2', "lab.k"),
        ('"says ""yes""" * 2', 'says "yes"'),
        ('2 * "_quoted_0_"', "_quoted_0_"),
        (' "m²" + "m²" ', "m²"),
    ],
)
def test_names_are_those_of_sql(text: str, column: str):
    expression = Expression(text)
    assert expression.columns == [column]
    assert expression({column: np.array([1.5])}, np) == [3.0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("class + 1", "is not an expression (invalid syntax); write a name that is no plain word"),
        ("m² * 2", "is not an expression (invalid character"),
        ("lab.k * 2", "has 'lab.k', which an exported policy cannot compute"),
        ("age + 'x'", "has \"'x'\", which an exported policy cannot compute"),
        ('f("my age") + 1', "has 'f(\"my age\")', which an exported policy cannot compute"),
        ("least(a, 1, 2)", "least and greatest of two"),
        ("1 + 2", "names no column"),
    ],
)
def test_faults_are_named_with_the_remedy(text: str, fault: str):
    with pytest.raises(DataError) as error:
        Expression(text)
    assert fault in str(error.value)
