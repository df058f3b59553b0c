"""Guarantee: a module imports only from packages above its own in docs/design.md.

Imports inside functions and those for type checkers count too.
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


def module_name(path: Path) -> str:
    """Return offline_cql.commands.multirun for src/offline_cql/commands/multirun.py."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, ours down to the submodule."""
    names: set[str] = set()
    modules = {module_name(module) for module in MODULES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            assert node.module is not None
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            names |= submodules or {node.module}
    return names


def imported_from_package(path: Path) -> set[str]:
    """Return the modules of offline_cql that a file imports."""
    return {name for name in imported(path) if name.partition(".")[0] == "offline_cql"}


def package(name: str) -> str:
    """Return commands for offline_cql.commands.multirun."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_from_packages_above(path: Path):
    name = module_name(path)
    if name == "offline_cql":
        assert {package(other) for other in imported_from_package(path)} == {"api", "errors"}
        return  # for type checkers: the names are imported when they are used
    assert package(name) in LEVEL
    for other in imported_from_package(path):
        if package(other) != package(name):
            assert LEVEL[package(other)] < LEVEL[package(name)], f"{name} imports {other}"


def test_there_is_no_import_cycle():
    needs = {module_name(path): imported_from_package(path) for path in MODULES}
    del needs["offline_cql"]
    done: set[str] = set()
    while ready := {name for name, needed in needs.items() if needed - {name} <= done} - done:
        done |= ready
    assert done == set(needs), f"import cycle: {sorted(set(needs) - done)}"


def test_losses_import_torch_and_nothing_of_ours():
    assert imported(SOURCE / "losses.py") <= {"math", "torch", "torch.nn", "torch.nn.functional"}


def reachable(name: str) -> set[str]:
    """Return every module of ours that importing this one imports."""
    paths = {module_name(path): path for path in MODULES}
    reached, waiting = set(), {name}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        parents = {module.rpartition(".")[0]} & set(paths) - {"offline_cql"}  # it imports late
        waiting |= (imported_from_package(paths[module]) | parents) - reached
    return reached - {name}


@pytest.mark.parametrize("name", ["summary", "multirun", "report"])
def test_reporting_reads_run_folders_and_imports_nothing_that_trains(name: str):
    # Plain dataclasses, in modules that import nothing of ours but render.
    shared = {"audit.finding", "ope.estimate", "ope.actions"}
    allowed = {"config", "errors", "io", "render", "runs.folder", "runs.result", "report"}
    allowed |= shared | {"stop_signals", "runs.wandb_run", "features"}
    modules = {module for module in reachable(f"offline_cql.commands.{name}") if "." in module}
    others = {module for module in modules if package(module) != "commands"}
    others -= {
        f"offline_cql.{name}" for name in ("runs", "ope", "audit")
    }  # packages whose __init__ is empty
    names = {module.removeprefix("offline_cql.") for module in others}
    assert {n for n in names if n not in allowed and n.split(".")[0] not in allowed} == set()
    commands = {module for module in modules if package(module) == "commands"}
    parts = {f"offline_cql.commands.{part}" for part in ("summary", "tables", "run_loggers", name)}
    assert commands <= {"offline_cql.commands", *parts}
