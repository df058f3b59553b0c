"""Guarantee: python report.py prints the recommendation first, then the runs, writes the page,
tables and plots, and skips folders that it cannot read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.config import ROOT, compose_config, run_entry_point, settings
from support.run_dirs import write_grid, write_run

from offline_cql.commands.report import report
from offline_cql.errors import ConfigError
from offline_cql.io import read_json

FILES = {"report.html", "report.md", "report.tex", "report.json"}


def run_report(out: Path, runs: Path, *overrides: str) -> dict:
    report(compose_config(f"runs={runs}", f"out={out}", *overrides, entry_point="report"))
    return read_json(out / "report.json")


def test_the_recommendation_is_printed_first(tmp_path: Path):
    write_grid(tmp_path / "runs")
    process = run_entry_point("report", "runs=runs", "out=out", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert lines[:2] == ["cart · sim/cart/mixed-v0", "  Ship alpha=5 after 100 updates, seed 1"]
    first = lines[: lines.index("")]
    assert first[-2:] == [
        "  runs/alpha5-seed1/checkpoints/100.ckpt",
        f"  python {ROOT}/export.py run=runs/alpha5-seed1 checkpoint=100",
    ]
    assert max(len(line) for line in lines if line.startswith(("│", "┃", "└"))) <= 80
    assert sum("alpha=20" in line for line in lines if line.startswith("│")) == 2
    assert lines[-4:] == [f"file    out/{name}" for name in ("report.html", "report.md")] + [
        f"file    out/{name}" for name in ("report.tex", "report.json")
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES


def test_report_json_contains_the_choice_and_its_reasons(tmp_path: Path):
    content = run_report(tmp_path / "out", write_grid(tmp_path / "runs"))
    (selection,) = content["selections"].values()
    assert selection["ship"]
    assert selection["chosen"]["alpha"] == 5
    assert selection["chosen"]["estimate"]["low"] == 61
    assert selection["too_small"].keys() == {"0"}
    assert selection["too_large"].keys() == {"20"}
    assert len(selection["grid_points"]) == 6
    assert len(content["runs"]) == 8
    assert [each["method"] for each in content["aggregates"]] == [
        "alpha=0",
        "alpha=5",
        "alpha=20",
        "bc",
    ]


def test_report_json_is_valid_where_values_are_not_finite(tmp_path: Path):
    nan = float("nan")
    runs = tmp_path / "runs"
    write_run(runs / "run", bounds={100: (nan, nan), 200: (nan, 5)}, returns={200: [nan]})
    run_report(tmp_path / "out", runs)

    def refused(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=refused)


def test_the_thresholds_are_settings(tmp_path: Path):
    """With every share allowed alpha=0 has the largest bound; its estimate stays below the best."""
    runs = write_grid(tmp_path / "runs")
    content = run_report(tmp_path / "out", runs, "above_best_share=1", "bc_margin=10")
    (selection,) = content["selections"].values()
    assert selection["chosen"]["alpha"] == 0
    assert selection["too_large"].keys() == {"0", "5", "20"}


def test_unreadable_and_unfinished_runs_are_listed_and_the_rest_is_reported(tmp_path: Path):
    runs = write_grid(tmp_path / "runs")
    for name, file in (("going-on", "result.json"), ("no-config", "config.yaml")):
        (write_run(runs / name) / file).unlink()
    write_run(runs / "failed", status="failed")
    half = write_run(runs / "half") / "validation.csv"
    half.write_text(half.read_text()[:-9])
    process = run_entry_point("report", f"runs={runs}", f"out={tmp_path}/out")
    assert (process.returncode, process.stderr) == (0, "")
    skipped = [line for line in process.stdout.splitlines() if line.startswith("left out")]
    assert skipped == [
        f"left out {runs}/failed: status failed: failed for a reason",
        f"left out {runs}/going-on: result.json is missing: the run is in progress or was killed",
        f"left out {runs}/half: validation.csv is truncated in line 3",
        f"left out {runs}/no-config: config.yaml is missing",
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(line.split(": ")[-1] in page for line in skipped)
    assert len(read_json(tmp_path / "out" / "report.json")["runs"]) == 8


def test_a_report_without_a_readable_run_is_written_too(tmp_path: Path):
    (write_run(tmp_path / "runs" / "run") / "result.json").unlink()
    content = run_report(tmp_path / "out", tmp_path / "runs")
    assert (content["runs"], len(content["left_out"])) == ([], 1)


def test_a_report_folder_is_not_listed_as_a_run(tmp_path: Path):
    write_run(tmp_path / "run")
    run_report(tmp_path / "reports" / "one", tmp_path)
    content = run_report(tmp_path / "reports" / "two", tmp_path)
    assert (len(content["runs"]), content["left_out"]) == (1, [])


def test_a_folder_without_runs_is_a_one_line_error(tmp_path: Path):
    process = run_entry_point("report", f"runs={tmp_path}/none", f"out={tmp_path}/out")
    assert process.returncode == 2
    assert (
        process.stderr
        == f"error: runs={tmp_path}/none does not exist; train.py creates run folders in outputs/\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("above_best_share=2", "above_best_share=2 must be >= 0 and <= 1"),
        ("bc_margin=-1", "bc_margin=-1 must be >= 0"),
        ("resamples=5", "resamples=5 must be >= 100"),
    ],
)
def test_settings_out_of_range(override: str, message: str):
    with pytest.raises(ConfigError) as error:
        settings("runs=x", override, entry_point="report")
    assert str(error.value).startswith(message)


def test_nothing_that_trains_is_loaded(tmp_path: Path):
    """torch alone takes seconds; a report over run folders needs none of it."""
    write_grid(tmp_path / "runs")
    code = (
        "import sys; sys.path.insert(0, 'tests'); from support.config import compose_config;"
        "from offline_cql.commands.report import report;"
        f"report(compose_config('runs={tmp_path}/runs', 'out={tmp_path}/out',"
        " entry_point='report'));"
        "print(sorted({'torch', 'pytorch_lightning', 'gymnasium', 'minari'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_sixty_runs_are_read(tmp_path: Path):
    for task in range(7):
        write_grid(tmp_path / "runs" / str(task))
        for path in (tmp_path / "runs" / str(task)).glob("*/metadata.json"):
            path.write_text(path.read_text().replace("aaaa", f"{task:04d}"))
    shutil.copytree(tmp_path / "runs" / "0", tmp_path / "runs" / "again")
    process = run_entry_point("report", f"runs={tmp_path}/runs", f"out={tmp_path}/out")
    assert process.returncode == 0
    assert len(read_json(tmp_path / "out" / "report.json")["runs"]) == 64
