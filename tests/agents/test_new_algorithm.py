"""Guarantee: the algorithm that CONTRIBUTING.md adds, in four files, trains.

The test copies the project, writes the page's blocks into the copy, and runs its train.py.
"""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "src/offline_cql/config/algorithms/__init__.py"


def page_blocks(language: str) -> list[str]:
    """Return the section's code blocks in a language, without indentation."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## A new algorithm")[1]
    section = section.split("\n## ")[0]
    pattern = rf"^ *```{language}\n(.*?)^ *```"
    blocks = re.findall(pattern, section, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def apply_diff(text: str, diff: str) -> str:
    """Replace each run of removed lines by the run of added ones after it."""
    pairs = re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE)
    for removed, added in pairs:
        before, after = (
            re.sub(r"^[-+]", "", part, flags=re.MULTILINE) for part in (removed, added)
        )
        assert text.count(before) == 1
        text = text.replace(before, after)
    return text


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project with the page's algorithm."""
    for folder in ("src", "conf", "data"):
        if (ROOT / folder).exists():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "train.py", tmp_path)
    files = [*page_blocks("python"), *page_blocks("yaml")]
    assert len(files) == 3
    for block in files:
        header, content = block.split("\n", 1)
        path = tmp_path / header.removeprefix("# ")
        assert not path.exists()
        path.write_text(content)
    (diff,) = page_blocks("diff")
    registry = tmp_path / REGISTRY
    registry.write_text(apply_diff(registry.read_text(), diff))
    return tmp_path


def run_train(project: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.path.insert(0, {str(project / 'src')!r}); import runpy; "
        "runpy.run_path('train.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "algorithm=sarsa", *overrides]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


SMALL = ("updates=20", "log_every=10", "logger=csv", "hardware=cpu", "evaluation=none")


def test_the_algorithm_of_contributing_trains(project: Path, recorded: Path):
    from support.train import SIZE

    size = f"dataset.size={SIZE}"
    result = run_train(project, "env=cartpole", size, "batch_size=32", "run_dir=run", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "  td " in result.stderr
    assert '"status": "finished"' in (project / "run" / "result.json").read_text()
    header, *rows = (project / "run" / "metrics.csv").read_text().splitlines()
    assert "critic/td_loss" in header
    assert len(rows) == 2
    unused = run_train(project, "env=cartpole", size, "cql.alpha=3", "run_dir=other", *SMALL)
    assert unused.returncode == 2
    assert "cql.alpha=3 has no effect: algorithm=sarsa has no penalty" in unused.stderr
