"""Observations computed from the columns of a table: categories, filled values, expressions.

The reader, a loaded policy and an exported one share these functions, so that a policy can be asked
with the columns of the log.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from offline_cql.errors import DataError

Array = npt.NDArray[Any]
EXPRESSION = "="  # before an expression, in place of a column's name
TIME = "epoch"  # epoch(column): the seconds since 1970 of a column of times
NUMBER, CATEGORY, TIMES = "number", "category", "time"  # what a column holds

# A strict part of SQL, with the meaning it has there. The values: names in NumPy and in torch.
FUNCTIONS = {
    **{name: (name, 1) for name in ("exp", "sqrt", "abs", "sin", "cos")},
    **{"ln": ("log", 1), "least": ("minimum", 2), "greatest": ("maximum", 2)},
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
OPERATORS = f"+ - * / % < <= > >= {' '.join(FUNCTIONS)} {TIME}"
QUOTE = 'write a name that is no plain word in double quotes, as "heart rate"'
QUOTED = re.compile(r'"((?:[^"]|"")+)"')  # a name in SQL
LONGEST, DEEPEST = 1_000, 50  # characters and nested parts of an expression
WORD = re.compile(r"_quoted_(\d+)_")  # in place of such a name
OTHER_VALUES = ("observation", "action", "support", "noise", "uniform")  # of an exported policy
LARGEST_CATEGORY = 2**53  # float64 tells all whole numbers up to it apart
MAX_SHOWN, MAX_CHARACTERS = 10, 100  # categories and characters in a message


class Expression:
    """An expression over columns: `dose / weight`, `ln("heart rate")`, `epoch(time) % 86400`.

    columns: those it needs, in order; times: those of them in epoch(). Raises DataError for text
    that is none, or that uses another operator.
    """

    def __init__(self, text: str):
        self.text = text
        self.columns: list[str] = []
        self.times: set[str] = set()
        self._quoted: list[str] = []
        self._code = QUOTED.sub(self._word, text.strip())
        try:
            if len(text) > LONGEST:
                raise SyntaxError(f"longer than {LONGEST:,} characters")
            self._tree = ast.parse(self._code, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or error
            raise self._error(f"is not an expression ({reason}); {QUOTE}") from error
        self._check(self._tree)
        if not self.columns:
            raise self._error("names no column")

    def __call__(self, values: Mapping[str, Any], library: Any) -> Any:
        """Return the value in float64; values: the columns. library: numpy or torch."""
        return self._evaluate(self._tree, values, library)

    def _check(self, node: ast.expr, depth: int = 0) -> None:
        """Raise DataError for other operators; collect the columns."""
        if depth > DEEPEST:
            raise self._error(f"has more than {DEEPEST} nested parts")
        parts: list[ast.expr] = []
        match node:
            case ast.Name():
                name = self._name(node)
                self.columns += [] if name in self.columns else [name]
            case ast.Constant(value=int() | float()):
                pass
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                parts = [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC or isinstance(
                op, ast.Mod
            ):
                parts = [left, right]
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
                parts = [left, right]
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
                name.lower() == TIME and isinstance(argument, ast.Name)
            ):
                parts = [argument]
                self.times.add(self._name(argument))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if (
                len(args) == FUNCTIONS.get(name.lower(), ("", None))[1]
            ):
                parts = args
            case _:
                source = ast.get_source_segment(self._code, node) or ""
                shown = WORD.sub(lambda match: f'"{self._quoted[int(match[1])]}"', source)
                raise self._error(
                    f"has {shown[:MAX_CHARACTERS]!r}, which an exported policy cannot compute: use "
                    f"{OPERATORS} (least and greatest of two); {QUOTE}; or add a column to the "
                    "table"
                )
        for part in parts:
            self._check(part, depth + 1)

    def _evaluate(self, node: Any, values: Mapping[str, Any], library: Any) -> Any:
        def evaluate(part: ast.expr) -> Any:
            return self._evaluate(part, values, library)

        match node:
            case ast.Name():
                return values[self._name(node)]
            case ast.Constant():
                return library.asarray(node.value, dtype=library.float64)
            case ast.UnaryOp():
                return -evaluate(node.operand)
            case ast.BinOp(op=ast.Mod()):  # as in SQL, the sign is the dividend's
                return library.fmod(evaluate(node.left), evaluate(node.right))
            case ast.BinOp():
                return ARITHMETIC[type(node.op)](evaluate(node.left), evaluate(node.right))
            case ast.Compare():
                truth = COMPARISONS[type(node.ops[0])](
                    evaluate(node.left), evaluate(node.comparators[0])
                )
                return truth * library.asarray(1.0, dtype=library.float64)
            case _:
                name = node.func.id.lower()
                if name == TIME:
                    return evaluate(node.args[0])
                return getattr(library, FUNCTIONS[name][0])(*map(evaluate, node.args))

    def _word(self, match: re.Match[str]) -> str:
        """Return the word that stands for a quoted name in Python's syntax."""
        self._quoted.append(match[1].replace('""', '"'))
        return f"_quoted_{len(self._quoted) - 1}_"

    def _name(self, node: ast.expr) -> str:
        """Return the column that a word stands for, as it is written: Python normalizes µ to μ."""
        word = ast.get_source_segment(self._code, node) or ""
        match = WORD.fullmatch(word)
        return self._quoted[int(match[1])] if match else word

    def _error(self, fault: str) -> DataError:
        plain = self.text.isprintable() and len(self.text) <= MAX_CHARACTERS
        shown = EXPRESSION + (self.text if plain else repr(self.text[:MAX_CHARACTERS]))
        return DataError(f"dataset.columns.observation: {shown} {fault}")


@dataclass(frozen=True)
class Feature:
    """One entry of dataset.columns.observation, and the numbers it is in an observation.

    value: a column's name, or `=` and an expression. categories: the values of a column that is
    one-hot encoded. fill: the number that replaces a missing value, followed by a flag (categories:
    all zeros and the flag); None: no value may be missing.
    """

    value: str
    categories: tuple[str | int, ...] | None = None
    fill: float | None = None

    @cached_property
    def expression(self) -> Expression | None:
        is_expression = self.value.startswith(EXPRESSION) and self.categories is None
        return Expression(self.value.removeprefix(EXPRESSION)) if is_expression else None

    @property
    def columns(self) -> list[str]:
        """The columns it is computed from."""
        return [self.value] if self.expression is None else self.expression.columns

    @property
    def names(self) -> list[str]:
        """The names of its numbers: `age`, `age missing`; `mode=auto`, `mode=off`."""
        name = self.value if self.expression is None else self.expression.text.strip()
        values = [name] if self.categories is None else [f"{name}={c}" for c in self.categories]
        return values + ([] if self.fill is None else [f"{name} missing"])


class Features:
    """The features of an observation; columns: the columns they need, by name with their kind."""

    def __init__(self, features: Sequence[Feature]):
        self.features = tuple(features)
        self.columns: dict[str, str] = {}
        for feature in self.features:
            for column in feature.columns:
                kind = CATEGORY if feature.categories is not None else NUMBER
                if feature.expression is not None and column in feature.expression.times:
                    kind = TIMES
                if self.columns.setdefault(column, kind) != kind:
                    raise DataError(
                        f"column {column} is observed both as {self.columns[column]} and as {kind}:"
                        " keep one of them"
                    )

    @classmethod
    def from_json(cls, content: Any) -> Features:
        """Return the features that `to_json` described. Raises DataError for other content."""
        try:
            return cls([_feature(**entry) for entry in content])
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the description of the observation is damaged ({error})") from error

    def to_json(self) -> list[dict[str, Any]]:
        """Return the features as JSON values, without what is absent."""
        content = [asdict(feature) for feature in self.features]
        return [{k: v for k, v in entry.items() if v is not None} for entry in content]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the D numbers of an observation."""
        return tuple(name for feature in self.features for name in feature.names)

    @cached_property
    def are_columns(self) -> bool:
        """True where each number of an observation is a column of numbers."""
        return all(f == Feature(f.value) and f.expression is None for f in self.features)

    @cached_property
    def optional(self) -> Array:
        """Whether a value of each column may be missing [C]."""
        needed = {c for f in self.features if f.fill is None for c in f.columns}
        return np.array([name not in needed for name in self.columns])

    def categories(self, column: str) -> tuple[str | int, ...]:
        """Return the values of a column of categories."""
        return next(
            f.categories for f in self.features if f.value == column and f.categories is not None
        )

    def describe(self) -> list[dict[str, Any]]:
        """Return the columns for a program without this package: name, kind, categories, optional.

        optional: whether a value may be missing.
        """
        return [
            {
                "name": name,
                "kind": kind,
                "optional": optional,
                **({"categories": list(self.categories(name))} if kind == CATEGORY else {}),
            }
            for (name, kind), optional in zip(
                self.columns.items(), self.optional.tolist(), strict=True
            )
        ]

    def encode(self, values: Array) -> Array:
        """Return observations [T, D] for the values [T, C] of the columns, both float64.

        values: numbers, indices of categories, seconds since 1970; NaN where a value is missing,
        then the numbers of a feature without `fill` are NaN.
        """
        if self.are_columns:
            return values
        by_name = dict(zip(self.columns, values.T, strict=True))
        with np.errstate(all="ignore"):  # what is not finite is refused with its position
            parts = [_encode(feature, by_name) for feature in self.features]
        return np.concatenate(parts, axis=1)

    def rows(self, observation: Mapping[str, Any]) -> tuple[Array, bool]:
        """Return the values [B, C] of named columns, and whether they are one row: no lists.

        Missing values are None or NaN, times ISO 8601 or seconds since 1970; True is 1. Raises
        DataError for other columns, categories that the data do not have, and missing values
        without `fill`.
        """
        check_names(observation, self.columns)
        single = not any(_is_column(observation[name]) for name in self.columns)
        lists = [
            [observation[name]] if single else list(observation[name])
            for name in self.columns
            if single or _is_column(observation[name])
        ]
        lengths = {len(values) for values in lists}
        if len(lists) != len(self.columns) or len(lengths) != 1:
            raise DataError("the columns of the observation have different lengths")
        values = [
            [self._number(name, entry) for entry in entries]
            for name, entries in zip(self.columns, lists, strict=True)
        ]
        rows = np.array(values, np.float64).reshape(len(self.columns), -1).T
        self._refuse_missing(rows)
        return rows, single

    def _number(self, name: str, value: Any) -> float:
        """Return one value of a column as a number, NaN where it is missing."""
        if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU":
            value = value.item()  # as Python has it
        is_number = isinstance(value, int | float | Decimal)
        kind = self.columns[name]
        if isinstance(value, str):
            is_missing = kind == CATEGORY and value == ""
        else:  # pandas' own are no numbers
            is_missing = value is None or str(value) in ("nan", "NaN", "NaT", "<NA>")
        if is_missing:
            return np.nan
        if kind == CATEGORY:
            return self._index(name, value)
        if kind == TIMES and (not is_number or isinstance(value, bool)):
            return _seconds(name, value)
        try:
            number = float(value) if is_number else np.nan
        except OverflowError:  # of a whole number
            number = np.inf
        if not np.isfinite(number):
            raise DataError(f"{name} is {value!r:.40}, expected a number")
        return number

    def _index(self, name: str, value: Any) -> float:
        categories = self.categories(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or value not in categories:
            shown = ", ".join(map(str, categories[:MAX_SHOWN]))
            more = ", …" if len(categories) > MAX_SHOWN else ""
            raise DataError(f"{name} is {value!r}, in the training data: {shown}{more}")
        return float(categories.index(value))

    def _refuse_missing(self, rows: Array) -> None:
        for column, optional, values in zip(self.columns, self.optional, rows.T, strict=True):
            if not optional and np.isnan(values).any():
                raise DataError(
                    f"{column} is missing: send a value (with dataset.missing=forward its last one)"
                )


def input_name(column: str) -> str:
    """Return the name of a column's input in an ONNX file."""
    return f"{column} (column)" if column in OTHER_VALUES else column


def are_texts(categories: tuple[str | int, ...]) -> bool:
    """Return whether categories are texts; else they are integers."""
    return isinstance(categories[0], str)


def valid_categories(values: Sequence[Any]) -> bool:
    """Return whether values can be categories: different texts, not empty, or whole numbers.

    An empty text is a missing value. float64, the type of an exported policy's numbers, tells whole
    numbers up to LARGEST_CATEGORY apart.
    """
    are_text = {*map(type, values)} == {str} and "" not in values
    are_whole = {*map(type, values)} == {int} and max(map(abs, values)) <= LARGEST_CATEGORY
    return (are_text or are_whole) and len({*values}) == len(values)


def column_inputs(features: Features, values: Array) -> dict[str, Array]:
    """Return the inputs of an ONNX file for the values [B, C] of the columns."""
    inputs: dict[str, Array] = {}
    for (name, kind), column in zip(features.columns.items(), values.T, strict=True):
        if kind != CATEGORY:
            inputs[input_name(name)] = np.ascontiguousarray(column, np.float64)
            continue
        categories = features.categories(name)
        absent: Any = "" if are_texts(categories) else np.nan
        entries = [absent if np.isnan(index) else categories[int(index)] for index in column]
        dtype = object if are_texts(categories) else np.float64
        inputs[input_name(name)] = np.array(entries, dtype)
    return inputs


def check_names(observation: Mapping[str, Any], columns: Sequence[str] | dict[str, str]) -> None:
    """Raise DataError unless an observation has the names of the columns."""
    if missing := [name for name in columns if name not in observation]:
        raise DataError(f"the observation does not have {', '.join(missing[:MAX_SHOWN])}")
    if unknown := [str(name) for name in observation if name not in set(columns)]:
        raise DataError(f"the observation has the unknown {', '.join(unknown[:MAX_SHOWN])}")


def _encode(feature: Feature, values: Mapping[str, Array]) -> Array:
    """Return the numbers [T, K] of a feature."""
    missing: Any = np.any([np.isnan(values[name]) for name in feature.columns], axis=0)
    if feature.categories is not None:
        index = values[feature.value][:, None]
        result = (index == np.arange(len(feature.categories))).astype(np.float64)
    elif feature.expression is not None:
        result = np.asarray(feature.expression(values, np))[:, None]
    else:
        result = values[feature.value][:, None]
    replacement = np.nan if feature.fill is None else feature.fill
    result = np.where(missing[:, None], replacement, result)
    return result if feature.fill is None else np.column_stack([result, missing])


def _feature(
    value: str, categories: Sequence[str | int] | None = None, fill: float | None = None
) -> Feature:
    """Return a checked feature. Raises ValueError."""
    plain = categories is None or valid_categories(categories)
    if not (isinstance(value, str) and plain and (fill is None or np.isfinite(float(fill)))):
        raise ValueError(f"{value!r}")
    return Feature(value, None if categories is None else tuple(categories), fill)


def _is_column(value: Any) -> bool:
    """Return whether a value of an observation holds many rows."""
    return np.ndim(value) > 0


def _seconds(name: str, value: Any) -> float:
    """Return seconds since 1970; times without a zone are UTC."""
    try:
        if isinstance(value, np.datetime64):
            return float(value.astype("datetime64[us]").astype(np.int64)) / 1e6
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DataError(f"{name} is {value!r}, expected a time as 2026-05-01T12:00:00") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
