"""Validation of a composed config: settings, or one line for the first error.

Knows no setting by name: types, ranges and cross-checks are those of the sections.
"""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from offline_cql.config import run_name  # noqa: F401 - registers the resolvers of conf/
from offline_cql.config.keys import key_exists, leaves, setting_keys, subsection, unknown_key
from offline_cql.config.section import Section, format_value
from offline_cql.errors import ConfigError

S = TypeVar("S", bound=Section)
TYPES = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "int_parsing_size": "must be a whole number below 2^63",
    "float": "must be a number",
    "string": "must be text",
    "auto_or_count": "must be auto or a whole number from 1 to 1024",
    "finite": "must be finite",
    "model": "must be a section, one of the options of {key}",
    "list": "must be a list, as in {key}=[1,2]",
    "dict": "must be a mapping, as in {key}={{name:1}}",
}
BOUNDS = {
    annotated_types.Ge: ("ge", ">="),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "<="),
    annotated_types.Lt: ("lt", "<"),
}


def validate_config(schema: type[S], config: DictConfig) -> S:
    """Return the settings of a composed config. Raises ConfigError, one line."""
    keys = setting_keys(schema)
    for key, _ in leaves(OmegaConf.to_container(config)):
        if not key_exists(key, keys):
            raise ConfigError(unknown_key(key, keys))
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key} cannot be resolved: {reason}") from error
    values = _drop_missing(values)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        # A section may interpolate a setting of the top level (${updates}): that one is named.
        first = min(error.errors(), key=lambda details: len(details["loc"]))
        raise ConfigError(error_line(schema, values, first)) from error


def error_line(schema: type[Section], values: Any, error: ErrorDetails) -> str:
    """Return pydantic's error as `key=value must be …`, in the notation of the command line."""
    names = [name for name in error["loc"] if isinstance(name, str)]
    key, field = ".".join(names), _field(schema, names)
    kind, value = error["type"], format_value(error["input"])
    if kind == "missing":
        return f"{key} is missing; set {key}=..."
    if kind == "literal_error":
        return f"{key}={value} must be one of {', '.join(_choices(field.annotation))}"
    if kind == "finite_number" and int in _parts(field.annotation):
        return f"{key}={value} {TYPES['int']}"
    if text := TYPES.get(kind, TYPES.get(kind.partition("_")[0])):
        return f"{key}={value} {text.format(key=key)}"
    for name in names:  # a range: of a list all values are shown
        values = values[name]
    bounds = " and ".join(dict.fromkeys(_bounds(field)))
    hint = f" {field.description}" if field.description else ""
    return f"{key}={format_value(values)} must be {bounds}{hint}"


def _drop_missing(values: Any) -> Any:
    """Drop the values that are still ???, which a section then reports as missing."""
    if not isinstance(values, dict):
        return values
    return {name: _drop_missing(v) for name, v in values.items() if v != MISSING}


def _field(schema: type[Section], names: list[str]) -> FieldInfo:
    *sections, last = names
    for name in sections:
        nested = subsection(schema.model_fields[name].annotation)
        if nested is None:  # inside a mapping, whose values have no type
            return schema.model_fields[name]
        schema = nested
    return schema.model_fields[last]


def _parts(hint: Any) -> Iterator[Any]:
    """Yield a type hint and everything inside its unions, lists and annotations."""
    yield hint
    if get_origin(hint) in (Annotated, list, Union, types.UnionType):
        for part in get_args(hint):
            yield from _parts(part)


def _choices(hint: Any) -> Iterator[str]:
    for part in _parts(hint):
        if get_origin(part) is Literal:
            yield from map(str, get_args(part))


def _bounds(field: FieldInfo) -> Iterator[str]:
    """Yield the limits of a number or of the numbers in a list: ">= 0", "< 1"."""
    metadata = [*field.metadata]
    for part in _parts(field.annotation):
        metadata += part.metadata if isinstance(part, FieldInfo) else [part]
    for item in metadata:
        if type(item) in BOUNDS:
            name, sign = BOUNDS[type(item)]
            yield f"{sign} {format_value(getattr(item, name))}"
