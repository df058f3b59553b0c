"""From a composed config to a checked dataclass; unknown keys get a suggestion.

Knows nothing about the command line, and not which settings there are: it reads the dataclass.
"""

import dataclasses
import difflib
import types
from fnmatch import fnmatchcase
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from offline_cql.config.entry_points import TrainConfig
from offline_cql.config.limits import Section, shown
from offline_cql.errors import ConfigError

S = TypeVar("S", bound=Section)
NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def typed(config: DictConfig) -> TrainConfig:
    """The checked settings of train.py. Raises ConfigError, one line."""
    return typed_as(TrainConfig, config)


def typed_as(section: type[S], config: DictConfig) -> S:
    """The config as the given dataclass, interpolations resolved. Raises ConfigError, one line."""
    known = keys(section)
    for key in _leaves(OmegaConf.to_container(config)):
        if not is_known(key, known):
            raise ConfigError(unknown(key, known))
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key} cannot be resolved: {reason}") from error
    made: S = _section(section, resolved, "")
    return made


def keys(section: type[Section]) -> list[str]:
    """The full keys of all settings of a dataclass, nested ones included: cql.alpha."""
    found: list[str] = []
    for name, hint in get_type_hints(section).items():
        hint = _present(hint)
        if isinstance(hint, type) and issubclass(hint, Section):
            found += [f"{name}.{inner}" for inner in keys(hint)]
        elif name in {field.name for field in dataclasses.fields(section)}:
            found.append(name)
            if get_origin(hint) is dict:  # whatever is inside it
                found.append(f"{name}.*")
    return found


def is_known(key: str, known: list[str]) -> bool:
    """Whether the key is one of a setting, or of a section of settings."""
    return any(setting.startswith(f"{key}.") or fnmatchcase(key, setting) for setting in known)


def unknown(key: str, known: list[str]) -> str:
    """The message about a key that does not exist, with the closest one that does."""
    close = closest(key, known)
    hint = f"did you mean {close}?" if close else "--help lists what people change, --cfg job all"
    return f"{key} is unknown; {hint}"


def closest(key: str, known: list[str]) -> str | None:
    """The known key most like this one: by its whole, then by its last part (alpha: cql.alpha)."""
    leaves: dict[str, str] = {}
    for candidate in known:
        leaves.setdefault(candidate.rpartition(".")[2], candidate)
    last = key.rpartition(".")[2]
    if last in leaves:
        return leaves[last]
    for word, words in ((key, list(known)), (last, list(leaves))):
        if match := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
            return leaves.get(match[0], match[0])
    return None


def _leaves(tree: Any, key: str = "") -> list[str]:
    """The full keys of everything in a nested mapping that is no mapping, or an empty one."""
    if not isinstance(tree, dict) or not tree:
        return [key]
    prefix = f"{key}." if key else ""
    return [leaf for name, value in tree.items() for leaf in _leaves(value, f"{prefix}{name}")]


def _section(section: type[Any], value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{key}={shown(value)} must be a section, one of the options of {key}")
    hints, prefix = get_type_hints(section), f"{key}." if key else ""
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        if field.name not in value or value[field.name] == MISSING:
            raise ConfigError(f"{prefix}{field.name} is missing; set {prefix}{field.name}=...")
        settings[field.name] = _value(hints[field.name], value[field.name], f"{prefix}{field.name}")
    return section(**settings)


def _present(hint: Any) -> Any:
    """The type of a setting that is not null."""
    if get_origin(hint) is not types.UnionType:
        return hint
    return next(option for option in get_args(hint) if option is not types.NoneType)


def _value(hint: Any, value: Any, key: str) -> Any:
    if value is None and _present(hint) is not hint:
        return None
    hint = _present(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _section(hint, value, key)
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{key}={shown(value)} must be a mapping, as in {key}={{name:1}}")
        return value
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ConfigError(f"{key}={shown(value)} must be a list, as in {key}=[1,2]")
        return [_value(get_args(hint)[0], item, key) for item in value]
    return _scalar(hint, value, key)


def _scalar(hint: type, value: Any, key: str) -> Any:
    """bool is no number here, and a text no bool: `cql.x=False` must not become true."""
    wrong = ConfigError(f"{key}={shown(value)} must be {NAMES[hint]}")
    allowed: dict[type, tuple[type, ...]] = {
        float: (float, int, str),
        int: (int, float, str),
        bool: (bool,),
        str: (str, int),
    }
    if not isinstance(value, allowed[hint]) or isinstance(value, bool) != (hint is bool):
        raise wrong
    try:
        number = hint(value)
    except (ValueError, OverflowError) as error:  # "abc"; int(inf), int(nan)
        raise wrong from error
    if hint is int and isinstance(value, float) and number != value:
        raise wrong
    return number
