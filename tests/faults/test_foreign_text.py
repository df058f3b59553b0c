"""Guarantee: what stands in a file never controls the terminal or forges a line."""

import io
import json
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from support.config import run_entry_point
from support.run_dirs import write_run

from offline_cql.render.message import one_line, print_message, printable
from offline_cql.render.terminal import Terminal

ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e\u2028x"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x9b31m\r\u202e\u2028x"


def test_control_characters_become_visible():
    assert printable(ATTACK) == SHOWN
    assert printable("größe 数据 – α\u00a0β 😀") == "größe 数据 – α\u00a0β 😀"
    assert printable("a\nb\tc\x00\udc80") == r"a\nb\tc\x00\udc80"


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]):
    """Line breaks of libraries are spaces; the two spaces inside a path stay two."""
    print_message(f"error: first\n   second 'a  b' {ATTACK}")
    assert capsys.readouterr().err == f"error: first second 'a  b' {SHOWN}\n"
    assert one_line("a\n\nb") == "a b"


def test_a_terminal_prints_text_as_it_is():
    """No markup, no emoji; colors come from styles only."""
    file = io.StringIO()
    terminal = Terminal(file=file, width=90, force_terminal=True, color_system="standard")
    table = Table(f"[bold]{ATTACK}", title=":smile:")
    table.add_row(Text(ATTACK))
    table.add_row(f"[red]{ATTACK}")
    terminal.print(table)
    terminal.print_line(f"[red]{ATTACK}\nnext", "bold red")
    output = file.getvalue()
    assert ":smile:" in output
    assert output.count("[red]") == 2
    for forbidden in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\u2028"):
        assert forbidden not in output
    assert f"\x1b[1;31m[red]{SHOWN}\\nnext\x1b[0m\n" in output


def test_names_of_columns_are_shown_by_the_audit_without_effect(tmp_path: Path):
    """A CSV whose column names hold escape sequences, and one named like a finding of ours."""
    names = ["obs\x1b[2J", "obs [red]x", "action", "reward", "episode"]
    rows = [f"{i % 7},{i % 5},{i % 3 - 1},{i % 2},{i // 10}" for i in range(100)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join([",".join(names), *rows]) + "\n")
    source = ("env=logged", "dataset=table", f"dataset.path={path}")
    inferred = run_entry_point("audit", *source, "infer=true")
    assert "\x1b" not in inferred.stdout
    assert r"obs\x1b[2J" in inferred.stdout
    columns = 'dataset.columns.observation=["obs*"]'
    audited = run_entry_point("audit", *source, columns, f"out={tmp_path}/audit")
    assert audited.returncode in (0, 2), audited.stderr
    assert "\x1b" not in audited.stdout + audited.stderr
    assert audited.stderr.count("\n") <= 1


def test_the_error_recorded_by_a_run_is_reported_without_effect(tmp_path: Path):
    folder = write_run(tmp_path / "runs" / "a", status="failed")
    result = json.loads((folder / "result.json").read_text())
    result["error"] = f"[red]{ATTACK}\nerror: forged"
    (folder / "result.json").write_text(json.dumps(result))
    write_run(tmp_path / "runs" / "b")
    process = run_entry_point("report", "runs=runs", "out=out", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "[red]" in process.stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(process.stdout)
    assert not any(line.startswith("error: forged") for line in process.stdout.splitlines())
