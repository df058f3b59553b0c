"""The observations of a table: the values of their columns, and the features computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline_cql.errors import DataError
from offline_cql.features import CATEGORY, EXPRESSION, NUMBER, TIME, TIMES, Feature, Features
from offline_cql.readers.row_files import Array
from offline_cql.readers.table.actions import MAX_CATEGORIES
from offline_cql.readers.table.arrow_types import is_integer_or_float, is_text, is_time
from offline_cql.readers.table.files import Chunk, Selection
from offline_cql.readers.table.missing import MOST_LISTED
from offline_cql.readers.table.values import (
    column,
    format_entry,
    nullable_numbers,
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
    if values and all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]  # integers with gaps are floats in many tools
    if not values:
        raise DataError(f"{path}: column {name} has no values: leave it out")
    if not all(type(value) in (str, int) for value in values):
        raise DataError(
            f"{path}: column {name} holds no text or whole numbers, as {values[0]!r}: remove it "
            "from dataset.columns.categories"
        )
    return tuple(sorted(values))


def with_fill(features: Features, chunks: Iterable[Chunk]) -> Features:
    """Return the features; those with missing values in the data are filled by their mean."""
    size = len(features.features)
    sums, counts, are_missing = np.zeros(size), np.zeros(size), np.zeros(size, bool)
    for chunk in chunks:
        values = read_values(chunk, features)
        by_name = dict(zip(features.columns, np.isnan(values).T, strict=True))
        for index, feature in enumerate(features.features):
            missing = np.any([by_name[name] for name in feature.columns], axis=0)
            are_missing[index] |= missing.any()
            counts[index] += (~missing).sum()
        numbers = [f for f in features.features if f.categories is None]
        encoded = Features(numbers).encode(values[:, _positions(features, numbers)])
        is_number = np.array([f.categories is None for f in features.features])
        sums[is_number] += np.nansum(encoded, axis=0)
    means = sums / np.maximum(counts, 1)
    pairs = zip(features.features, means.tolist(), are_missing, strict=True)
    return Features([replace(f, fill=m) if missing else f for f, m, missing in pairs])


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
        if not nullable:
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
            f"{chunk.position(0, name)} holds {values.type}, the categories are "
            f"{', '.join(map(str, categories[:3]))}"
        )
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
    seconds = pc.divide(values.cast(MICROSECONDS).cast(pa.int64()).cast(pa.float64()), 1e6)
    return seconds.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def numeric_columns(features: Features) -> set[str]:
    """Return the columns that are read as numbers of double precision."""
    return {name for name, kind in features.columns.items() if kind == NUMBER}
