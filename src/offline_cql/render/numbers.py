"""Numbers as text: one format for pages, terminal tables, Markdown and LaTeX.

A value with an interval or a spread goes through `format_interval`, `format_spread` or
`format_values`: what is uncertain in the second digit is not printed with one digit, or with six.
"""

from __future__ import annotations

import math

MISSING = "–"
DIGITS = 3  # of an interval's width, and of a number alone
SMALLEST, LARGEST = 1e-4, 1e7  # sizes of numbers that are written without an exponent
NO_WIDTH = 1e-7  # of the value: float32's resolution
GROUPED = 10_000  # from five digits on: 2753, 12,346
UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def format_number(value: float | None) -> str:
    """Return a number with three or four significant digits; "–" for None.

    0.05678 → 0.0568, 12.345 → 12.35, 123.45 → 123.5, 1234.5 → 1234, 12345.6 → 12,346; 0.000012 and
    1e9 with an exponent. Trailing zeros are removed.
    """
    if value is None:
        return MISSING
    size = abs(value)
    if size and not SMALLEST <= size < LARGEST:
        return f"{value:.{DIGITS}g}"
    if size < 1:
        decimals = DIGITS - 1 - _exponent(size) if size else 0
    else:
        decimals = 2 if size < 100 else 1 if size < 1000 else 0
    (text,) = _without_common_zeros([_fixed(value, decimals)])
    return text.removesuffix(".0")


def format_interval(value: float, low: float, high: float) -> str:
    """Return `value [low, high]` with three significant digits of the interval's width.

    0.0046 [0.0034, 0.0060], 2753 [2601, 2900].
    """
    value_text, low_text, high_text = format_values(value, low, high, width=high - low)
    return f"{value_text} [{low_text}, {high_text}]"


def format_spread(mean: float, std: float) -> str:
    """Return `mean ± std` with three significant digits of the standard deviation."""
    return " ± ".join(format_values(mean, std, width=std))


def format_values(*values: float, width: float) -> list[str]:
    """Return numbers of one unit with the same decimals, so that `width` has three digits.

    No digits after the point where it has more than three before.
    width: of their interval, or their standard deviation. Zeros that end all of them are removed.
    Numbers without a width, or with one that is not finite, are written as if alone.
    """
    width, size = abs(width), max(map(abs, values))
    if not all(map(math.isfinite, (*values, width))) or width <= NO_WIDTH * size:
        return [format_number(value) for value in values]
    if SMALLEST <= size < LARGEST:
        decimals = max(DIGITS - 1 - _exponent(width), 0)
        return _without_common_zeros([_fixed(value, decimals) for value in values])
    digits = max(_exponent(size) - _exponent(width) + DIGITS - 1, 0)
    parts = [f"{value + 0.0:.{digits}e}".partition("e") for value in values]
    mantissas = _without_common_zeros([mantissa for mantissa, _, _ in parts])
    return [f"{m}e{exponent}" for m, (_, _, exponent) in zip(mantissas, parts, strict=True)]


def format_difference(value: float) -> str:
    """Return a number with its sign."""
    return f"{'+' if value > 0 else ''}{format_number(value)}"


def format_share(part: float) -> str:
    """Return a share as a percentage that is 0% or 100% only when it is exact."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    decimals = 0 if 9.95 < percent < 99.5 else 1
    return f"{percent:.{decimals}f}".removesuffix(".0") + "%"


def format_count(count: int, noun: str) -> str:
    """Return `1 episode`, `2,000 episodes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_size(n_bytes: float) -> str:
    """Return a number of bytes in the unit that leaves it above 1: `1.5 GB`, `340 kB`."""
    for unit, size in UNITS:
        if n_bytes >= size:
            return f"{format_number(n_bytes / size)} {unit}"
    return format_count(round(n_bytes), "byte")


def _exponent(size: float) -> int:
    """Return the power of ten of a number's first digit when it is written with DIGITS digits."""
    return int(f"{size:.{DIGITS - 1}e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    rounded = round(value, decimals) + 0.0  # adding 0 turns -0 into 0
    grouping = "," if abs(rounded) >= GROUPED else ""
    return f"{rounded:{grouping}.{decimals}f}"


def _without_common_zeros(texts: list[str]) -> list[str]:
    while all("." in text and text.endswith("0") for text in texts):
        texts = [text[:-1].removesuffix(".") for text in texts]
    return texts
