"""The documents say what the code does: examples run, names exist, links lead somewhere."""

import ast
import dataclasses
import doctest
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support.builders import attach, batch_of, build, continuous_data, discrete_data, settings

from offline_cql.callbacks.evaluation import evaluation_metrics, evaluation_rows
from offline_cql.config import AuditConfig, CollectConfig, EvaluateConfig, TrainConfig
from offline_cql.config.validation import is_known, keys
from offline_cql.ope.validation import validation_metrics
from offline_cql.simulation.evaluation import EpisodeResult, Score

ROOT = Path(__file__).resolve().parent.parent
DOCS, PACKAGE = ROOT / "docs", ROOT / "src" / "offline_cql"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
GROUPS = "critic|actor|cql|loss|gradient_norm|time|evaluation|validation"
CONTINUOUS, DISCRETE = continuous_data(), discrete_data()


def text(name: str) -> str:
    return (DOCS / name).read_text()


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its depth or above."""
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


def functions(path: Path) -> set[str]:
    """Names of a module's functions and classes, and Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return names


def test_every_code_line_names_functions_that_exist():
    code = re.findall(r"\*\*Code\*\*(.*?)\*\*Keys\*\*", text("algorithm.md"), re.S)
    missing, found = [], 0
    for line in code:
        for target, names in re.findall(r"\]\((\S+?\.py)\)([^\[]*)", line):
            path = (DOCS / target).resolve()
            for name in re.findall(r"`([\w.]+)`", names):
                found += 1
                if name not in functions(path):
                    missing.append(f"{target}: {name}")
    assert not missing
    assert len(code) >= 12
    assert found >= 30


ENTRY_POINTS = (TrainConfig, AuditConfig, CollectConfig, EvaluateConfig)
SETTINGS = [key for entry_point in ENTRY_POINTS for key in keys(entry_point)]
SECTIONS = "|".join(sorted({key.partition(".")[0] for key in SETTINGS if "." in key}))


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_every_setting_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{SECTIONS})\.(?!csv|json)\w+)(?:=\S+)?`", page.read_text())
    assert [key for key in named if not is_known(key, SETTINGS)] == []


# --- docs/metrics.md -----------------------------------------------------------------------------

DOCUMENTED = re.findall(r"(?m)^### `(\w+/\w+)`$", text("metrics.md"))
KINDS = {  # a column of the table in metrics.md: how to produce it
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
    """Metric name -> column -> its mark, from the table of metrics.md."""
    table = section(text("metrics.md"), "## Columns of metrics.csv")
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return {row[0].strip("`"): dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def measured(kind: str, *overrides: str) -> set[str]:
    """The metrics that one measured update of this kind of agent yields."""
    algorithm, data = KINDS[kind]
    agent = build(settings(algorithm, "log_every=1", *overrides), data.spaces)
    optimizer = attach(agent)
    agent.update(batch_of(data, range(8)), optimizer)
    return set(agent.last_metrics) | {"time/updates_per_second"}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_each_combination_are_those_in_the_table(kind):
    marks = {name: row[kind] for name, row in columns_table().items()}
    assert measured(kind) == {n for n, mark in marks.items() if mark and "(b)" not in mark}


@pytest.mark.parametrize("kind", ["cql, continuous", "cql, discrete"])
def test_the_lagrange_form_adds_what_footnote_b_marks(kind):
    marked = {name for name, row in columns_table().items() if "(b)" in row[kind]}
    assert measured(kind, *FOOTNOTES["(b)"]) - measured(kind) == marked


def test_the_penalty_over_policy_actions_drops_what_footnote_a_marks():
    kind = "cql, continuous"
    marked = {name for name, row in columns_table().items() if "(a)" in row[kind]}
    assert measured(kind) - measured(kind, *FOOTNOTES["(a)"]) == marked


def test_every_metric_has_a_heading_once_and_every_heading_is_a_metric():
    score = Score(
        episodes=1, return_mean=0.0, return_std=0.0, length_mean=1.0, normalized_score=0.0
    )
    expected = sorted(
        [*columns_table(), *evaluation_metrics(score), *validation("cql, continuous")]
    )
    assert sorted(DOCUMENTED) == expected


def validation(kind: str) -> list[str]:
    """The metrics of validation.csv for this kind of agent, in their order."""
    algorithm, data = KINDS[kind]
    agent = build(settings(algorithm), data.spaces)
    figures = agent.validation_metrics(batch_of(data, range(8)))
    return list(validation_metrics(figures, torch.zeros(8), best=0.0))


def test_agents_without_critics_or_bounds_have_the_validation_metrics_that_the_page_gives_them():
    order = [name for name in DOCUMENTED if name.startswith("validation/")]
    assert sorted(validation("cql, continuous")) == sorted(order)
    assert validation("bc, continuous") == order[:3]
    assert validation("bc, discrete") == order[:2]
    assert set(validation("cql, discrete")) == set(order) - {"validation/saturation"}


def test_every_metric_name_in_the_source_is_documented():
    """Names in branches that no test here reaches would be found by reading the source."""
    named = {
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(rf"(?:{GROUPS})/\w+", node.value)
    }
    assert len(named) >= 15
    assert named - set(DOCUMENTED) == set()


def test_every_metric_says_what_is_healthy_and_what_is_not():
    page = text("metrics.md")
    for name in DOCUMENTED:
        described = section(page, f"### `{name}`")
        assert re.search(r"(?m)^- Healthy: .+\n- Unhealthy: .+", described), name


def test_keys_of_result_json_are_those_in_the_table():
    tree = ast.parse((PACKAGE / "commands" / "fit.py").read_text())
    written = [
        [key.value for key in node.value.keys]
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        if isinstance(node.targets[0], ast.Name) and node.targets[0].id == "result"
    ]
    table = section(text("metrics.md"), "## result.json")
    assert written == [re.findall(r"(?m)^\| `(\w+)` \|", table)]


def test_columns_of_evaluation_csv_and_figures_of_evaluate_json_are_named():
    row = evaluation_rows(1, [EpisodeResult(episode=0, seed=0, return_=0.0, length=1)])[0]
    intro = section(text("metrics.md"), "## Rollouts").partition("###")[0]
    assert [name for name in row if f"`{name}`" not in intro] == []
    closing = section(text("metrics.md"), "## result.json").rpartition("`evaluate.json`")[2]
    figures = [field.name for field in dataclasses.fields(Score)]
    assert [name for name in figures if f"`{name}`" not in closing] == []


# --- docs/design.md ------------------------------------------------------------------------------


def imported_rooms(path: Path) -> set[str]:
    """The rooms of ours that a module imports from, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {m.split(".")[1] for m in modules if m.startswith("offline_cql.")}
    return rooms


def test_imports_keep_the_order_that_the_design_states():
    block = re.search(r"```imports\n(.*?)```", text("design.md"), re.S)
    assert block
    rank = {
        room.strip(): number
        for number, line in enumerate(block[1].splitlines())
        for room in line.split("|")
    }
    wrong, found = [], set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        found.add(room)
        others = imported_rooms(path) - {room}
        wrong += [f"{path.name} imports {other}" for other in others if rank[other] >= rank[room]]
    assert wrong == []
    assert found == set(rank)


def test_every_decision_has_context_cost_and_a_date_and_is_listed():
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert pages
    for page in pages:
        content = page.read_text()
        assert re.search(r"(?m)^20\d\d-\d\d-\d\d$", content), page.name
        for part in ("Context", "Decision", "Cost"):
            assert part in content, f"{page.name} says nothing about its {part}"
        assert f"decisions/{page.name}" in text("design.md")


# --- All pages -----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_relative_links_lead_to_files_and_headings_that_exist(page):
    content = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    broken = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", content):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_no_page_holds_a_path_of_one_machine(page):
    assert re.findall(r"/(?:work|root|home)/\S*", page.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_blocks_and_tables_are_whole(page):
    lines = page.read_text().splitlines()
    assert sum(line.startswith("```") for line in lines) % 2 == 0
    for line, following in pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            cells = [re.sub(r"`[^`]*`", "", row).count("|") for row in (line, following)]
            assert cells[0] == cells[1], following
