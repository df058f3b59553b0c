"""Guarantee: a module imports only from packages above its own in docs/design.md.

The late imports inside functions count too.
"""

import ast
import re
from pathlib import Path

import pytest
from support.config import CONF

SOURCE = CONF.parent / "src" / "offline_cql"
PAGE = (CONF.parent / "docs" / "design.md").read_text()
ORDER = re.findall(r"```imports\n(.*?)```", PAGE, re.S)[0].strip().splitlines()
LEVEL = {name: level for level, line in enumerate(ORDER) for name in line.split(" | ")}
MODULES = sorted(SOURCE.rglob("*.py"))


def named(path: Path) -> str:
    """offline_cql.commands.multirun for src/offline_cql/commands/multirun.py."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere, ours down to the submodule."""
    found = set()
    known = {named(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            assert node.module is not None
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= deeper or {node.module}
    return found


def own(path: Path) -> set[str]:
    return {name for name in imported(path) if name.partition(".")[0] == "offline_cql"}


def package(name: str) -> str:
    """runner for offline_cql.commands.multirun."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_packages_above(path: Path):
    name = named(path)
    if name == "offline_cql":
        assert own(path) == set()
        return
    for other in own(path):
        if package(other) != package(name):
            assert LEVEL[package(other)] < LEVEL[package(name)], f"{name} imports {other}"


def test_no_module_imports_itself_in_a_circle():
    needs = {named(path): own(path) for path in MODULES}
    done: set[str] = set()
    while ready := {name for name, needed in needs.items() if needed - {name} <= done} - done:
        done |= ready
    assert done == set(needs), f"in a circle: {sorted(set(needs) - done)}"


def test_the_arithmetic_imports_torch_and_nothing_of_ours():
    assert imported(SOURCE / "losses.py") <= {"math", "torch", "torch.nn", "torch.nn.functional"}


def reachable(name: str) -> set[str]:
    """Everything of ours that importing a module brings along."""
    paths = {named(path): path for path in MODULES}
    found, waiting = set(), {name}
    while waiting:
        module = waiting.pop()
        found.add(module)
        parents = {module.rpartition(".")[0]} & set(paths)
        waiting |= (own(paths[module]) | parents) - found
    return found - {name}


@pytest.mark.parametrize("name", ["summary", "multirun", "report"])
def test_reporting_reads_run_folders_and_imports_nothing_that_trains(name: str):
    # Finding and Estimate are plain dataclasses, in modules that import nothing of ours.
    shared = {"audit.finding", "ope.estimate"}
    allowed = {"config", "errors", "io", "render", "runs.folder", "report"} | shared
    modules = {module for module in reachable(f"offline_cql.commands.{name}") if "." in module}
    others = {module for module in modules if package(module) != "commands"}
    others -= {
        f"offline_cql.{name}" for name in ("runs", "ope", "audit")
    }  # packages whose __init__ is empty
    names = {module.removeprefix("offline_cql.") for module in others}
    assert {n for n in names if n not in allowed and n.split(".")[0] not in allowed} == set()
    commands = {module for module in modules if package(module) == "commands"}
    own_parts = {f"offline_cql.commands.{part}" for part in ("summary", name)}
    assert commands <= {"offline_cql.commands", *own_parts}
