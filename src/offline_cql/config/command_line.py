"""Validation of the command line, before anything heavy is imported or started.

Each job's config is composed once and validated; then Hydra runs. A user's mistake is one line and
exit code 2; a bug of ours keeps its traceback.
"""

import argparse
import inspect
import itertools
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from offline_cql.config.algorithms import ALGORITHMS
from offline_cql.config.entry_points import ENTRY_POINTS, TrainConfig
from offline_cql.config.hydra_internals import (
    ConfigFolder,
    MissingConfigException,
    Override,
    OverrideError,
    config_folder,
    format_options,
    open_folder,
    parse_options,
    sweep_values,
)
from offline_cql.config.keys import closest, holds_secret, key_exists, setting_keys, unknown_key
from offline_cql.config.section import Section, format_value
from offline_cql.config.unused import reject_unused_overrides
from offline_cql.config.validation import validate_config
from offline_cql.errors import ConfigError, PreemptedError, explain
from offline_cql.io import located
from offline_cql.render.command import command, hydra_value, shell_word
from offline_cql.render.message import discard_unwritable_output, print_message
from offline_cql.stop_signals import handle_stop_signals, stop_requested

MOST_LISTED = 12  # options of a group in a message
LARGEST_CHECK = 64  # combinations of a grid that are composed beforehand, 20 ms each
COMMANDS = ("run", "multirun", "cfg", "shell_completion", "info")  # Hydra's; one at a time
COMPOSING = threading.Lock()  # Hydra's state is one per process
FULL_ERROR = "HYDRA_FULL_ERROR"
SEARCH_PATH = "hydra.searchpath"
SEVERAL = ("experiment",)  # groups whose options are merged when a list names several
RUN_DIR = "the folder of a run is run_dir"
# Hydra's sections and settings that nothing reads here, and their parts that are read.
WITHOUT_EFFECT = {
    "hydra.run": RUN_DIR,
    "hydra.output_subdir": RUN_DIR,
    "hydra.sweep.subdir": f"{RUN_DIR}, that of a grid hydra.sweep.dir",
    "hydra.job": f"{RUN_DIR}; the name of a launcher's jobs is hydra.launcher.name",
}
WITH_EFFECT = ("hydra.job.env_set", "hydra.job.env_copy")


def conf_folder() -> Path:
    """Return the folder of configs: the installed package's, in a checkout that of train.py."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parents[1] / "conf"


def bound_spinning() -> None:
    """Let a waiting thread of OpenMP sleep after about a millisecond; its default is ten or more.

    Where other processes take the cores, one that spins keeps the thread that it waits for from
    running. libgomp, which torch's wheels contain, reads the variable when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")


def run(main: Callable[[], Any]) -> None:
    """Check sys.argv, then call an entry point's @hydra.main function.

    What a user can cause (`errors.explain`) becomes one line on stderr and an exit code, with its
    traceback above when HYDRA_FULL_ERROR=1; a mistake in the code stays a traceback.
    """
    if sys.argv[1:] == ["--version"]:  # Hydra would print its own
        print(f"offline-cql {version('offline-cql')}")
        return
    bound_spinning()
    OmegaConf.register_new_resolver("options", format_options, replace=True)  # for --help
    OmegaConf.register_new_resolver("command", command, replace=True)
    show_traceback = os.environ.get(FULL_ERROR) == "1"
    entry_point = Path(inspect.getfile(inspect.unwrap(main)))
    failure: BaseException
    try:
        with handle_stop_signals(), _stop_remembered():
            sys.argv[1:] = add_to_mappings(sys.argv[1:], ENTRY_POINTS[entry_point.stem])
            check(sys.argv[1:], schema=ENTRY_POINTS[entry_point.stem], entry_point=entry_point)
            with _hydra_ends(main), _raising_hydra():
                main()
            with located(Path("stdout")):
                sys.stdout.flush()
            return
    except _JobError as carrier:
        failure = carrier.error
    except BaseException as error:
        failure = error
    if (explanation := explain(failure)) is not None:
        if show_traceback:
            traceback.print_exception(failure)
        line, exit_code = explanation
        print_message(line if isinstance(failure, PreemptedError) else f"error: {line}")
        discard_unwritable_output()
        sys.exit(exit_code)
    raise failure


def add_to_mappings(arguments: list[str], schema: type[Section]) -> list[str]:
    """Return the arguments with ++ before settings in a mapping of any keys, as env.arguments.

    Hydra takes a key that its config lacks only with a sign.
    """
    mappings = [key.removesuffix(".*") for key in setting_keys(schema) if key.endswith(".*")]
    return [
        f"++{word}" if word.startswith(tuple(m + end for m in mappings for end in "=.")) else word
        for word in arguments
    ]


@contextmanager
def _hydra_ends(main: Callable[[], Any]) -> Iterator[None]:
    """Return after --help, where Hydra exits; raise its errors as ConfigError, a job's as it is."""
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            raise
    except Exception as error:
        if explain(error) or _passed_own_code(error, main):
            raise
        raise ConfigError(_one_line(error)) from error  # of Hydra: a wrong hydra.launcher


@contextmanager
def _stop_remembered() -> Iterator[None]:
    """Raise PreemptedError for what compiled modules, or libraries, made of it."""
    try:
        yield
    except (Exception, _JobError) as error:
        if (number := stop_requested()) is not None:
            raise PreemptedError(number) from error
        raise


@contextmanager
def _raising_hydra() -> Iterator[None]:
    """Let Hydra raise exceptions, which it else prints itself before it exits with 1."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


class _JobError(BaseException):
    """Carries the error of a single run through Hydra, which prints a line about an Exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def job(function: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Run one job; in a grid its exception passes through Hydra: the other jobs go on."""
    try:
        with handle_stop_signals():  # here too, for the processes of hydra/launcher=joblib
            return function(config)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        raise _JobError(error) from None


def _passed_own_code(error: Exception, main: Callable[[], Any]) -> bool:
    """Return whether an exception was raised in `main`, or in this package but this module."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    package, own = str(Path(__file__).parents[1]), inspect.unwrap(main).__code__
    others = [code for code in codes if code.co_filename != __file__]
    return any(code is own or code.co_filename.startswith(package) for code in others)


def check(arguments: list[str], *, schema: type[Section], entry_point: Path) -> None:
    """Compose and validate the config of every job that the arguments ask for.

    Raises ConfigError. Help and completion are not checked, and neither is a config that still
    misses values when it is only shown.
    """
    options = _options(arguments)
    if options.hydra_help or options.shell_completion or options.experimental_rerun:
        return
    if options.help and not options.overrides:
        return
    only_shown = options.help or options.cfg or options.info
    with _open_folder(options, entry_point) as conf:
        overrides = _overrides(options, schema, conf)
        grid = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
        warnings: dict[str, None] = {}  # of all jobs, in order, each once
        for job in _jobs(overrides, conf, grid=grid):
            config = _compose(options.config_name or entry_point.stem, job, conf, grid=grid)
            if not only_shown or ": ???" not in OmegaConf.to_yaml(config):
                warnings.update(dict.fromkeys(_check_job(schema, config, job)))
        for line in warnings:
            print_message(f"warning: {line}")


def compose_job(name: str, arguments: Sequence[str]) -> DictConfig:
    """Return the config of one job of an entry point, checked as the command line's.

    Raises ConfigError. Hydra's state stays as it is: the caller may be another Hydra application.
    """
    if strange := [text for text in arguments if str(text).startswith("-")]:
        raise ConfigError(f"{strange[0]} is an option of the command line; write KEY=VALUE")
    schema = ENTRY_POINTS[name]
    options = _options(add_to_mappings(list(map(str, arguments)), schema))
    with COMPOSING, _open_folder(options, conf_folder().parent / f"{name}.py") as conf:
        (job,) = _jobs(_overrides(options, schema, conf), conf, grid=False)
        config = _compose(name, job, conf, grid=False)
        for line in _check_job(schema, config, job):
            print_message(f"warning: {line}")
    return config


def _overrides(
    options: argparse.Namespace, schema: type[Section], conf: ConfigFolder
) -> list[Override]:
    """Return the overrides. Raises ConfigError for a key that the entry point does not have."""
    overrides = [_parse(text, conf) for text in options.overrides]
    for override in overrides:
        _check_key(override, conf, setting_keys(schema))
    return overrides


@contextmanager
def _open_folder(options: argparse.Namespace, entry_point: Path) -> Iterator[ConfigFolder]:
    """Open the configs where Hydra will look: the project's, --config-dir, hydra.searchpath."""
    further = []
    if options.config_dir:
        if not Path(options.config_dir).is_dir():
            raise ConfigError(f"--config-dir {options.config_dir} is not a folder")
        further.append(f"file://{Path(options.config_dir).absolute()}")
    try:
        folder = config_folder(entry_point, options.config_path)
    except ValueError as error:
        raise ConfigError(_one_line(error)) from error
    texts = [text for text in options.overrides if SEARCH_PATH in text]
    if texts:
        with open_folder(folder, further) as conf:
            entries = [_parse(text, conf) for text in texts]
        for entry in entries:
            further += _search_path(entry)
    with open_folder(folder, further) as conf:
        yield conf


def _search_path(override: Override) -> list[str]:
    """Return the entries of hydra.searchpath=[…]; raise ConfigError for one that is not there."""
    if override.key_or_group != SEARCH_PATH:
        return []
    entries = override.value()
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ConfigError(f"{SEARCH_PATH} must be a list of folders, as in [file://FOLDER]")
    for entry in entries:
        scheme, _, path = entry.rpartition("://")
        if scheme not in ("", "file", "pkg"):
            raise ConfigError(f"{SEARCH_PATH}: {entry} must start with file:// or pkg://")
        if scheme != "pkg" and not Path(path).is_dir():
            raise ConfigError(f"{SEARCH_PATH}: {path} is not a folder")
    return list(map(str, entries))


def _options(arguments: list[str]) -> argparse.Namespace:
    try:
        options, surplus = parse_options(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if surplus:
        raise ConfigError(_surplus_word(surplus[0]))
    chosen = [name for name in COMMANDS if getattr(options, name)]
    if len(chosen) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise ConfigError(f"{names} exclude each other; choose one")
    if options.resolve and not (options.cfg or options.help):
        raise ConfigError("--resolve has no effect without --cfg; add --cfg job")
    return options


def _surplus_word(word: str) -> str:
    """Return the message about an argument that is neither an option of Hydra nor a setting."""
    if not word.startswith("-"):
        return f"{word} stands after an option; type options such as -m first"
    hint = "settings are typed as KEY=VALUE"
    if word.startswith("--") and "=" in word:
        hint += "; a W&B sweep passes them without dashes by ${args_no_hyphens} in its command"
    return f"{word} is unknown; {hint}"


def _check_job(schema: type[Section], config: DictConfig, overrides: list[str]) -> list[str]:
    if schema is TrainConfig and OmegaConf.select(config, "resume") is not None:
        return []  # its settings are those of the run, which is not read here
    settings = validate_config(schema, config)
    if not isinstance(settings, TrainConfig):
        return []
    reject_unused_overrides(settings, overrides, discrete=None)
    return settings.warnings()


def _parse(text: str, conf: ConfigFolder) -> Override:
    try:
        return conf.parse(text)
    except OverrideError as error:
        key, _, value = text.partition("=")
        quoted = shell_word(f"{key}={hydra_value(value)}")
        hint = f"; if the value is a text, type {quoted}" if value else ""
        message = f"{text} cannot be read as KEY=VALUE: {_one_line(error)}{hint}"
        raise ConfigError(message) from error


def _check_key(override: Override, conf: ConfigFolder, keys: list[str]) -> None:
    """Refuse secrets and keys that the entry point does not have, with or without a leading +."""
    key = override.key_or_group
    if holds_secret(key):
        remedy = "the run folder would keep it; use the environment, as with WANDB_API_KEY"
        raise ConfigError(f"{key} looks like a secret and {remedy}")
    for section, remedy in WITHOUT_EFFECT.items():
        if f"{key}.".startswith(f"{section}.") and not key.startswith(WITH_EFFECT):
            raise ConfigError(f"{override.input_line} has no effect: {remedy}")
    if conf.options(key):
        return  # the option is checked job by job
    if not key.startswith("hydra.") and not key_exists(key, keys):
        raise ConfigError(unknown_key(key, keys + conf.groups()))


def _check_choice(override: Override, conf: ConfigFolder) -> None:
    """Refuse a value of a group that is not the name of an option, and a list of options."""
    key, value = override.key_or_group, override.value()
    options = conf.options(key)
    if not options or override.is_delete() or key.startswith("hydra/") or key in SEVERAL:
        return
    if isinstance(value, list):
        several = "for several: logger.names=[wandb,tensorboard]"
        hint = several if key == "logger" else f"choose one, as in {key}={options[0]}"
        raise ConfigError(f"{override.input_line}: {key} takes one option; {hint}")
    if isinstance(value, int | float | None):
        raise ConfigError(f"{key}={format_value(value)} must be one of {_shorten(options)}")


def _jobs(overrides: list[Override], conf: ConfigFolder, *, grid: bool) -> Iterator[list[str]]:
    """Yield the overrides per job: all combinations, or enough of them to see every value."""
    choices = [list(_values(override, grid=grid)) for override in overrides]
    for text in itertools.chain(*choices):
        _check_choice(_parse(text, conf), conf)
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
    if not grid:
        hint = "add -m for a grid, or write a list as [1,2]"
        raise ConfigError(f"{override.input_line} has several values; {hint}")
    try:
        yield from sweep_values(override)
    except OverrideError as error:
        raise ConfigError(f"{override.input_line} is not a list of values: {error}") from error


def _compose(name: str, overrides: list[str], conf: ConfigFolder, *, grid: bool) -> DictConfig:
    try:
        return conf.compose(name, overrides, grid=grid)
    except MissingConfigException as error:
        raise _unknown_option(error, conf) from error
    except Exception as error:  # nothing of ours runs here: Hydra has no class for many mistakes
        _refuse_absent_section(overrides, error)
        raise ConfigError(_one_line(error) or type(error).__name__) from error


def _refuse_absent_section(overrides: list[str], error: Exception) -> None:
    """Raise ConfigError for an override of an algorithm other than `algorithm`."""
    for override in overrides:
        key = override.partition("=")[0]
        section = key.partition(".")[0]
        if section in ALGORITHMS and f"'{key}'" in str(error):
            raise ConfigError(
                f"{override} has no effect without algorithm={section}; leave it out"
            ) from error


def _unknown_option(error: MissingConfigException, conf: ConfigFolder) -> ConfigError:
    """Return the error `env=hoper is unknown; did you mean env=hopper? (available: ...)`."""
    parts = (error.missing_cfg_file or "").split("/")
    for length in range(len(parts) - 1, 0, -1):
        group, option = "/".join(parts[:length]), "/".join(parts[length:])
        available = conf.options(group)
        if available and ".." not in group:
            close, listed = closest(option, available), _shorten(available)
            hint = f"did you mean {group}={close}? (available: {listed})"
            hint = hint if close else f"available: {listed}"
            return ConfigError(f"{group}={option} is unknown; {hint}")
    return ConfigError(_one_line(error))


def _shorten(names: list[str]) -> str:
    """Return names for a message: the first MOST_LISTED, and the number of the others."""
    n_hidden = len(names) - MOST_LISTED
    more = f", … and {n_hidden} more: --help lists them" if n_hidden > 0 else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
