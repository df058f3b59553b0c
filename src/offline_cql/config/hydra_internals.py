"""Parts of Hydra that its documentation does not cover: arguments, groups, overrides, sweeps.

No other module imports them. tests/config/test_hydra_internals.py fails when a new release of Hydra
changes one.
"""

import argparse
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig

__all__ = ["ConfigFolder", "HydraException", "MissingConfigException", "Override"]


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return Hydra's own options (`overrides` among them) and the arguments it does not know.

    Raises argparse.ArgumentError.
    """
    parser = get_args_parser()
    parser.exit_on_error = False  # else argparse prints its usage, ten lines
    return parser.parse_known_args(arguments)


@contextmanager
def open_folder(folder: Path) -> Iterator["ConfigFolder"]:
    """Give access to the configs of a folder, without running anything."""
    with initialize_config_dir(str(folder.absolute()), version_base="1.3"):
        yield ConfigFolder(GlobalHydra.instance().config_loader())


HIDDEN = ("base", "common", "study")  # files that others build on, and the runs of a study


@dataclass(frozen=True)
class ConfigFolder:
    """A folder of configs, as Hydra searches it."""

    loader: ConfigLoader

    def compose(self, name: str, overrides: list[str]) -> DictConfig:
        """Return the config of an entry point. Raises HydraException."""
        return compose(name, overrides)

    def groups(self, parent: str = "") -> list[str]:
        """Return the names of the config groups in a group, without Hydra's own and hidden ones."""
        groups = self.loader.list_groups(parent)
        return [group for group in groups if group not in ("hydra", *HIDDEN)]

    def options(self, group: str) -> list[str]:
        """Return the options of a group without parents; none where there is no such group."""
        options = self.loader.get_group_options(group, ObjectType.CONFIG)
        return [option for option in options if option not in HIDDEN]

    def parse(self, text: str) -> Override:
        """Return a typed override. Raises OverrideError with the reason."""
        try:
            return OverridesParser.create(config_loader=self.loader).parse_overrides([text])[0]
        except OverrideParseException as error:
            lines = str(error).splitlines()
            reason = " ".join(line for line in lines if not line.startswith(("Error", "See")))
            raise OverrideError(reason.partition(" expecting {")[0]) from error


def format_options(*groups: str) -> str:
    """Return a line `group: option, ...` per config group and group inside it.

    The help texts name their groups: Hydra's own list has those of every entry point and
    conf/tuned, whose files Hydra chooses by the names of other options.
    """
    conf = ConfigFolder(GlobalHydra.instance().config_loader())
    lines = [
        f"{name}: {', '.join(conf.options(name))}"
        for group in groups
        for name in (group, *(f"{group}/{inner}" for inner in conf.groups(group)))
    ]
    return "\n".join(textwrap.fill(line, width=100, subsequent_indent="  ") for line in lines)


class OverrideError(Exception):
    """An argument is not an override; the message is the parser's reason."""


def sweep_values(override: Override) -> Iterator[str]:
    """Yield each value of a sweep as an override; of an interval both ends."""
    key = override.get_key_element()
    if override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
        return
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    yield from (f"{key}={end}" for end in (interval.start, interval.end))
