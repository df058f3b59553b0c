"""The Arrow types of a table's columns, as the roles of columns see them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_integer_or_float(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_number(kind: Any) -> bool:
    """Return True for a column of numbers or booleans."""
    return bool(is_integer_or_float(kind) or pa.types.is_decimal(kind) or pa.types.is_boolean(kind))


def is_category(kind: Any) -> bool:
    """Return True if a single action column of this type holds discrete actions."""
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text(kind))


def is_time(kind: Any) -> bool:
    """Return True for dates and for points in time."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def is_list_of_numbers(kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists) and is_number(kind.value_type)
