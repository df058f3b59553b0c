"""The base of every group of settings: types, and checks that name the setting.

Each number stands once, in conf/: a section states types and ranges but no defaults.
"""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from offline_cql.errors import ConfigError
from offline_cql.io import expand_home

LARGEST_INTEGER = 2**63 - 1  # of torch and NumPy
MOST_THREADS = 1024
LARGEST_SEED = 2**32 - 1  # NumPy's legacy generator takes 32 bits


def _refuse_bool(kind: Literal["int_type", "float_type"]) -> BeforeValidator:
    """Refuse true and false where a number belongs, and integers that arrays cannot hold."""

    def refuse(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        if kind == "int_type" and isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise PydanticKnownError("int_parsing_size")
        return value

    return BeforeValidator(refuse)


def _auto_or_count(value: Any) -> Any:
    """Refuse what is neither auto nor a number of threads that a machine can have."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value not in ("auto", None) and not (whole and 1 <= value <= MOST_THREADS):
        raise PydanticCustomError("auto_or_count", "auto or a count")
    return value


def to_text(value: Any) -> Any:
    """Accept 32 for "32": the command line reads it as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _replace_home(path: str) -> str:
    """Replace a leading ~, which the shell does not do after `=` in quotes."""
    return str(expand_home(path, "write an absolute path")) if path.startswith("~") else path


Flag: TypeAlias = StrictBool
Integer = Annotated[int, _refuse_bool("int_type")]
Number = Annotated[float, _refuse_bool("float_type")]
Text = Annotated[str, BeforeValidator(to_text), Field(pattern=r"^[^\x00]*$")]
Location = Annotated[Text, AfterValidator(_replace_home)]
Count = Annotated[Integer, Field(ge=1)]
Amount = Annotated[Integer, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Factor = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(gt=0, le=1)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Threads = Annotated[Literal["auto"] | int | None, BeforeValidator(_auto_or_count)]
Seed = Annotated[Integer, Field(ge=0, le=LARGEST_SEED)]


def format_value(value: object) -> str:
    """Return a value as it is written on the command line: null, false, 5, [256, 256]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list):
        return f"[{', '.join(format_value(item) for item in value)}]"
    return str(value)


class Section(BaseModel):
    """A group of settings. pydantic checks types and ranges; then `check` compares settings."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    prefix: ClassVar[str] = ""

    @model_validator(mode="after")
    def _check(self) -> "Section":
        self.check()
        return self

    def check(self) -> None:
        """Raise ConfigError when settings do not fit each other."""

    def key(self, name: str) -> str:
        """Return the full key of a setting, cql.alpha."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def setting(self, name: str) -> str:
        """Return a setting as it is written on the command line, cql.alpha=5."""
        return f"{self.key(name)}={format_value(getattr(self, name))}"

    def require(self, holds: bool, name: str, complaint: str) -> None:
        """Raise ConfigError `key=value complaint` unless the condition holds."""
        if not holds:
            raise ConfigError(f"{self.setting(name)} {complaint}")
