"""Commands that a user can paste, whatever the names in them are.

`command` writes every command that is printed. It quotes twice: a value for Hydra's grammar of
overrides, then each word for the shell.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Value: TypeAlias = str | Path | Sequence[str]
Setting: TypeAlias = tuple[str, Value]

# What Hydra reads unquoted as text: a name or a path, also with a final *. Not so the next two.
PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*[*]?", re.ASCII)
NUMBER = re.compile(r"[0-9_.eE-]*", re.ASCII)
KEYWORDS = ("null", "true", "false", "inf", "nan")
PROGRAM, MODULE = "offline-cql", "offline_cql"  # what starts an entry point of an installation
ROOT = Path(__file__).resolve().parents[3]  # of a checkout, which has train.py


def command(program: str, *parts: str | Setting) -> str:
    """Return a command line for the shell.

    program: an entry point (`train.py`; an installation has `offline-cql train` instead), `python`
    (this interpreter) or another program's name. parts:
    words as they are typed, and settings as (key, value): text or a path; a list, written [a,b];
    a tuple, the values of a grid, written a,b.
    """
    start = [_interpreter() if program == "python" else program]
    if program.endswith(".py"):
        start = _entry_point(program)
    words = [part if isinstance(part, str) else _override(*part) for part in parts]
    return " ".join(map(shell_word, [*start, *words]))


def shell_word(word: str) -> str:
    """Return a word for the shell; a character that cannot be seen becomes an escape in $'…'."""
    if word.isprintable():
        return shlex.quote(word)
    return f"$'{''.join(map(_shell_character, word))}'"


def path_word(path: Path | str) -> str:
    """Return a path as an argument that no program takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def hydra_value(value: Value) -> str:
    """Return a value in Hydra's grammar of overrides; it is read back as the same text."""
    if isinstance(value, str | Path):
        return _hydra_text(str(value))
    joined = ",".join(map(_hydra_text, value))
    return joined if isinstance(value, tuple) else f"[{joined}]"


def _override(key: str, value: Value) -> str:
    return f"{key}={hydra_value(value)}"


def _hydra_text(text: str) -> str:
    reserved = NUMBER.fullmatch(text) or text.lower() in KEYWORDS
    if PLAIN.fullmatch(text) and not reserved:
        return text
    # OmegaConf resolves ${…} inside quotes too, unless it is escaped.
    text = re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", text)
    # A backslash has to be doubled before a quote and at the end, and nowhere else.
    escaped = re.sub(r'(\\*)("|\Z)', _double, text)
    return f'"{escaped}"'


def _double(match: re.Match[str]) -> str:
    return match[1] * 2 + ('\\"' if match[2] else "")


def _shell_character(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _interpreter() -> str:
    """Return `python` where that starts this interpreter, else the interpreter as it was typed."""
    found = shutil.which("python")
    same = found is not None and Path(found).parent.samefile(Path(sys.executable).parent)
    return "python" if same else sys.orig_argv[0]


def _entry_point(script: str) -> list[str]:
    """Return the words that start an entry point, in the form of the one that runs."""
    running, name = Path(sys.argv[0]), Path(script).stem
    if running.name == PROGRAM:
        found = shutil.which(PROGRAM)  # may be that of another installation
        same = found is not None and Path(found).resolve() == running.resolve()
        return [PROGRAM if same else str(running), name]
    as_module = [_interpreter(), "-m", MODULE, name]
    if running.parts[-2:] == (MODULE, "__main__.py"):
        return as_module
    if (ROOT / script).is_file():
        return [_interpreter(), script_path(script)]
    return [PROGRAM, name] if shutil.which(PROGRAM) else as_module  # a program of the user's


def script_path(script: str) -> str:
    """Return the path of a checkout's script as the running one was typed; from here, its name."""
    if Path(script).exists() and Path(script).samefile(ROOT / script):
        return script
    beside = Path(sys.argv[0]).parent / script
    typed = beside.exists() and beside.samefile(ROOT / script)
    return path_word(beside if typed else ROOT / script)
