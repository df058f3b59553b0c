"""Promise: the page and the table show every line and every finding, and need nothing else."""

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console
from support.builders import continuous_data, discrete_data
from support.logged import figures, logged
from support.pages import Checked

from offline_cql.audit.describe import lines
from offline_cql.audit.finding import Finding
from offline_cql.audit.page import page
from offline_cql.audit.plots import plots
from offline_cql.audit.rules import findings
from offline_cql.audit.table import print_audit, print_short
from offline_cql.transitions import Transitions


def wide(size: int = 2_000) -> Transitions:
    """40 observation columns, 14 dimensions of action, names that could break a page."""
    data = continuous_data(size, low=[-1.0] * 14, high=[1.0] * 14, observation_dim=40)
    names = ["<script>x</script>", "a&b", "$\\frac$", "$x$", "名前"]
    return dataclasses.replace(
        data,
        observation_names=tuple(names + [f"obs_{k}" for k in range(35)]),
        action_names=tuple(names + [f"act_{k}" for k in range(9)]),
        dataset_id="test/<b>bold</b>-v0",
    )


CASES = {
    "continuous": lambda: logged(),
    "discrete": lambda: logged(discrete=True),
    "wide": wide,
    "many choices": lambda: discrete_data(500, actions=100),
    "one step": lambda: continuous_data(1),
    "constant": lambda: logged(lambda log: log.update(rewards=np.zeros(1770))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_whole_small_and_stands_alone(case: str):
    found = figures(CASES[case]())
    text = page(found, findings(found))
    read = Checked(text)
    assert not re.search(r"https?:|//\w|<link|<script|<img|@import|url\((?!#)", text)
    assert len(text.encode()) < 1_000_000
    assert len(read.ids) == len(set(read.ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(read.ids)
    assert 'name="viewport" content="width=device-width' in text


@pytest.mark.parametrize("case", CASES)
def test_the_page_shows_every_line_and_every_finding(case: str):
    found = figures(CASES[case]())
    read = Checked(page(found, findings(found)))
    for group in lines(found).values():
        for line in group:
            assert line.label in read.words
            assert line.value in read.words
    for finding in findings(found):
        assert finding.message in read.words
        assert finding.remedy in read.words


def test_names_are_shown_as_they_are_and_run_nothing():
    found = figures(wide())
    text = page(found, [Finding("note", "x", "<i>", "&")])
    assert "<script" not in text
    assert {"<script>x</script>", "$x$", "$\\frac$", "名前", "test/<b>bold</b>-v0"} <= set(
        Checked(text).words
    )


def test_each_kind_of_data_has_its_plots():
    common = ["Returns of the episodes", "Lengths of the episodes"]
    common += ["Return in the order of the log", "Rewards of the steps"]
    last = ["Observation columns, in standard deviations"]
    last += ["Spread of actions among similar states"]
    assert list(plots(figures(logged()))) == [*common, "Actions, from bound to bound", *last]
    assert list(plots(figures(logged(discrete=True)))) == [*common, "Actions taken", *last]
    assert list(plots(figures(logged(), short=True)))[-1] == last[0]
    for svg in plots(figures(logged())).values():
        assert svg.startswith("<svg ")
        assert "viewBox" in svg[:200]
        assert " width=" not in svg[: svg.index(">")]


def printed(function, *arguments, width: int = 80) -> str:
    file = io.StringIO()
    function(Console(file=file, width=width), *arguments)
    return file.getvalue()


def test_the_table_fits_a_terminal_of_80_columns():
    found = figures(wide())
    text = printed(print_audit, found, [])
    assert max(map(len, text.splitlines())) <= 80
    for group in lines(found).values():
        for line in group:
            assert line.label in text
    assert "nothing was found wrong" in text


def test_findings_follow_the_table_with_their_remedies():
    text = printed(print_audit, figures(logged()), [Finding("warning", "x", "it leans", "hold it")])
    assert text.endswith("warning  it leans\n         hold it\n")


def test_the_short_form_is_six_lines_at_most_and_leaves_notes_out():
    found = figures(logged(), short=True)
    kinds = ("error", *["warning"] * 4, "note")
    wrong = [Finding(kind, "x", f"fault {k}", "") for k, kind in enumerate(kinds)]
    assert printed(print_short, found, wrong, width=200).splitlines() == [
        "data     test/cart-v0 · 1,770 transitions in 60 episodes · 2 numbers → 1 continuous",
        "         return 12.97 ± 4.89 (score 50) · length 29.5 · 50 % end terminal",
        "error    fault 0",
        "warning  fault 1",
        "warning  fault 2",
        "         and 2 more, in audit.json; python audit.py shows all",
    ]
    assert len(printed(print_short, found, []).splitlines()) == 2
    assert "more" not in printed(print_short, found, wrong[:3])
