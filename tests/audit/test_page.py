"""Guarantee: page and table show every line and every finding, and the page is self-contained."""

import dataclasses
import io
import re
from collections.abc import Callable

import numpy as np
import pytest
from support.builders import continuous_data, discrete_data
from support.logged import cart_data, statistics_of
from support.pages import ParsedPage

from offline_cql.audit.describe import describe
from offline_cql.audit.finding import Finding
from offline_cql.audit.page import audit_page
from offline_cql.audit.plots import audit_plots
from offline_cql.audit.rules import apply_rules
from offline_cql.audit.table import print_audit, print_summary
from offline_cql.render.terminal import Terminal
from offline_cql.transitions import Transitions

HOSTILE = ("<script>x</script>", "a&b", "$\\frac$", "$x$", "名前")


def wide_data(size: int = 2_000) -> Transitions:
    """Return 40 observation columns and 14 action dimensions, some with hostile names."""
    data = continuous_data(size, low=[-1.0] * 14, high=[1.0] * 14, observation_dim=40)
    return dataclasses.replace(
        data,
        observation_names=(*HOSTILE, *(f"obs_{k}" for k in range(35))),
        action_names=(*HOSTILE, *(f"act_{k}" for k in range(9))),
        dataset_id="test/<b>bold</b>-v0",
    )


CASES: dict[str, Callable[[], Transitions]] = {
    "continuous": lambda: cart_data(),
    "discrete": lambda: cart_data(discrete=True),
    "wide": wide_data,
    "100 discrete actions": lambda: discrete_data(500, actions=100),
    "one step": lambda: continuous_data(1),
    "equal returns": lambda: cart_data(lambda log: log.update(rewards=np.zeros(1770))),
}


@pytest.mark.parametrize("case", CASES)
def test_page_is_one_small_file_without_external_requests(case: str):
    statistics = statistics_of(CASES[case]())
    text = audit_page(statistics, apply_rules(statistics))
    page = ParsedPage(text)
    assert not re.search(r"https?:|//\w|<link|<script|<img|@import|url\((?!#)", text)
    assert len(text.encode()) < 1_000_000
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(page.ids)
    assert 'name="viewport" content="width=device-width' in text


@pytest.mark.parametrize("case", CASES)
def test_page_shows_every_line_and_every_finding(case: str):
    statistics = statistics_of(CASES[case]())
    words = ParsedPage(audit_page(statistics, apply_rules(statistics))).words
    for lines in describe(statistics).values():
        assert {*lines, *lines.values()} <= set(words)
    for finding in apply_rules(statistics):
        assert finding.message in words
        assert finding.remedy in words


def test_hostile_names_are_escaped_and_shown_unchanged():
    finding = Finding(level="note", name="x", message="<i>", remedy="&")
    text = audit_page(statistics_of(wide_data()), [finding])
    assert "<script" not in text
    assert {*HOSTILE, "Audit of test/<b>bold</b>-v0", "<i>", "&"} - {"a&b"} <= set(
        ParsedPage(text).words
    )


def titles(data: Transitions, *, short: bool = False) -> list[str]:
    return [plot.title for plot in audit_plots(statistics_of(data, short=short))]


def test_each_kind_of_data_has_its_plots():
    episodes = ["Returns of the episodes", "Lengths of the episodes"]
    episodes += ["Returns in the order of the log", "Rewards of the steps"]
    columns = "Observation columns, in standard deviations"
    neighbors = "Spread of actions among similar states"
    actions = "Actions, from bound to bound"
    assert titles(cart_data()) == [*episodes, actions, columns, neighbors]
    assert titles(cart_data(discrete=True)) == [*episodes, "Actions taken", columns, neighbors]
    assert titles(cart_data(), short=True) == [*episodes, actions, columns]


def test_plots_are_described_in_words_for_screen_readers():
    """Returns of three single-step episodes: 1, 2 and 6; the median is 2."""
    data = continuous_data(3)
    rows = data.rows.copy()
    rows[:, data.columns.reward] = [1, 2, 6]
    data = dataclasses.replace(data, rows=rows, ends=np.array([1, 2, 3]))
    text = audit_page(statistics_of(data), [])
    quantiles = "Minimum 1.0, 5% quantile 1.1, median 2.0, 95% quantile 5.6, maximum 6.0."
    assert f'<desc id="returns-desc">Histogram. {quantiles} Horizontal axis: return' in text
    assert text.count('role="img"') == text.count("</desc>") == 6


def print_to_text(function: Callable, *arguments, width: int = 80) -> str:
    file = io.StringIO()
    function(Terminal(file=file, width=width), *arguments)
    return file.getvalue()


def test_table_fits_a_terminal_of_80_columns():
    statistics = statistics_of(wide_data())
    text = print_to_text(print_audit, statistics, [])
    assert max(map(len, text.splitlines())) <= 80
    for lines in describe(statistics).values():
        assert all(label in text for label in lines)
    assert text.endswith("no findings\n")


def test_findings_follow_the_table_with_their_remedies():
    finding = Finding(level="warning", name="x", message="it leans", remedy="hold it")
    text = print_to_text(print_audit, statistics_of(cart_data()), [finding])
    assert text.endswith("warning  it leans\n         hold it\n")


def test_summary_is_at_most_six_lines_and_leaves_out_notes():
    statistics = statistics_of(cart_data(), short=True)
    levels = ("error", *["warning"] * 4, "note")
    findings = [
        Finding(level=level, name="x", message=f"problem {k}", remedy="")
        for k, level in enumerate(levels)
    ]
    assert print_to_text(print_summary, statistics, findings, width=200).splitlines() == [
        "data     test/cart-v0 · 1,770 transitions in 60 episodes · "
        "2 columns → 1 continuous dimension",
        "         behavior return 0 (score 50) · length 29.5 · 50% terminated",
        "error    problem 0",
        "warning  problem 1",
        "warning  problem 2",
        "         and 2 more in audit.json; audit.py shows all",
    ]
    assert len(print_to_text(print_summary, statistics, []).splitlines()) == 2
    assert "more" not in print_to_text(print_summary, statistics, findings[:3])
