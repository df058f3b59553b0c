"""Parts of Hydra that its documentation does not cover: arguments, groups, overrides, sweeps.

No other module imports them. tests/config/test_hydra_internals.py fails when a new release of Hydra
changes one.
"""

import argparse
import itertools
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import (
    compute_search_path_dir,
    create_config_search_path,
    get_args_parser,
)
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.utils import JobRuntime, validate_config_path
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from offline_cql.errors import ConfigError
from offline_cql.io import read_bytes, yaml_fault

__all__ = ["ConfigFolder", "HydraException", "MissingConfigException", "Override"]


def parse_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return Hydra's own options (`overrides` among them) and the arguments it does not know.

    Raises argparse.ArgumentError.
    """
    parser = get_args_parser()
    parser.exit_on_error = False  # else argparse prints its usage, ten lines

    def fail(message: str) -> NoReturn:  # for an ambiguous option Python 3.11 exits all the same
        raise argparse.ArgumentError(None, message)

    parser.error = fail  # type: ignore[method-assign]
    return parser.parse_known_args(arguments)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of --config-dir, [] without it, and the overrides of a command line."""
    options, _ = parse_options(list(arguments))
    folder = ["--config-dir", options.config_dir] if options.config_dir else []
    return folder, list(options.overrides)


def config_folder(entry_point: Path, path: str | None) -> str:
    """Return the folder of configs as @hydra.main finds it; path: --config-path, or None.

    Raises ValueError for the path of a file.
    """
    validate_config_path(path)
    return str(compute_search_path_dir(str(entry_point), None, path or "conf"))


class BoundedSource(FileConfigSource):
    """Hydra's files of configs. Raises ConfigError for one that would grow without bound."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        if (fault := yaml_fault(read_bytes(path))) is not None:
            raise ConfigError(f"{path} is not a config: {fault}")
        return super().load_config(config_path)


@contextmanager
def open_folder(folder: str | Path, further: Sequence[str] = ()) -> Iterator["ConfigFolder"]:
    """Give access to the configs of a folder (an absolute path or pkg://…); nothing runs.

    further: entries of Hydra's search path (file://FOLDER) after this folder, as --config-dir and
    hydra.searchpath add them. At the end Hydra's state is that of before.
    """
    outer, previous = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    runtime = JobRuntime.instance().conf.copy()  # its name is that of the application
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir("/", version_base="1.3"):  # sets Hydra up for `compose`
            search_path = create_config_search_path(str(folder))
            for entry in further:
                search_path.prepend("further", entry, SearchPathQuery(provider="schema"))
            GlobalHydra.instance().clear()
            with _bounded_files():
                Hydra.create_main_hydra2("app", search_path)
                yield ConfigFolder(GlobalHydra.instance().config_loader())
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = outer, previous
        JobRuntime.instance().conf = runtime


@contextmanager
def _bounded_files() -> Iterator[None]:
    """Let Hydra read files of configs as BoundedSource does."""
    sources = SourcesRegistry.instance().types
    unbounded, sources["file"] = sources["file"], BoundedSource
    try:
        yield
    finally:
        sources["file"] = unbounded  # Hydra refuses to register its own a second time beside it


LARGEST_SWEEP = 100_000  # values of one setting in a grid
HIDDEN = ("base", "common", "study")  # files that others build on, and the runs of a study


@dataclass(frozen=True)
class ConfigFolder:
    """A folder of configs, as Hydra searches it."""

    loader: ConfigLoader

    def compose(self, name: str, overrides: list[str], *, grid: bool = False) -> DictConfig:
        """Return the config of an entry point, in which ${hydra:…} can be resolved as in a job.

        grid: the config is that of a grid's first job. Raises HydraException; UserWarning for
        an entry of hydra.searchpath that does not exist.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="provider=.* is not available", module="hydra")
            config = compose(name, overrides, return_hydra_config=True)
        with open_dict(config):
            if grid:
                config.hydra.job.num, config.hydra.job.id = 0, "0"
            job_config = OmegaConf.masked_copy(
                config, [str(key) for key in config if key != "hydra"]
            )
        HydraConfig.instance().set_config(config)
        OmegaConf.select(config, "hydra.sweep.dir")  # raises for a wrong interpolation
        return job_config

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
    """Return a line `group: option, ...` per config group and group inside it, indented by two.

    The help texts name their groups: Hydra's own list has those of every entry point and
    conf/tuned, whose files Hydra chooses by the names of other options.
    """
    conf = ConfigFolder(GlobalHydra.instance().config_loader())
    lines = [
        f"{name}: {', '.join(conf.options(name))}"
        for group in groups
        for name in (group, *(f"{group}/{inner}" for inner in conf.groups(group)))
    ]
    filled = [textwrap.wrap(line, width=98, subsequent_indent="  ") for line in lines]
    return "\n  ".join(itertools.chain.from_iterable(filled))


class OverrideError(Exception):
    """An argument is not an override; the message is the parser's reason."""


def sweep_values(override: Override) -> Iterator[str]:
    """Yield each value of a sweep as an override; of an interval both ends.

    Raises OverrideError for a range of step 0 or over text, and for more than LARGEST_SWEEP values.
    """
    key = override.get_key_element()
    if override.is_discrete_sweep():
        try:
            values = list(itertools.islice(override.sweep_string_iterator(), LARGEST_SWEEP + 1))
        except (HydraException, ArithmeticError, TypeError, ValueError) as error:
            raise OverrideError(str(error)) from error
        if len(values) > LARGEST_SWEEP:
            raise OverrideError(f"more than {LARGEST_SWEEP:,} values")
        yield from (f"{key}={value}" for value in values)
        return
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    yield from (f"{key}={end}" for end in (interval.start, interval.end))


def sweep_jobs(config: DictConfig) -> list[list[str]]:
    """Return the overrides of every job of a grid, in order; config: with its section hydra.

    [] with a sweeper other than Hydra's own, which may choose a job by the results of others.
    """
    sweeper = config.hydra.sweeper
    if not sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        return []
    params = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = [*params, *config.hydra.overrides.task]
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
