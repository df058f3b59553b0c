"""Measures of how well one column tells another: pure functions of arrays, from 0 to 1.

n rows, C columns. Numbers are compared by their ranks, so that units, outliers and monotone
functions do not matter.
"""

from __future__ import annotations

import numpy as np

from offline_cql.audit.distribution import Array

BINS = 50  # they explain 1 - 1 / BINS² of what a number determines; chance explains BINS / n
MIN_BIN_ROWS = 20
FEW_VALUES = 20  # numbers with so many values are classes
NEIGHBORS = 5
MAX_QUERIES, MAX_CANDIDATES = 400, 2_500
CLIP_STD = 5.0


def ranks(values: Array) -> Array:
    """Return the ranks [n, C] of `values` [n, C]; equal numbers have their mean rank."""
    result = np.empty(values.shape)
    for k, column in enumerate(values.T):
        ordered = np.sort(column)
        below, up_to = ordered.searchsorted(column, "left"), ordered.searchsorted(column, "right")
        result[:, k] = (below + up_to) / 2
    return result


def bins(values: Array) -> Array:
    """Return the number of the bin of each of `values` [n]: of equal size, or one per value."""
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) <= BINS:
        return np.asarray(codes)
    count = max(2, min(BINS, len(values) // MIN_BIN_ROWS))
    places = ranks(values[:, None])[:, 0] * count / len(values)
    return np.asarray(np.unique(np.minimum(places.astype(int), count - 1), return_inverse=True)[1])


def explained_by_bins(labels: Array, values: Array) -> Array:
    """Return the share [C] of the variance of `values` [n, C] between the bins (η²)."""
    one_hot = (labels == np.arange(labels.max() + 1)[:, None]).astype(np.float64)  # [bins, n]
    centered = values - values.mean(axis=0)
    between = ((one_hot @ centered) ** 2 / one_hot.sum(axis=1, keepdims=True)).sum(axis=0)
    total = (centered**2).sum(axis=0)
    shares: Array = np.divide(between, total, out=np.zeros(len(total)), where=total > 0)
    return shares


def skill(labels: Array, classes: Array) -> float:
    """Return the share of the errors of the most frequent class that the labels avoid.

    labels, classes [n]: codes from 0. 0 where there is one class.
    """
    width = int(classes.max()) + 1
    table = np.bincount(labels * width + classes, minlength=(int(labels.max()) + 1) * width)
    correct = table.reshape(-1, width).max(axis=1).sum()
    most_frequent = np.bincount(classes).max()
    errors = len(classes) - most_frequent
    return float((correct - most_frequent) / errors) if errors else 0.0


def class_spread(codes: Array, values: Array) -> Array:
    """Return the spread [C] of `values` [n, C] within k classes: 1 for touching intervals.

    k² · (1 - η²). An even policy that splits the range of a number into k parts has 1, an echo of
    its decision 0.
    """
    count = int(codes.max()) + 1
    return np.asarray(count**2 * (1 - explained_by_bins(codes, values)))


def separation(binary: Array, values: Array) -> float:
    """Return |2 AUC - 1| of `values` [n] between the rows where `binary` [n] is 0 and 1."""
    ones = binary == 1
    count = int(ones.sum())
    if count in (0, len(ones)):
        return 0.0
    # The rank of a row counts half of itself and of those equal to it.
    mean = ranks(values[:, None])[ones, 0].mean() - count / 2
    return float(abs(2 * mean / (len(ones) - count) - 1))


def two_way(x: Array, y: Array) -> float:
    """Return how well x [n] and y [n] tell each other, the lesser of both directions.

    y of few values are classes: 1 - class_spread, and the skill of the nearest class mean. Else
    numbers: η² of values or ranks, whichever is higher.
    """
    distinct, codes = np.unique(y, return_inverse=True)
    if len(distinct) <= FEW_VALUES:
        spread = float(class_spread(codes, x[:, None])[0])
        means = np.bincount(codes, x) / np.bincount(codes)
        nearest = np.abs(x[:, None] - means).argmin(axis=1)
        return max(0.0, min(1 - spread, skill(nearest, codes)))
    both = (explained(bins(a), b[:, None], ranks(b[:, None]))[0] for a, b in ((y, x), (x, y)))
    return float(min(both))


def explained(labels: Array, values: Array, ranked: Array) -> Array:
    """Return η² [C] of values [n, C] or of their ranks, whichever is higher.

    Ranks are robust against outliers, values against noise on numbers that repeat.
    """
    both = (explained_by_bins(labels, numbers) for numbers in (values, ranked))
    return np.asarray(np.maximum(*both))


def explained_by_columns(features: Array, target: Array, group: Array) -> float:
    """Return R² of target [n] given features [n, C] on rows that were not fitted, at least 0.

    The better of least squares and of the mean of the nearest rows of other groups [n].
    """
    points, y = _standardize(features), _standardize(target[:, None])
    if not points.shape[1] or not y.shape[1]:
        return 0.0
    return max(explained_linearly(features, target), _neighbor_r2(points, y[:, 0], group))


def explained_linearly(features: Array, target: Array) -> float:
    """Return R² of target [n] by least squares on the columns of features [n, C] and their squares.

    Fitted to every other row and scored on the rest, at least 0.
    """
    points, y = _standardize(features), _standardize(target[:, None])
    if not y.shape[1]:
        return 0.0
    terms = np.hstack([points, points**2, np.ones((len(points), 1))])
    weights = np.linalg.lstsq(terms[::2], y[::2, 0], rcond=1e-6)[0]
    return max(0.0, _r2(y[1::2, 0], terms[1::2] @ weights))


def _standardize(values: Array) -> Array:
    """Return the columns that vary with zero mean and unit variance, clipped to ±CLIP_STD."""
    std = values.std(axis=0)
    varies = std > 0
    scaled: Array = (values[:, varies] - values[:, varies].mean(axis=0)) / std[varies]
    return np.clip(scaled, -CLIP_STD, CLIP_STD)


def _neighbor_r2(points: Array, y: Array, group: Array) -> float:
    queries = np.linspace(0, len(points) - 1, min(len(points), MAX_QUERIES)).astype(int)
    pool = np.linspace(0, len(points) - 1, min(len(points), MAX_CANDIDATES)).astype(int)
    candidates = points[pool]
    distances = (candidates**2).sum(axis=1) - 2 * points[queries] @ candidates.T
    distances[group[queries][:, None] == group[pool]] = np.inf
    nearest = np.argpartition(distances, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    return _r2(y[queries], y[pool][nearest].mean(axis=1))


def _r2(y: Array, prediction: Array) -> float:
    variance = float(y.var())
    return 1 - float(((y - prediction) ** 2).mean()) / variance if variance > 0 else 0.0
