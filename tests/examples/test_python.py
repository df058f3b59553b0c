"""Guarantee: the examples of the Python API run, from any folder."""

import json
from pathlib import Path

import pytest
from support.config import ROOT, run_python

EXAMPLES = ROOT / "examples"


def output_of(*arguments: str, cwd: Path) -> str:
    """Return what `python <arguments>` prints."""
    process = run_python(*arguments, cwd=cwd)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_an_agent_learns_in_a_trainer_of_ones_own(tmp_path: Path):
    """The best action is the first number of the observation."""
    lines = output_of(str(EXAMPLES / "own_trainer.py"), cwd=tmp_path).splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        f"update {n}" for n in (100, 200, 300, 400)
    ]
    low, middle, high = (float(line.rpartition(" ")[2]) for line in lines[4:])
    assert low < middle - 0.2
    assert middle < high - 0.2


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path):
    notebook = json.loads((EXAMPLES / "python_api.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not c.get("outputs") for c in notebook["cells"])
    output = output_of("-c", "\n".join([*cells, "print(run.result)"]), cwd=tmp_path)
    assert "'status': 'finished', 'updates': 500" in output
    assert "policy " in output
    assert "ship" in output.lower()
