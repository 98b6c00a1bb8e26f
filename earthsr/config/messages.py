"""Turning validation failures into one line that says what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

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
