"""The audit as one HTML page: its style and its plots are inside it."""

from __future__ import annotations

from collections.abc import Sequence

from offline_cql.audit.columns import ColumnStatistics
from offline_cql.audit.describe import describe, describe_spaces
from offline_cql.audit.finding import Finding
from offline_cql.audit.plots import audit_plots
from offline_cql.audit.statistics import DatasetStatistics
from offline_cql.render.html import render_page
from offline_cql.render.numbers import format_values
from offline_cql.render.svg import render_plot
from offline_cql.render.table import Table

MAX_ROWS = 200  # of the table of columns


def audit_page(
    statistics: DatasetStatistics, findings: Sequence[Finding], policy: Sequence[Table] = ()
) -> str:
    """Return the page. policy: the tables of what a policy does in the data."""
    columns = column_table(statistics)
    return render_page(
        "audit.html.j2",
        identity=statistics.identity,
        spaces=describe_spaces(statistics),
        findings=findings,
        groups=describe(statistics),
        plots=[render_plot(plot) for plot in audit_plots(statistics)],
        columns=columns,
        policy=policy,
        further_columns=statistics.observations.total - len(columns.rows),
    )


def column_table(statistics: DatasetStatistics) -> Table:
    """Return the table of the first MAX_ROWS observation columns."""
    leaks = {leak.column: leak for leak in statistics.leakage.leaks} if statistics.leakage else {}
    one_hot = {name for group in statistics.observations.one_hot_groups for name in group}
    rows = []
    for column in statistics.observations.columns[:MAX_ROWS]:
        numbers = format_values(column.mean, column.std, width=column.std)
        for value in (column.min, column.quantiles[2], column.max):
            numbers += format_values(value, width=column.std)
        kinds = column_kinds(column, one_hot=column.name in one_hot)
        if column.name in leaks:
            kinds.append(f"tells {leaks[column.name].source}")
        rows.append((column.name, *numbers, f"{column.outliers:,}", ", ".join(kinds)))
    return Table(
        title="Observation columns",
        columns=("column", "mean", "std", "min", "median", "max", "> 20 std", "kind"),
        rows=rows,
        align="lrrrrrrl",
        hints={
            "std": "standard deviation",
            "median": "of a sample",
            "> 20 std": "rows more than 20 standard deviations from the mean",
        },
    )


def column_kinds(column: ColumnStatistics, *, one_hot: bool) -> list[str]:
    """Return what is special about an observation column, in words."""
    kinds = {
        "constant": column.constant,
        "nearly constant": column.nearly_constant,
        "one-hot": one_hot,
        "binary": column.binary and not column.constant and not one_hot,
        "integer": column.integer and not column.binary and not column.constant,
        "increasing": column.increasing,
        "constant per episode": column.constant_per_episode,
    }
    return [name for name, applies in kinds.items() if applies]
