"""Output that a run does not depend on: a closed pipe, a full disk or a narrow encoding."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from offline_cql.render.message import discard_unwritable_output


def accept_any_encoding() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def optional_output() -> Iterator[None]:
    """Ignore that stdout cannot be written: the reader has closed it, or its disk is full.

    The output of this block is lost, and the command goes on and keeps its exit code.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, SystemExit):  # rich turns a closed pipe into SystemExit
        discard_unwritable_output()
