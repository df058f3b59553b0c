"""Guarantee: the examples on the pages run, the names on them exist, and their links work."""

import dataclasses
import doctest
import importlib
import operator
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support.builders import attach, batch_of, build, continuous_data, discrete_data, settings

from offline_cql.callbacks.evaluation import evaluation_metrics, evaluation_rows
from offline_cql.config import AuditConfig, CollectConfig, EvaluateConfig, TrainConfig
from offline_cql.config.keys import key_exists, setting_keys
from offline_cql.ope.validation import validation_metrics
from offline_cql.simulation.evaluation import EpisodeResult, Score

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
CONTINUOUS, DISCRETE = continuous_data(), discrete_data()


def text(name: str) -> str:
    return (DOCS / name).read_text()


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next one of its depth or above."""
    depth = heading.index(" ")
    body = page.split(f"{heading}\n", 1)[1]
    return re.split(rf"(?m)^#{{1,{depth}}} ", body)[0]


# --- docs/algorithm.md ---------------------------------------------------------------------------

BLOCKS = re.findall(r"```python\n(.*?)```", text("algorithm.md"), re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{k}" for k in range(len(BLOCKS))])
def test_python_blocks_print_what_the_page_says(block):
    example = doctest.DocTestParser().get_doctest(block, {}, "algorithm.md", None, 0)
    assert example.examples, "a block without >>> would check nothing"
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)


def test_numbers_around_the_worked_example_are_those_it_prints():
    example = section(text("algorithm.md"), "### The worked example")
    block, prose = BLOCKS[1], re.sub(r"```.*?```", "", example, flags=re.S)
    numbers = re.findall(r"\d+\.\d{3,}", prose)
    steps = ["0.099", "0.094"]  # 0.1 of the gradient, printed with five decimals
    assert {"5.0591", "4.5591", "0.94260", "4.906"} <= set(numbers)
    assert [n for n in numbers if n not in block and n not in steps] == []


def test_every_code_line_names_functions_that_exist():
    code = re.findall(r"\*\*Code\*\*(.*?)\*\*Keys\*\*", text("algorithm.md"), re.S)
    named = [
        (target, name)
        for line in code
        for target, names in re.findall(r"\]\(\.\./src/(\S+?)\.py\)([^\[]*)", line)
        for name in re.findall(r"`([\w.]+)`", names)
    ]
    assert named
    for target, name in named:
        operator.attrgetter(name)(importlib.import_module(target.replace("/", ".")))


ENTRY_POINTS = (TrainConfig, AuditConfig, CollectConfig, EvaluateConfig)
SETTINGS = [key for entry_point in ENTRY_POINTS for key in setting_keys(entry_point)]
SECTIONS = "|".join(sorted({key.partition(".")[0] for key in SETTINGS if "." in key}))


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_every_setting_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{SECTIONS})\.(?!csv|json)\w+)(?:=\S+)?`", page.read_text())
    assert [key for key in named if not key_exists(key, SETTINGS)] == []


# --- docs/metrics.md -----------------------------------------------------------------------------

DOCUMENTED = re.findall(r"(?m)^### `(\w+/\w+)`$", text("metrics.md"))
KINDS = {  # column of the table in metrics.md: algorithm and data
    "cql, continuous": ("algorithm=cql", CONTINUOUS),
    "cql, discrete": ("algorithm=cql", DISCRETE),
    "bc, continuous": ("algorithm=bc", CONTINUOUS),
    "bc, discrete": ("algorithm=bc", DISCRETE),
}
FOOTNOTES = {
    "(a)": ("cql.penalty=expectation", "cql.expectation_over=policy"),
    "(b)": ("cql=lagrange",),
}


@cache
def columns_table() -> dict[str, dict[str, str]]:
    """Return metric name -> column -> its mark, from the table of metrics.md."""
    table = section(text("metrics.md"), "## Columns of metrics.csv")
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return {row[0].strip("`"): dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def metrics_of(kind: str, *overrides: str) -> set[str]:
    """Return the names of the metrics of one update of this kind of agent."""
    algorithm, data = KINDS[kind]
    agent = build(settings(algorithm, "log_every=1", *overrides), data.spaces)
    optimizer = attach(agent)
    agent.update(batch_of(data, range(8)), optimizer)
    return set(agent.last_metrics) | {"time/updates_per_second"}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_each_combination_are_those_in_the_table(kind):
    marks = {name: row[kind] for name, row in columns_table().items()}
    assert metrics_of(kind) == {n for n, mark in marks.items() if mark and "(b)" not in mark}


@pytest.mark.parametrize("kind", ["cql, continuous", "cql, discrete"])
def test_the_lagrange_form_adds_what_footnote_b_marks(kind):
    marked = {name for name, row in columns_table().items() if "(b)" in row[kind]}
    assert metrics_of(kind, *FOOTNOTES["(b)"]) - metrics_of(kind) == marked


def test_the_penalty_over_policy_actions_drops_what_footnote_a_marks():
    kind = "cql, continuous"
    marked = {name for name, row in columns_table().items() if "(a)" in row[kind]}
    assert metrics_of(kind) - metrics_of(kind, *FOOTNOTES["(a)"]) == marked


def test_every_metric_has_a_heading_once_and_every_heading_is_a_metric():
    score = Score(
        episodes=1, return_mean=0.0, return_std=0.0, length_mean=1.0, normalized_score=0.0
    )
    expected = sorted(
        [*columns_table(), *evaluation_metrics(score), *validation("cql, continuous")]
    )
    assert sorted(DOCUMENTED) == expected


def validation(kind: str) -> list[str]:
    """Return the metrics of validation.csv for this kind of agent, in order."""
    algorithm, data = KINDS[kind]
    agent = build(settings(algorithm), data.spaces)
    metrics = agent.validation_metrics(batch_of(data, range(8)))
    return list(validation_metrics(metrics, torch.zeros(8), best=0.0))


def test_agents_without_critics_or_bounds_have_fewer_validation_metrics():
    order = [name for name in DOCUMENTED if name.startswith("validation/")]
    assert sorted(validation("cql, continuous")) == sorted(order)
    assert validation("bc, continuous") == order[:3]
    assert validation("bc, discrete") == order[:2]
    assert set(validation("cql, discrete")) == set(order) - {"validation/saturation"}


def test_columns_of_evaluation_csv_and_keys_of_evaluate_json_are_named():
    row = evaluation_rows(1, [EpisodeResult(episode=0, seed=0, return_=0.0, length=1)])[0]
    intro = section(text("metrics.md"), "## Rollouts").partition("###")[0]
    assert [name for name in row if f"`{name}`" not in intro] == []
    closing = section(text("metrics.md"), "## result.json").rpartition("`evaluate.json`")[2]
    fields = [field.name for field in dataclasses.fields(Score)]
    assert [name for name in fields if f"`{name}`" not in closing] == []


# --- All pages -----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_relative_links_lead_to_existing_files_and_headings(page):
    content = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    broken = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", content):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_no_page_names_an_absolute_path(page):
    assert re.findall(r"/(?:work|root|home)/\S*", page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_blocks_and_tables_are_whole(page):
    lines = page.read_text().splitlines()
    assert sum(line.startswith("```") for line in lines) % 2 == 0
    for line, next_line in pairwise(lines):
        if line.startswith("|") and next_line.startswith("|"):
            cells = [re.sub(r"`[^`]*`", "", row).count("|") for row in (line, next_line)]
            assert cells[0] == cells[1], next_line
