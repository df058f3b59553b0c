"""Settings of a call from Python: overrides of a command, with those that a data set implies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offline_cql.config import Section
from offline_cql.config.command_line import compose_job
from offline_cql.config.entry_points import ENTRY_POINTS
from offline_cql.config.validation import validate_config
from offline_cql.errors import ConfigError
from offline_cql.render.command import hydra_value


def merge_overrides(implied: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return the overrides after those implied ones that they do not replace.

    Raises ConfigError for a text, of which each letter would be an override.
    """
    for given in (implied, overrides):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise ConfigError(f"overrides must be a list of KEY=VALUE, not {given!r:.60}")
    typed = {str(text).partition("=")[0] for text in overrides}
    kept = [text for text in implied if text.partition("=")[0] not in typed]
    return [*kept, *map(str, overrides)]


def settings_of(command: str, implied: Sequence[str], overrides: Sequence[str]) -> Section:
    """Return the validated settings of a command. Raises ConfigError."""
    words = merge_overrides(implied, overrides)
    return validate_config(ENTRY_POINTS[command], compose_job(command, words))


def setting(key: str, value: str | Path | Sequence[str]) -> str:
    """Return an override that gives a key this text, path or list, whatever letters it has."""
    return f"{key}={hydra_value(value)}"
