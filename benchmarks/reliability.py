"""Count the faults and bad inputs that tests/faults/ tries, and write docs/reliability.md's tables.

    python benchmarks/reliability.py --minutes 10 --seed 0

Runs every test of tests/faults/, also those marked slow, then the three random attacks for
--minutes each; without --minutes only the tests, and the other table stays. The exit code is 1 when
a test failed or something escaped.
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FOLDER = ROOT / "tests" / "faults"
ATTACKS = ("fuzz_overrides", "fuzz_tables", "soak")
# What these files try is given to the program; the others try what happens while it runs.
INPUTS = (
    *("action_kind", "dropped_rows", "estimates", "foreign_files", "foreign_text", "no_traceback"),
    *("numbers", "pasted_commands", "precheck", "security", "serving"),
)


def run_tests() -> tuple[Counter[str], Counter[str]]:
    """Run tests/faults/; return per file the number of tests that ran, and of those that passed."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(FOLDER), "-m", "slow or not slow", "-q"]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        tried: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for case in cases:
            file = case.attrib["classname"].split(".")[2]
            kinds = {child.tag for child in case}
            if "skipped" not in kinds:
                tried[file] += 1
                held[file] += not kinds & {"failure", "error"}
    return tried, held


def guarantee(path: Path) -> str:
    """Return what a file of tests guarantees: the first sentence of its docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].removeprefix("Guarantee:").split())


def count_table(tried: Counter[str], held: Counter[str]) -> str:
    """Return the table of guarantees, bad inputs after faults, with their sums."""
    lines = ["| guarantee | tests | tried | held |", "|---|---|--:|--:|"]
    for kind, title in ((False, "faults"), (True, "inputs")):
        files = [file for file in sorted(tried) if (file.removeprefix("test_") in INPUTS) == kind]
        for file in files:
            path = FOLDER / f"{file}.py"
            text, link = guarantee(path), f"[{file}](../tests/faults/{file}.py)"
            lines.append(f"| {text} | {link} | {tried[file]} | {held[file]} |")
        sums = [sum(counts[file] for file in files) for counts in (tried, held)]
        lines.append(f"| **all {title}** | | **{sums[0]}** | **{sums[1]}** |")
    return "\n".join(lines)


def attack_table(minutes: float, seed: int) -> tuple[str, bool]:
    """Run the random attacks; return the table of their last lines, and whether all held."""
    arguments = [f"--minutes={minutes:g}", f"--seed={seed}"]
    processes = {}
    for name in ATTACKS:  # at the same time
        command = [sys.executable, f"benchmarks/{name}.py", *arguments]
        processes[name] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines, held = ["| attack | what it did |", "|---|---|"], True
    for name, process in processes.items():
        output, _ = process.communicate()
        print(output, flush=True)
        last = (output.strip().splitlines() or ["it ended without a line"])[-1]
        lines.append(f"| `python benchmarks/{name}.py {' '.join(arguments)}` | {last} |")
        held = held and process.returncode == 0
    return "\n".join(lines), held


def replace_table(page: str, name: str, table: str) -> str:
    """Return the page with another table between its marks `<!-- name -->` and `<!-- end -->`."""
    pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
    return re.sub(pattern, lambda _: f"\n{table}\n\n", page, flags=re.DOTALL)


def main() -> int:
    """Write the tables; return 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, help="of each random attack")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tried, held = run_tests()
    page = replace_table(PAGE.read_text(), "tests", count_table(tried, held))
    all_held = tried == held
    if arguments.minutes is not None:
        table, attacks_held = attack_table(arguments.minutes, arguments.seed)
        page, all_held = replace_table(page, "attacks", table), all_held and attacks_held
    PAGE.write_text(page)
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
