"""Text of other origin on a terminal: names in files, paths, exceptions of libraries.

Whatever prints goes through `print_message`, or through the Terminal of render/terminal.py.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata

SEPARATORS = ("Zl", "Zp")  # Unicode's own line breaks


def printable(text: str) -> str:
    r"""Return text in which control characters are visible: \x1b, \n, \u202e.

    Escape sequences would color, move or clear the terminal, line breaks would forge messages, and
    marks of direction would show a name that differs from the one in the file.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def one_line(text: str) -> str:
    """Return a message as one printable line; line breaks become spaces."""
    return printable(re.sub(r"\s*\n\s*", " ", text.strip()))


def print_message(text: str) -> None:
    """Print a message as one line on stderr."""
    print(one_line(text), file=sys.stderr)


def discard_unwritable_output() -> None:
    """Drop what stdout cannot write; Python would try again when it exits, and fail then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    hidden = kind.startswith("C") or kind in SEPARATORS
    return character.encode("unicode_escape").decode() if hidden else character
