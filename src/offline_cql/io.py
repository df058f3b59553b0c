"""Atomic writes, JSON and YAML of others, and locks between processes."""

import contextlib
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offline_cql.errors import ConfigError, DataError
from offline_cql.render.message import print_message
from offline_cql.render.numbers import format_size

LARGEST_JSON, LARGEST_CONFIG = 2**26, 2**20  # bytes of a file
DEEPEST_YAML, MOST_NODES = 50, 10_000  # nested lists and mappings; values, aliases expanded
MOST_INTERPOLATIONS = 16  # of a config; each may contain two others
# The content of a JSON object that is read: per key a type, several types, or a nested shape.
Shape: TypeAlias = Mapping[str, Any]
NUMBER = (int, float)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is complete or unchanged: temporary file, flush, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with located(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Block until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


CACHE_REMEDY = "set OFFLINE_CQL_CACHE to a folder that you can write, on a disk with space"


def home_folder() -> Path | None:
    """Return the user's home; None without one, or with a HOME that is not an absolute path."""
    if not os.path.isabs(os.environ.get("HOME", "/")):  # Python takes "" as /
        return None
    try:
        return Path.home()
    except RuntimeError:
        return None


def expand_home(path: str, remedy: str) -> Path:
    """Return a path with ~ replaced; raise ConfigError `…: remedy` for a user without a home."""
    if path.startswith("~") and "HOME" in os.environ and home_folder() is None:
        home = os.environ["HOME"]
        raise ConfigError(f"{path} cannot be found (HOME={home} is not an absolute path): {remedy}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} cannot be found (there is no home folder): {remedy}") from error


def cache_root() -> Path:
    """Return $OFFLINE_CQL_CACHE, or offline_cql in the user's cache folder.

    Raises ConfigError for a user without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = os.environ.get("OFFLINE_CQL_CACHE") or f"{base}/offline_cql"
    return expand_home(root, CACHE_REMEDY).absolute()


@contextlib.contextmanager
def located(path: Path) -> Iterator[None]:
    """Name the file in errors of the operating system about its content, which lack it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def remedied(folder: Path, remedy: str) -> Iterator[None]:
    """Add the remedy to errors of the operating system about a folder, its parents and content."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | bytes):
            place = Path(os.fsdecode(error.filename)).absolute()
            if place.is_relative_to(folder.absolute()) or folder.absolute().is_relative_to(place):
                error.add_note(remedy)
        raise


# --- Files of other origin -----------------------------------------------------------------------


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a regular file. Raises DataError for another kind or a larger file.

    A pipe or a device is not opened for reading: it could wait forever, or never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a regular file: replace it by one")
        if limit is not None and status.st_size > limit:
            raise DataError(
                f"{path} has {format_size(status.st_size)}, more than {format_size(limit)}: "
                "restore it"
            )
        with located(path), open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_json(
    path: Path, shape: Shape | None = None, *, remedy: str = "restore it"
) -> dict[str, Any]:
    """Return the object in a JSON file. Raises DataError, ending in the remedy, for anything else.

    shape: the keys that are needed, with their types.
    """
    try:
        content = json.loads(read_bytes(path, limit=LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}): {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is corrupt (it contains no JSON object): {remedy}")
    check_shape(path, content, shape or {}, remedy=remedy)
    return content


def check_shape(path: Path, content: Any, shape: Shape, *, remedy: str = "restore it") -> None:
    """Raise DataError, ending in the remedy, for the content of a file that lacks a shape."""
    if (key := differing_key(content, shape)) is not None:
        raise DataError(f"{path} is corrupt ({key} is missing or has the wrong type): {remedy}")


def differing_key(content: Any, shape: Shape) -> str | None:
    """Return the first key of a shape whose value in the content is absent or of another type."""
    for key, kind in shape.items():
        value = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(kind, Mapping) and isinstance(value, Mapping):
            if (inner := differing_key(value, kind)) is not None:
                return f"{key}.{inner}"
        elif isinstance(kind, Mapping) or not isinstance(value, kind):
            return key
    return None


def read_config(path: Path) -> DictConfig:
    """Return the mapping in a YAML file; interpolations stay as they are written.

    Raises DataError for anything else, and for what a small file can let grow without bound:
    aliases, many interpolations, deep nesting.
    """
    text = read_bytes(path, limit=LARGEST_CONFIG)
    if text.count(b"${") > MOST_INTERPOLATIONS:
        raise DataError(f"{path} has more than {MOST_INTERPOLATIONS} interpolations: restore it")
    try:
        if (fault := yaml_fault(text)) is not None:
            raise DataError(f"{path} is not a config ({fault}): restore it")
        config = OmegaConf.create(text.decode())
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not YAML ({error}): restore it") from error
    assert isinstance(config, DictConfig)  # yaml_fault names what is no mapping
    return config


def yaml_fault(text: bytes) -> str | None:
    """Return why a YAML file is refused: no mapping, too deep, or too large with its aliases.

    None for a file that can be loaded.
    """
    if text.count(b"[") + text.count(b"{") > MOST_NODES:  # libyaml needs minutes for those
        return f"more than {MOST_NODES:,} brackets"
    try:
        return _node_fault(text)
    except (yaml.YAMLError, ValueError) as error:
        return f"it is not YAML: {error}"


def _node_fault(text: bytes) -> str | None:
    """Return what `yaml_fault` returns, from the events of the parser. Raises YAMLError."""
    sizes: dict[str, int] = {}  # of the nodes with an anchor
    outer: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size of the nodes that are open
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            if len(outer) == 1 and not isinstance(event, yaml.MappingStartEvent):
                return "it is no mapping"
            outer.append((event.anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = outer.pop()
        elif isinstance(event, yaml.ScalarEvent):
            if len(outer) == 1 and event.value:
                return "it is no mapping"
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor, 1)
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer[-1] = (outer[-1][0], outer[-1][1] + size)
        if len(outer) > DEEPEST_YAML or outer[-1][1] > MOST_NODES:
            return f"more than {MOST_NODES:,} values with its aliases, or {DEEPEST_YAML} levels"
    return None


def refuse_link(path: str, flags: int) -> int:
    """Open a file of a run that is changed in place; its link could lead to any other file.

    An `opener` of `open`. Raises OSError for a link.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`; wait for another process, and print that it is `doing`.

    The operating system releases the lock when the process ends, even when it is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_message(f"another process is {doing}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. Raises ConfigError if another process holds it."""
    with open(folder / ".lock", "a+", opener=refuse_link) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"{folder} is in use by process {lock.read().strip() or 'unknown'}; wait for it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
