"""Guarantee: `python train.py` reaches the conservative gap as docs/tour.md says."""

import re
import subprocess
import sys
from pathlib import Path

from support.config import CONF

ROOT = CONF.parent
STACK = """
import os, runpy, sys, traceback
from pathlib import Path
from offline_cql import losses

root = Path(sys.argv[1])
ours = (root / "src", root / "train.py")

def print_stack(*args, **kwargs):
    for frame in traceback.extract_stack()[:-1]:
        if any(Path(frame.filename).is_relative_to(path) for path in ours):
            print("FRAME", Path(frame.filename).relative_to(root), frame.name, flush=True)
    os._exit(0)

losses.conservative_gap = print_stack
sys.argv = ["train.py", *sys.argv[2:]]
runpy.run_path(str(root / "train.py"), run_name="__main__")
"""


def test_the_tour_lists_the_calls_from_the_command_to_the_gap(tmp_path: Path, recorded: Path):
    page = (ROOT / "docs" / "tour.md").read_text()
    block = re.search(r"```chain\n(.*?)```", page, re.DOTALL)
    assert block is not None
    calls = [tuple(line.split()) for line in block[1].splitlines()]
    arguments = ["experiment=smoke", "hardware=cpu", f"run_dir={tmp_path / 'run'}"]
    process = subprocess.run(
        [sys.executable, "-c", STACK, str(ROOT), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    frames = [line.split()[1:] for line in process.stdout.splitlines() if "FRAME" in line]
    stack = [(path.removeprefix("src/offline_cql/"), function) for path, function in frames]
    assert calls == [*stack, ("losses.py", "conservative_gap")]


def test_every_file_of_the_tour_exists():
    page = (ROOT / "docs" / "tour.md").read_text()
    files = re.findall(r"\]\(\.\./([\w/.]+)\)", page)
    assert len(files) >= 8
    assert [file for file in files if not (ROOT / file).is_file()] == []
