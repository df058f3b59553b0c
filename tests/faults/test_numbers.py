"""Guarantee: a click rate of 0.0046 [0.0034, 0.0060] is never printed as 0.0 [0.0, 0.0].

The rules are in tests/render/test_numbers.py; here is what a user sees.
"""

from pathlib import Path

import numpy as np
import pytest
from support.builders import continuous_data
from support.logged import statistics_of
from support.run_dirs import UPDATES, write_run

from offline_cql.audit.describe import format_distribution
from offline_cql.audit.distribution import summarize as distribution_of
from offline_cql.audit.page import column_table
from offline_cql.commands.evaluate import add_estimate
from offline_cql.commands.tables import key_value_table
from offline_cql.io import read_json, write_json
from offline_cql.ope.estimate import Estimate
from offline_cql.report.load_runs import load_runs
from offline_cql.report.messages import sentences
from offline_cql.report.model_selection import Limits
from offline_cql.report.summary import Summary, summarize
from offline_cql.report.write import latex, markdown

CLICKS = (0.0034, 0.0060)


def click_runs(root: Path) -> Summary:
    """Write two seeds with click rates as estimates, returns and scores; return their report."""
    for seed in (0, 1):
        folder = write_run(
            root / f"seed{seed}",
            seed=seed,
            bounds=dict.fromkeys(UPDATES, CLICKS),
            returns={k: [0.004, 0.005] for k in UPDATES},
            score=0.0046 + 0.0002 * seed,
        )
        content = read_json(folder / "ope.json")
        content["behavior"] |= {"value": 0.0031, "low": 0.0022, "high": 0.0040}
        write_json(folder / "ope.json", content)
    limits = Limits(above_best_share=0.05, bc_margin=0.1)
    return summarize(load_runs(str(root)), limits, resamples=10, seed=0)


def test_the_report_shows_rates_of_one_in_two_hundred(tmp_path: Path):
    """(0.0034 + 0.0060) / 2 = 0.0047; scores 0.0046 and 0.0048, mean 0.0047 ± 0.000141."""
    summary = click_runs(tmp_path)
    (selection,) = summary.selections.values()
    bound = sentences(selection)[1]
    assert bound.startswith(
        "Its lower bound 0.0034 is above the return of the data, 0.0031 (+0.0003). "
        "The estimate is 0.0047 [0.0034, 0.0060] (fqe)."
    )
    text = markdown(summary)
    assert "| 0.0047 [0.0034, 0.0060] | 0.0031 |" in text
    assert "| 0.0047 | 0.0034 |" in text  # the grid point
    assert "0.004700 ± 0.000141" in text
    assert "0.0047 [0.0046, 0.0048]" in text  # the mean over two seeds and its bootstrap
    assert "0.0 " not in text
    assert "0.0047 [0.0034, 0.0060]" in latex(summary)


def test_evaluate_prints_the_extrapolated_part_with_the_digits_of_the_interval():
    """Of 2753 [2601, 2900], 2744.6 lies beyond the ends of the logs: 8.5 was observed."""
    table = key_value_table("x")
    estimate = Estimate(
        method="fqe", value=2753.1234, low=2601.2, high=2899.9, assumptions=(), extrapolated=2744.6
    )
    add_estimate(table, "fqe", estimate)
    assert list(table.columns[1].cells) == ["2753 [2601, 2900]", "9", "2745"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        # 46 clicks in 10,000: the standard deviation is (0.0046 · 0.9954) ** 0.5 = 0.06767.
        (np.arange(10_000) < 46, "0.0046 ± 0.0677, 90% in 0.0000 … 0.0000"),
        # Half 2,000 and half 3,000.
        (np.repeat([2000.0, 3000.0], 50), "2500 ± 500, 90% in 2000 … 3000"),
        (np.full(10, 0.25), "0.25 ± 0, 90% in 0.25 … 0.25"),
    ],
)
def test_the_audit_prints_a_distribution_with_the_digits_of_its_spread(values, text: str):
    assert format_distribution(distribution_of(values)) == text


def test_a_column_far_from_0_shows_how_it_varies():
    """obs_0 is 12,000 and 12,000.5 in turn: mean 12,000.25, standard deviation 0.25."""
    data = continuous_data(1000)
    data.rows[:, 0] = np.where(np.arange(1000) % 2, 12_000.5, 12_000.0)
    row = column_table(statistics_of(data)).rows[0]
    assert row[1:6:2] == ("12,000.25", "12,000", "12,000.5")
    assert row[2] == "0.25"
