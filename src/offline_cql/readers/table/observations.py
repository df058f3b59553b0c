"""The observations of a table: the values of their columns, and the features computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.errors import DataError
from offline_cql.features import (
    CATEGORY,
    EXPRESSION,
    NUMBER,
    TIME,
    TIMES,
    Feature,
    Features,
    valid_categories,
)
from offline_cql.readers.row_files import Array, Flags
from offline_cql.readers.table.actions import MAX_CATEGORIES
from offline_cql.readers.table.arrow_types import is_integer_or_float, is_text, is_time
from offline_cql.readers.table.missing import MOST_LISTED
from offline_cql.readers.table.selection import Chunk, Selection
from offline_cql.readers.table.values import (
    column,
    format_entry,
    nullable_numbers,
    refuse_infinite,
    refuse_missing,
    whole_numbers,
)
from offline_cql.render.command import hydra_value, shell_word

MICROSECONDS = pa.timestamp("us", "UTC")


def plain_features(entries: Sequence[str], categories: Mapping[str, Any]) -> Features:
    """Return the features of columns and expressions; those of dataset.columns.categories have ().

    Raises DataError for categories of a column that is not observed.
    """
    if unused := [name for name in categories if name not in entries]:
        raise DataError(
            f"dataset.columns.categories: {unused[0]} is not in dataset.columns.observation: add "
            "it there"
        )
    return Features([Feature(entry, () if entry in categories else None) for entry in entries])


def refuse_other_types(features: Features, selection: Selection, path: str) -> None:
    """Raise DataError that names all observed columns of text and of times, with the remedy."""
    faults = []
    types = {name: selection.tables[0].columns[name].type for name in features.columns}
    numbers = [name for name, kind in features.columns.items() if kind == NUMBER]
    if texts := [name for name in numbers if is_text(types[name])]:
        shown = ", ".join(f"{n} ({selection.first_text(n)!r:.40})" for n in texts[:MOST_LISTED])
        more = f" and {len(texts) - MOST_LISTED:,} more" if len(texts) > MOST_LISTED else ""
        setting = shell_word(f"dataset.columns.categories={hydra_value(texts[:MOST_LISTED])}")
        faults.append(
            f"text in {shown}{more}: correct what should be numbers; one-hot encode categories by "
            f"{setting}; or leave the columns out"
        )
    if times := [name for name in numbers if is_time(types[name])]:
        hour = f"{EXPRESSION}{TIME}({times[0]}) % 86400 / 3600"
        faults.append(
            f"times in {', '.join(times[:MOST_LISTED])}: observe a number of them, as the hour by "
            f"{hour!r}, or leave the columns out"
        )
    if faults:
        raise DataError(f"{path}: dataset.columns.observation has {'; and '.join(faults)}")


def with_categories(
    features: Features, selection: Selection, categories: Mapping[str, Any], path: str
) -> Features:
    """Return the features with their categories: as set, or the values of the data, sorted."""
    result = []
    for feature in features.features:
        if feature.categories is not None:
            setting = categories[feature.value]
            if setting is None:
                values = _data_values(selection, feature.value, path)
            else:
                values = tuple(range(setting) if isinstance(setting, int) else setting)
            if len(values) > MAX_CATEGORIES:
                raise DataError(
                    f"{path}: column {feature.value} has more than {MAX_CATEGORIES:,} different "
                    "values: leave it out, or list its frequent values in a column of their own"
                )
            feature = replace(feature, categories=values)
        result.append(feature)
    return Features(result)


def _data_values(selection: Selection, name: str, path: str) -> tuple[str | int, ...]:
    """Return the different values of a column, sorted."""
    values = selection.distinct(name, MAX_CATEGORIES + 1)
    values = [value for value in values if value != ""]  # an empty text is a missing value
    if values and all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # integers with gaps are floats in many tools
    if not values:
        raise DataError(f"{path}: column {name} has no values: leave it out")
    for value in values:
        if not valid_categories([value]):
            shown = f"{value:,}" if isinstance(value, int) else repr(value)
            raise DataError(
                f"{path}: column {name} holds {shown}: categories are text or whole numbers up to "
                "2^53; list larger ones as text in dataset.columns.categories, or remove the "
                "column from there"
            )
    return tuple(sorted(values))


def with_fill(
    features: Features, following: Features | None, chunks: Iterable[Chunk], path: str
) -> Features:
    """Return the features; those with missing values in the data are filled by their mean.

    following: the features of next observations, if there are columns of them. Raises DataError
    for a column without any value.
    """
    size = len(features.features)
    sums, counts, are_missing = np.zeros(size), np.zeros(size), np.zeros(size, bool)
    is_number = np.array([f.categories is None for f in features.features])
    numbers = [f for f in features.features if f.categories is None]
    for chunk in chunks:
        values = read_values(chunk, features)
        missing = _missing(features, values)
        are_missing |= missing.any(axis=0)
        counts += (~missing).sum(axis=0)
        encoded = Features(numbers).encode(values[:, _positions(features, numbers)])
        sums[is_number] += np.where(np.isfinite(encoded), encoded, 0.0).sum(axis=0)
        if following is not None:
            missing = _missing(following, read_values(chunk, following))
            are_missing |= missing[~missing.all(axis=1)].any(axis=0)
    for feature, count in zip(features.features, counts, strict=True):
        if count == 0:
            raise DataError(f"{path}: column {feature.value} has no values: leave it out")
    pairs = zip(features.features, (sums / counts).tolist(), are_missing, strict=True)
    return Features([replace(f, fill=m) if is_filled else f for f, m, is_filled in pairs])


def _missing(features: Features, values: Array) -> Flags:
    """Return which features [T, F] lack a value of their columns; values [T, C] of these."""
    by_name = dict(zip(features.columns, np.isnan(values).T, strict=True))
    parts = [np.any([by_name[c] for c in f.columns], axis=0) for f in features.features]
    return np.stack(parts, axis=1)


def _positions(features: Features, part: Sequence[Feature]) -> list[int]:
    """Return where the columns of some of the features are among those of all."""
    names = list(features.columns)
    return [names.index(name) for name in Features(part).columns]


def read_values(chunk: Chunk, features: Features, *, nullable: bool = True) -> Array:
    """Return the values [T, C] of the features' columns, NaN where one is missing.

    nullable: otherwise a missing value raises MissingValueError. Raises DataError for columns of
    other types, and for values that are no category.
    """
    arrays = []
    for name, kind in features.columns.items():
        if kind == CATEGORY:
            values = _indices(chunk, name, features.categories(name))
        else:
            values = seconds(chunk, name) if kind == TIMES else nullable_numbers(chunk, name)
        if nullable:
            refuse_infinite(chunk, name, values)
        else:
            refuse_missing(chunk, name, values)
        arrays.append(values)
    return np.stack(arrays, axis=1)


def _indices(chunk: Chunk, name: str, categories: tuple[str | int, ...]) -> Array:
    """Return the index of each value among the categories [T], NaN where it is missing."""
    values, are_texts = column(chunk, name), isinstance(categories[0], str)
    if not are_texts and is_integer_or_float(values.type):
        values = whole_numbers(chunk, name)
    fits = is_text(values.type) if are_texts else pa.types.is_int64(values.type)
    if not fits:
        raise DataError(
            f"{chunk.position(0, name)} holds {values.type}, the values in "
            f"dataset.columns.categories are {', '.join(map(repr, categories[:3]))}: list values "
            "of the column, or only its name for all of them"
        )
    if are_texts:  # an empty text is a missing value
        values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
    present = pa.array(categories, values.type)
    index = pc.index_in(values, value_set=present)
    unknown = pc.and_(index.is_null(), values.is_valid()).to_numpy(zero_copy_only=False)
    chunk.refuse(
        name,
        unknown,
        lambda row: (
            f"{format_entry(values, row)} is not among the values in dataset.columns.categories"
        ),
    )
    return index.to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[no-any-return]


def seconds(chunk: Chunk, name: str) -> Array:
    """Return the seconds since 1970 of a column of times [T], NaN where one is missing."""
    values = column(chunk, name)
    if not is_time(values.type):
        raise DataError(f"{chunk.position(0, name)} holds {values.type}, expected times")
    # Nanoseconds are rounded, and times that are microseconds beyond 2^53, after the year 2255.
    microseconds = values.cast(MICROSECONDS, safe=False).cast(pa.int64())
    return microseconds.to_numpy(zero_copy_only=False).astype(np.float64) / 1e6  # type: ignore[no-any-return]


def refuse_not_finite(chunk: Chunk, features: Features, observations: Array) -> None:
    """Raise DataError at the first number [T, D] that is not finite, as ln(0) or 1 / 0."""
    if not (is_finite := np.isfinite(observations)).all():
        row, index = np.argwhere(~is_finite)[0]
        name, number = features.names[index], observations[row, index]
        raise DataError(
            f"{chunk.position(int(row), name)} is {number:g}: change the expression, as by "
            f"greatest(x, 1e-6) in it, or leave the row out by dataset.filter"
        )


def numeric_columns(features: Features) -> set[str]:
    """Return the columns that are read as numbers of double precision."""
    return {name for name, kind in features.columns.items() if kind == NUMBER}
