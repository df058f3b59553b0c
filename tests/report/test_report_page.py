"""Guarantee: page and tables show the whole recommendation; the page needs no other file."""

import re
from pathlib import Path

import pytest
from support.config import CONF
from support.pages import ParsedPage
from support.run_dirs import write_grid, write_run

from offline_cql.report.aggregate import too_few
from offline_cql.report.load_runs import load_runs
from offline_cql.report.messages import sentences
from offline_cql.report.metrics import HINTS
from offline_cql.report.model_selection import Limits
from offline_cql.report.summary import Summary, summarize
from offline_cql.report.write import latex, markdown, write

LIMITS = Limits(above_best_share=0.05, bc_margin=0.1)
SAMPLING = {"resamples": 200, "seed": 0}
DOCS = CONF.parent / "docs"
DOCUMENTED = re.findall(r"(?m)^### `(\S+)`$", (DOCS / "metrics.md").read_text())


def summary_of(root: Path) -> Summary:
    return summarize(load_runs(str(root)), LIMITS, **SAMPLING)


def write_page(root: Path, out: Path, docs: Path | None = None) -> str:
    out.mkdir()
    write(out, summary_of(root), LIMITS, docs=docs, **SAMPLING)
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a grid to the folder `out`, once; return the folder above it."""
    root = tmp_path_factory.mktemp("grid")
    write_page(write_grid(root / "runs"), root / "out")
    return root


@pytest.fixture(scope="module")
def text(grid: Path) -> str:
    """Return the page of the grid."""
    return (grid / "out" / "report.html").read_text()


def write_several(root: Path) -> None:
    """Write two tasks, a name that could break a page, a broken run and data with a warning."""
    write_grid(root / "<b>one&two</b>")
    for path in root.rglob("ope.json"):
        path.write_text(path.read_text().replace("the data cover", "<i>the data cover"))
    write_run(root / "pole", env="pole <i>", returns={200: [1.0]}, score=3.0)
    finding = {"level": "warning", "name": "x", "message": "<i>it leans", "remedy": "hold & wait"}
    note = {"level": "note", "name": "y", "message": "a note only", "remedy": "none"}
    write_run(root / "more", env="pole <i>", seed=1, findings=(finding, note))
    (root / "broken").mkdir()
    (root / "broken" / "metrics.csv").touch()


def write_wild(root: Path) -> None:
    """Write values that are not finite, and a run that diverged."""
    nan = {"validation/td_error": (float("nan"), float("inf")), "validation/gap": (1e30, -1e30)}
    bounds = {100: (float("nan"), float("inf")), 200: (-1e12, 1e12)}
    for alpha in (0, 1):
        write_run(
            root / f"{alpha}", alpha=alpha, bounds=bounds, validation=nan, returns={100: [1.0]}
        )
    write_run(root / "gone", alpha=0, status="diverged", validation=nan)


CASES = {
    "several": write_several,
    "without validation": lambda root: (write_run(root / "run") / "validation.csv").unlink(),
    "cloning": lambda root: write_run(root / "run", algorithm="bc"),
    "wild": write_wild,
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_well_formed_small_and_stands_alone(case: str, tmp_path: Path):
    CASES[case](tmp_path / "runs")
    text = write_page(tmp_path / "runs", tmp_path / "out")
    read = ParsedPage(text)
    assert not re.search(r"https?:|<link|<script|<img|@import|url\((?!#)", text)
    assert len(text.encode()) < 1_500_000
    assert len(read.ids) == len(set(read.ids))
    assert set(re.findall(r'(?:url\(#|<use[^>]* href="#)([^)"]+)', text)) <= set(read.ids)
    assert 'name="viewport" content="width=device-width' in text
    assert "<b>one" not in text
    assert "<i>" not in text


def test_the_page_shows_recommendations_findings_and_skipped_folders(tmp_path: Path):
    write_several(tmp_path / "runs")
    read = ParsedPage(write_page(tmp_path / "runs", tmp_path / "out"))
    summary = summary_of(tmp_path / "runs")
    for selection in summary.selections.values():
        assert set(sentences(selection)) <= set(read.words)
    assert read.words.count("<i>it leans") == 1
    assert not any("a note only" in text for text in read.words)
    assert "config.yaml is missing" in read.words
    assert {"Return in the simulator", "The effect of alpha"} <= set(read.words)
    assert "Estimates against simulated returns" in read.words


def test_the_same_runs_give_the_same_page(grid: Path, text: str):
    assert write_page(grid / "runs", grid / "our") == text


def test_the_recommendation_comes_first(text: str):
    assert text.index("Ship alpha=5") < text.index("<svg") < text.index(" runs</summary>")


def test_links_lead_to_the_runs_and_the_documentation(grid: Path):
    out = grid / "reports" / "one"
    out.parent.mkdir()
    read = ParsedPage(write_page(grid / "runs", out, DOCS))
    assert all(not link.startswith("/") for link in read.links)
    targets = [(out / link.partition("#")[0]).resolve() for link in read.links]
    assert grid / "runs" / "alpha5-seed0" in targets
    assert grid / "runs" / "alpha5-seed1" / "checkpoints" / "100.ckpt" in targets
    assert all(target.exists() for target in targets)
    anchors = {link.partition("#")[2] for link in read.links if "metrics.md" in link}
    assert len(anchors) >= 8
    assert anchors <= {heading.replace("/", "") for heading in DOCUMENTED}


def test_without_documents_metrics_are_named_and_not_linked(text: str):
    read = ParsedPage(text)
    assert "validation/td_error" in read.words
    assert not any("docs" in link or "metrics" in link for link in read.links)


def test_each_metric_of_a_plot_is_explained_and_documented(text: str):
    named = dict(re.findall(r'<abbr title="([^"]+)">(\w+/\w+)</abbr>', text))
    assert set(named.values()) == set(HINTS)
    assert set(HINTS) <= set(DOCUMENTED)


def test_each_plot_has_a_title_and_a_description_for_screen_readers(text: str):
    heads = re.findall(r"<svg [^>]*>", text)
    assert len(heads) == 10
    for head in heads:
        assert 'role="img"' in head
        title, description = re.findall(r'aria-labelledby="(\S+) (\S+)"', head)[0]
        assert f'<title id="{title}">' in text
        assert re.search(f'<desc id="{re.escape(description)}">[^<]{{20,}}</desc>', text)


def test_each_plot_is_a_png_too(grid: Path, text: str):
    images = sorted((grid / "out").glob("*.png"))
    assert len(images) == text.count("<svg ") == 10
    stem = "1-cart-sim-cart-mixed-v0"
    names = {image.stem.removeprefix(f"{stem}-") for image in images}
    assert names == {
        *("returns", "bounds", "alpha", "estimates", "iqm", "profiles"),
        *("td_error", "action_distance", "q_logged", "above_best_share"),
    }
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)


def test_without_a_simulator_there_are_no_plots_of_returns(tmp_path: Path):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"{seed}", alpha=seed, bounds={100: (60, 70)})
    text = write_page(tmp_path / "runs", tmp_path / "out")
    stems = {image.stem.rpartition("-")[2] for image in (tmp_path / "out").glob("*.png")}
    validation = {"td_error", "action_distance", "q_logged", "above_best_share"}
    assert stems == {"bounds", "alpha", *validation}
    assert "No run has a normalized score" in text


# --- Over tasks ----------------------------------------------------------------------------------


def test_scores_are_aggregated_over_tasks_and_seeds(tmp_path: Path):
    """alpha=5: 50 and 51 in one task, 10 and 90 in the other: the middle two of four, 50.5."""
    write_grid(tmp_path / "cart")
    for seed, score in ((0, 10.0), (1, 90.0)):
        write_run(tmp_path / f"pole{seed}", env="pole", seed=seed, score=score)
    by_method = {row.method: row for row in summary_of(tmp_path).aggregates}
    assert list(by_method) == ["alpha=0", "alpha=5", "alpha=20", "bc"]
    five = by_method["alpha=5"]
    assert five.iqm is not None
    assert five.mean is not None
    assert five.iqm[0] == 50.5
    assert five.mean == (50.25, 30.0, 70.5)
    assert (by_method["bc"].iqm, by_method["bc"].runs) == ((20, 20, 20), 2)


def test_with_one_run_per_method_the_page_states_why_there_is_no_aggregate(tmp_path: Path):
    write_run(tmp_path / "runs" / "a", alpha=1, score=10.0)
    write_run(tmp_path / "runs" / "b", alpha=5, score=20.0)
    summary = summary_of(tmp_path / "runs")
    reason = "One run per method: intervals need at least two tasks or seeds"
    assert too_few(summary.aggregates) == reason
    text = write_page(tmp_path / "runs", tmp_path / "out")
    assert reason in text
    assert "Performance profiles" not in text


# --- Tables --------------------------------------------------------------------------------------


def test_actions_of_the_recommended_policy_are_shown_beside_the_data(tmp_path: Path):
    shares = [{"name": "stop <b>", "logged": 0.75, "chosen": 0.25},
              {"name": "go", "logged": 0.25, "chosen": 0.75}]  # fmt: skip
    region = {"conditions": ["speed > 2"], "share": 0.5, "agreement": 0.0, "logged": "stop <b>",
              "chosen": "go", "pair_share": 1.0}  # fmt: skip
    agreed = region | {"agreement": 1.0, "logged": None, "chosen": None, "pair_share": 0.0}
    actions = {"states": 40, "agreement": 0.5, "actions": shares, "regions": [region, agreed]}
    for alpha in (1.0, 5.0):
        bounds = {200: (60.0 + alpha, 80.0)}
        write_run(tmp_path / "runs" / f"{alpha}", alpha=alpha, bounds=bounds, actions=actions)
    page = write_page(tmp_path / "runs", tmp_path / "out")
    heading = "<h3>Actions in 40 validation states: 50% equal the logged ones</h3>"
    assert page.count(heading) == 1
    assert "go instead of stop &lt;b&gt; (100%)" in page
    assert "stop <b>" not in page
    text = markdown(summary_of(tmp_path / "runs"))
    assert "| stop <b> | 75% | 25% |" in text
    assert "| speed > 2 | 50% | 0% | go instead of stop <b> (100%) |" in text


def test_continuous_actions_of_the_recommended_policy_are_shown(tmp_path: Path):
    spread = {"mean": 1.0, "std": 0.5, "low": 0.25, "high": 1.75}
    dose = {"name": "dose", "logged": spread, "chosen": spread | {"mean": 1.5}, "difference": 0.75}
    region = {"conditions": [], "share": 1.0, "distance": 1.5, "dimension": "dose", "shift": 0.5}
    actions = {"states": 40, "dimensions": [dose], "regions": [region]}
    bounds = {200: (60.0, 80.0)}
    write_run(tmp_path / "run", bounds=bounds, actions=actions)
    text = markdown(summary_of(tmp_path))
    assert "| dose | data | 1.0 ± 0.5 | 0.25 … 1.75 |  |" in text
    assert "|  | policy | 1.5 ± 0.5 | 0.25 … 1.75 | 0.75 |" in text
    assert "| all | 100% | 1.5 | dose: +0.5 |" in text


def test_markdown_has_the_sentences_and_well_formed_tables(tmp_path: Path):
    write_several(tmp_path)
    summary = summary_of(tmp_path)
    text = markdown(summary)
    assert "- Ship alpha=5 after 100 updates, seed 1\n" in text
    for heading in ("Recommendation", "Normalized scores of the last policies", "Left out"):
        assert f"\n## {heading}\n\n| " in text
    for task in summary.tasks:
        assert f"\n## Runs: {task.name}\n\n| " in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "cql.alpha=20" in text
    assert "gamma" not in text  # the same in all runs


def test_latex_has_as_many_cells_as_columns(tmp_path: Path):
    write_several(tmp_path)
    text = latex(summary_of(tmp_path))
    for align, body in re.findall(r"tabular}{(\w+)}(.*?)\\end{tabular}", text, re.S):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        cells = {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows}
        assert cells == {len(align)}
