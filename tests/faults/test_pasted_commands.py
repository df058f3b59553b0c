"""Guarantee: every printed command can be pasted, whatever the names of files and runs are."""

import io
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from support.config import ROOT, run_entry_point
from support.run_dirs import write_grid

from offline_cql.commands.audit import next_command
from offline_cql.commands.summary import print_grid
from offline_cql.render.command import command, hydra_value, path_word, shell_word

# Names that the shell, Hydra, OmegaConf or rich reads as something else.
ODD = (
    *("a b", "[red]x[/red]", "a=b", "$(id)", "`id`", "${now:%Y}", "it's", 'say "x"', "*", "~"),
    *("true", "null", "1e5", "007", "1_000", "-1", "", "a,b", "{a:b}", "a\\", "\\${x}", "#", "!"),
    *("größe", "数据", "a\nb", "\x1b[31m", "\u202etxt", "a;b|c&d>e", ":smile:"),
)
TEXTS = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_characters="\0"), max_size=9))


def read_by_hydra(text: str) -> object:
    """Return the value of an override as a run's config has it."""
    value = OverridesParser.create().parse_overrides([text])[0].value()
    return OmegaConf.to_container(OmegaConf.create({"key": value}), resolve=True)["key"]


def read_by_shell(line: str) -> list[str]:
    """Return the words that bash reads."""
    script = f"words() {{ printf '%s\\0' \"$@\"; }}; words {line}"
    process = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return process.stdout.decode().split("\0")[:-1]


@given(TEXTS)
@example("a\\\\${x}\\")
def test_hydra_reads_a_value_as_the_same_text(text: str):
    """Of every text but ???, which marks a missing value in OmegaConf."""
    if text != "???":
        assert read_by_hydra(f"run={hydra_value(text)}") == text
        assert read_by_hydra(f"run={hydra_value([text, 'b'])}") == [text, "b"]


def test_the_shell_reads_a_word_unchanged_and_no_word_has_hidden_characters():
    line = " ".join(map(shell_word, ODD))
    assert line.isprintable()
    assert read_by_shell(line) == list(ODD)


def test_a_path_is_never_an_option():
    assert path_word(Path("-rf/x")) == "./-rf/x"
    assert read_by_shell(command("rm", path_word("-rf"))) == ["rm", "./-rf"]


def test_a_grid_of_odd_names_has_one_job_per_name():
    words = read_by_shell(command("evaluate.py", "-m", ("run", ODD)))
    override = OverridesParser.create().parse_overrides([words[-1]])[0]
    jobs = [read_by_hydra(f"run={value}") for value in override.sweep_string_iterator()]
    assert jobs == list(ODD)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a checkout; the current folder is its parent."""
    project = tmp_path / "my project"
    project.mkdir()
    (project / "evaluate.py").touch()
    monkeypatch.setattr("offline_cql.render.command.ROOT", project)
    monkeypatch.chdir(tmp_path)
    return project


def test_a_command_starts_the_entry_point_beside_the_running_one(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    """In its own folder the name is enough; elsewhere the path is printed as it was typed."""
    monkeypatch.setattr(sys, "argv", ["my project/train.py"])
    assert read_by_shell(command("evaluate.py")) == ["python", "my project/evaluate.py"]
    monkeypatch.chdir(project)
    assert command("evaluate.py") == "python evaluate.py"


def test_a_command_of_a_program_of_the_users_names_a_script_of_this_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A file evaluate.py beside a notebook is something else."""
    (tmp_path / "evaluate.py").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "notebook.py")])
    assert read_by_shell(command("evaluate.py")) == ["python", str(project / "evaluate.py")]


@pytest.mark.parametrize(
    ("running", "line"),
    [
        ("/opt/bin/offline-cql", "/opt/bin/offline-cql evaluate run=x"),
        ("/lib/offline_cql/__main__.py", "python -m offline_cql evaluate run=x"),
        ("/home/notebook.py", "python -m offline_cql evaluate run=x"),
    ],
)
def test_a_command_of_an_installation_has_the_form_that_was_typed(
    running: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("offline_cql.render.command.ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", [running])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    which = shutil.which  # this test is also run where offline-cql is on the PATH
    monkeypatch.setattr(shutil, "which", lambda p: which(p) if p != "offline-cql" else None)
    assert command("evaluate.py", ("run", "x")) == line


def test_the_interpreter_is_printed_as_typed_where_python_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "train.py"])
    assert command("evaluate.py", "ope=fqe") == ".venv/bin/python evaluate.py ope=fqe"


def test_the_command_after_an_audit_keeps_lists_and_the_folder_of_configs():
    typed = ["--config-dir", "my conf", "dataset.columns.action=[a,b]", "++strict=true", "~env.x"]
    expected = ["python", "train.py", "--config-dir", "my conf", typed[2], "~env.x"]
    assert shlex.split(next_command(typed)) == expected


def test_the_report_of_runs_with_odd_names_prints_commands_that_find_them(tmp_path: Path):
    """The recommended export command, pasted, finds the run: it fails at its empty checkpoint."""
    folder = tmp_path / "[bold] it's=a $(touch hit) größe"
    write_grid(folder)
    process = run_entry_point("report", f"runs={hydra_value(folder)}", "out=out", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (line,) = [text for text in process.stdout.splitlines() if "export.py" in text]
    words = read_by_shell(line)
    assert words[:2] == ["python", str(ROOT / "export.py")]
    run = read_by_hydra(words[2])
    assert Path(str(run)) == folder / "alpha5-seed1"
    assert str(folder) in process.stdout
    assert not (tmp_path / "hit").exists()


def test_the_table_of_a_grid_shows_lists(capsys: pytest.CaptureFixture[str]):
    """rich would take [64,64] for markup and drop it."""
    jobs = [
        {"overrides": [f"network.actor_hidden=[{n},{n}]"], "result": {}, "run": None, "error": "x"}
        for n in (32, 64)
    ]
    print_grid(Path("outputs/[red]grid"), jobs)
    output = capsys.readouterr().out
    assert "grid outputs/[red]grid" in output
    assert output.count("network.actor_hidden=[64,64]") == 2


def test_a_command_in_an_error_keeps_the_spaces_of_its_path(tmp_path: Path):
    """A file without the columns: the error names the command that suggests a mapping."""
    path = tmp_path / "two  spaces.csv"
    path.write_text("x,y\n1,2\n")
    process = run_entry_point("audit", "env=logged", "dataset=table", f"dataset.path={path}")
    assert (process.returncode, process.stderr.count("\n")) == (2, 1)
    line = process.stderr.partition("for a suggested mapping: ")[2]
    assert f'dataset.path="{path}"' in read_by_shell(line)
    pasted = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "Suggested mapping" in pasted.stdout, pasted.stderr


def test_lines_are_neither_cut_nor_broken():
    from offline_cql.render.terminal import Terminal

    file = io.StringIO()
    Terminal(file=file, width=20).print_field("next", f"python {'x' * 90} [a,b]")
    assert file.getvalue() == f"next    python {'x' * 90} [a,b]\n"
