"""Expressions over columns a, b and "heart rate" that use every operator of `features`."""

EXPRESSIONS = [
    "a + b * 2 - -3 / a",
    "(a + b) * 2",
    "a % b",
    "-a % 3",
    "ln(a) + exp(b) + sqrt(a) + abs(-b) + sin(a) + cos(b)",
    "least(a, 2) + greatest(b, a)",
    "(a < b) * 1 + (a <= b) * 2 + (a > 2) * 4 + (a >= b) * 8",
    'LN("heart rate") * a',
]
