"""A section of the configuration: read and set like a dictionary, checked when set; and the kinds of numbers in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earthsr.config.workloads import section_classes, whose
from earthsr.errors import ConfigError


def unknown_key(key: str, known: Iterable[str], section: str) -> str:
    """Text for a key that a section does not have: whose it is, or the nearest key that the section has."""
    known = list(known)
    where = f"{section}.{key}" if section else key
    foreign = whose(section, key)
    if foreign is not None:
        return f"{foreign}, which this configuration is not of: leave it out"
    lowered = {name.lower(): name for name in known}
    word = str(key).lower()
    initials = [name for name in lowered if "_" in name and word == "".join(part[:1] for part in name.split("_"))]
    near = difflib.get_close_matches(word, list(lowered), n=1, cutoff=0.5) or initials[:1]
    hint = f"did you mean {lowered[near[0]]}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where}; {hint}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> Iterable[str]:
    """Field names of the section that ``location`` (a pydantic error location without its last item) leads to."""
    current: Any = model
    for item in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and item in current.model_fields:
            current = current.model_fields[item].annotation
            continue
        for member in get_args(current):
            if isinstance(member, type) and issubclass(member, BaseModel):
                names = get_args(member.model_fields["name"].annotation) if "name" in member.model_fields else ()
                if item in names:
                    current = member
                    break
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current.model_fields.keys()
    return ()


def _model_names(model: type[BaseModel]) -> list[str]:
    """Names that the model section answers to."""
    members = section_classes(model, "model")
    return [name for member in members for name in get_args(member.model_fields["name"].annotation)]


def config_error(error: ValidationError, model: type[BaseModel], where: str, source: str | None = None) -> ConfigError:
    """Make a :class:`ConfigError` of the first problem that pydantic found, and count the others."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    location = tuple(problem["loc"])
    names = set(_model_names(model))
    # pydantic puts the tag of a discriminated union into the path; the YAML file has no such level.
    shown = ".".join(str(item) for i, item in enumerate(location) if not (i == 1 and item in names))
    path = ".".join(part for part in (where, shown) if part)
    if problem["type"] == "extra_forbidden":
        section = path.rpartition(".")[0]
        text = unknown_key(str(location[-1]), _fields_at(model, location[:-1]), section)
    elif problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        name = problem["input"].get("name") if isinstance(problem["input"], dict) else problem["input"]
        text = f"{path}.name is {name!r}, expected one of: {', '.join(_model_names(model))}"
    elif problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
    else:
        message = problem["msg"]
        text = f"{path} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    prefix = f"{source}: " if source else ""
    return ConfigError(f"{prefix}{text}{more}")


class Section(BaseModel):
    """A part of the configuration that can be read and set like a dictionary; values are checked when set."""

    section: ClassVar[str] = ""
    """Name of the section that a class describes, as it stands in the YAML file; empty for the whole."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True)

    def __getitem__(self, key: str) -> Any:
        self._known(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._known(key)
        before = self.__dict__.copy()
        try:
            setattr(self, key, value)
        except ValidationError as error:
            # A model validator that fails after the assignment leaves the new value behind; take it back.
            self.__dict__.update(before)
            raise config_error(error, type(self), where=self.section) from None

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields

    def _known(self, key: str) -> None:
        if key not in type(self).model_fields:
            raise UnknownKey(key, type(self).model_fields, self.section)

    def keys(self) -> Iterable[str]:
        """Names of the keys, in the schema's order."""
        return type(self).model_fields.keys()

    def values(self) -> list[Any]:
        """Values, in the schema's order."""
        return [getattr(self, key) for key in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of key and value, in the schema's order."""
        return [(key, getattr(self, key)) for key in self.keys()]

    def get(self, key: str, default: Any = None) -> Any:
        """Value of ``key``, or ``default`` where the schema has no such key."""
        return getattr(self, key) if key in self else default

    def update(self, values: dict[str, Any]) -> None:
        """Set several keys, each one checked."""
        for key, value in values.items():
            self[key] = value


class UnknownKey(ConfigError, KeyError):
    """A key that the section does not have; also a ``KeyError``, as a dictionary's user expects."""

    def __init__(self, key: str, known: Iterable[str], section: str) -> None:
        self.message = unknown_key(key, known, section)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


def lower(value: Any) -> Any:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def none_if_blank(value: Any) -> Any:
    """None for text of nothing but spaces, as MindEarth's files have it."""
    return None if isinstance(value, str) and not value.strip() else value


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
OddKernel = Annotated[int, Field(ge=1, le=15, description="odd side of every convolution kernel, in cells")]
