"""From what was typed to a checked config, before anything heavy is imported or started.

Knows nothing about training: it composes each job's config once, checks it, and lets Hydra run.
Whoever typed something wrong gets one line and exit code 2; a fault of ours keeps its traceback.
"""

import argparse
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offline_cql.config import (
    AuditConfig,
    CollectConfig,
    EvaluateConfig,
    ExportConfig,
    ReportConfig,
    Section,
    TrainConfig,
    reject_unused_overrides,
    typed_as,
)
from offline_cql.config.limits import shown
from offline_cql.config.validation import closest, is_known, keys, unknown
from offline_cql.errors import ConfigError

ENTRY_POINTS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "audit": AuditConfig,
    "collect": CollectConfig,
    "evaluate": EvaluateConfig,
    "report": ReportConfig,
    "export": ExportConfig,
}
SECRETS = ("api_key", "apikey", "token", "password", "secret")
MOST_LISTED = 12  # options of a group in a message
LARGEST_CHECK = 64  # combinations of a grid that are composed beforehand, 20 ms each


def run(main: Callable[[], Any]) -> None:
    """Checks sys.argv, then calls a door's @hydra.main function.

    An exception with an `exit_code` (ConfigError, DataError) becomes one line on stderr and that
    exit code; every other exception passes.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints exceptions itself and exits with 1
    entry_point = Path(inspect.getfile(inspect.unwrap(main)))
    try:
        check(sys.argv[1:], schema=ENTRY_POINTS[entry_point.stem], entry_point=entry_point)
        main()
    except Exception as error:
        _exit_if_told(error)
        raise


def job(function: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Runs what a entry point is for; a single run's error is one line, before Hydra adds its own to it.

    In a grid the exception passes: the other jobs go on.
    """
    try:
        return function(config)
    except Exception as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            _exit_if_told(error)
        raise


def _exit_if_told(error: Exception) -> None:
    exit_code = getattr(error, "exit_code", None)
    if exit_code is not None:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(exit_code)


def check(arguments: list[str], *, schema: type[Section], entry_point: Path) -> None:
    """Composes and checks the config of every job that the arguments ask for.

    Raises ConfigError. Help and completion are left alone, and so is a config that still misses
    values when it is only shown.
    """
    options = _options(arguments)
    if options.hydra_help or options.shell_completion or options.experimental_rerun:
        return
    if options.help and not options.overrides:
        return
    folder = entry_point.parent / (options.config_path or "conf")
    extra = options.config_dir
    if extra and not Path(extra).is_dir():
        raise ConfigError(f"--config-dir {extra} is no folder")
    search = [f"hydra.searchpath=[file://{Path(extra).absolute()}]"] if extra else []
    with initialize_config_dir(str(folder.absolute()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = [_parsed(text, loader) for text in options.overrides]
        for override in overrides:
            _check_key(override, loader, keys(schema))
        warnings: dict[str, None] = {}  # of all jobs, in order, each once
        for job in _jobs(overrides, grid=options.multirun):
            config = _composed(options.config_name or entry_point.stem, job + search, loader)
            if _runs(options) or ": ???" not in OmegaConf.to_yaml(config):
                warnings.update(dict.fromkeys(_check_job(schema, config, job)))
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = get_args_parser()
    parser.exit_on_error = False  # else argparse prints its usage, ten lines
    try:
        options, surplus = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if surplus:
        raise ConfigError(f"{surplus[0]} is unknown; settings are typed as KEY=VALUE")
    return options


def _check_job(schema: type[Section], config: DictConfig, overrides: list[str]) -> list[str]:
    settings = typed_as(schema, config)
    if not isinstance(settings, TrainConfig):
        return []
    reject_unused_overrides(settings, overrides, discrete=None)
    return settings.warnings()


def _runs(options: argparse.Namespace) -> bool:
    return not (options.help or options.cfg or options.info)


def _parsed(text: str, loader: ConfigLoader) -> Override:
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
    except OverrideParseException as error:
        lines = [line for line in str(error).splitlines() if not line.startswith(("Error", "See"))]
        reason = " ".join(lines).partition(" expecting {")[0]
        raise ConfigError(f"{text} cannot be read as KEY=VALUE: {reason}") from error


def _check_key(override: Override, loader: ConfigLoader, known: list[str]) -> None:
    """Refuses secrets and keys that the entry point does not have, with or without a leading +."""
    key = override.key_or_group
    if any(word in key.lower() for word in SECRETS):
        where = "the run's record would keep it; use the environment, as with WANDB_API_KEY"
        raise ConfigError(f"{key} looks like a secret and {where}")
    if options := loader.get_group_options(key, ObjectType.CONFIG):
        value = override.value()
        if not override.is_delete() and isinstance(value, int | float | None):
            raise ConfigError(f"{key}={shown(value)} must be one of {_some(options)}")
        return
    if not key.startswith("hydra.") and not is_known(key, known):
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        raise ConfigError(unknown(key, known + groups))


def _jobs(overrides: list[Override], *, grid: bool) -> Iterator[list[str]]:
    """The overrides of each job: all combinations of a grid, or enough to see every value once."""
    choices = [list(_values(override, grid=grid)) for override in overrides]
    count = 1
    for values in choices:
        count *= len(values)
    if count <= LARGEST_CHECK:
        yield from map(list, itertools.product(*choices))
        return
    for index in range(max(map(len, choices))):
        yield [values[index % len(values)] for values in choices]


def _values(override: Override, *, grid: bool) -> Iterator[str]:
    if not override.is_sweep_override():
        yield str(override.input_line)
        return
    key = override.get_key_element()
    if not grid:
        hint = "add -m for a grid, or write a list as [1,2]"
        raise ConfigError(f"{override.input_line} has several values; {hint}")
    if override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
        return
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    yield from (f"{key}={end}" for end in (interval.start, interval.end))


def _composed(name: str, overrides: list[str], loader: ConfigLoader) -> DictConfig:
    try:
        return compose(name, overrides)
    except MissingConfigException as error:
        raise _unknown_option(error, loader) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_one_line(error)) from error


def _unknown_option(error: MissingConfigException, loader: ConfigLoader) -> ConfigError:
    """env=hoper is unknown; did you mean env=hopper? (available: ...)"""
    parts = (error.missing_cfg_file or "").split("/")
    for length in range(len(parts) - 1, 0, -1):
        group, option = "/".join(parts[:length]), "/".join(parts[length:])
        available = loader.get_group_options(group, ObjectType.CONFIG)
        if available and ".." not in group:
            close, listed = closest(option, available), _some(available)
            hint = f"did you mean {group}={close}? (available: {listed})"
            hint = hint if close else f"available: {listed}"
            return ConfigError(f"{group}={option} is unknown; {hint}")
    return ConfigError(_one_line(error))


def _some(names: list[str]) -> str:
    """Names for a message; of many the first ones, and how many more there are."""
    listed, left = names[:MOST_LISTED], len(names) - MOST_LISTED
    more = f", … and {left} more: --help lists them" if left > 0 else ""
    return ", ".join(listed) + more


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
