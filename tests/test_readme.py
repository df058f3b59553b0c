"""Guarantee: every command in the README exists and its settings are accepted.

Each is composed and validated here; tests/commands/ runs the entry points.
"""

import re
import shlex
from pathlib import Path

import pytest

from offline_cql.config.command_line import ENTRY_POINTS, check

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines()]
INLINE = re.findall(r"`((?:python|make) [^`]+)`", README)
COMMANDS = sorted({line for line in LINES + INLINE if re.match(r"(python|make) ", line)})
MISTYPED = {"python train.py cql.alhpa=5"}  # the README shows its error
VARIABLE = {"ENV": "hopper", "QUALITY": "medium", "…": "x"}


def test_the_readme_names_both_make_targets_and_each_entry_point():
    assert {"make train", "make test"} <= set(COMMANDS)
    entry_points = {command.split()[1] for command in COMMANDS if command.startswith("python ")}
    assert {f"{entry_point}.py" for entry_point in ENTRY_POINTS} <= entry_points


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - MISTYPED))
def test_a_command_of_the_readme_is_accepted(command: str):
    for name, value in VARIABLE.items():
        command = command.replace(name, value)
    tool, first, *arguments = shlex.split(command)
    if tool == "make":
        assert re.search(rf"^{first}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    assert (ROOT / first).is_file()
    entry_point = Path(first).stem
    if entry_point in ENTRY_POINTS:
        check(arguments, schema=ENTRY_POINTS[entry_point], entry_point=ROOT / first)
