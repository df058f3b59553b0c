"""Guarantee: expressions over columns have SQL's names and say what they cannot compute."""

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.features import Expression


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
