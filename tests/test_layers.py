"""Promise: a module imports only from its left, so that each can be read and tested alone.

The order is the one of docs/design.md; it is read from the import statements, the late ones too.
"""

import ast
from pathlib import Path

import pytest
from composition import CONF

SOURCE = CONF.parent / "src" / "offline_cql"
ROWS = [
    {"schema", "transitions"},
    {"run_folder", "alpha"},
    {"spaces"},
    {"losses", "networks", "environments", "checkpoint"},
    {"sources"},
    {"data"},
    {"agents"},
    {"audit", "ope", "report"},
    {"evaluation"},
    {"callbacks"},
    {"runner"},
    {"command_line"},
]
LEVEL = {room: level for level, rooms in enumerate(ROWS) for room in rooms}
MODULES = sorted(SOURCE.rglob("*.py"))


def named(path: Path) -> str:
    """offline_cql.runner.grid for src/offline_cql/runner/grid.py."""
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


def room(name: str) -> str:
    """runner for offline_cql.runner.grid."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_its_left(path: Path):
    name = named(path)
    if name == "offline_cql":
        assert own(path) == set()
        return
    for other in own(path):
        if room(other) != room(name):
            assert LEVEL[room(other)] < LEVEL[room(name)], f"{name} imports {other}"


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


@pytest.mark.parametrize("name", ["summary", "grid", "report"])
def test_reporting_reads_run_folders_and_brings_along_nothing_that_trains(name: str):
    allowed = {"schema", "run_folder", "runner", "report"}
    found = {module for module in reachable(f"offline_cql.runner.{name}") if "." in module}
    assert {room(module) for module in found} <= allowed
    runner = {module for module in found if room(module) == "runner"}
    own_parts = {f"offline_cql.runner.{part}" for part in ("summary", name)}
    assert runner <= {"offline_cql.runner", *own_parts}


def test_no_room_for_odds_and_ends():
    names = {path.stem for path in MODULES} | {path.name for path in SOURCE.rglob("*/")}
    assert not names & {"utils", "util", "common", "helpers", "helper", "misc"}


def test_files_are_short_enough_to_read():
    lengths = {named(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
