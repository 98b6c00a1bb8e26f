"""The reference of the configuration, from the pydantic schema: every key, its type, range, default and meaning."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from earthsr.config import Config, installed_workloads
from earthsr.config.workloads import section_classes
from tools.docs.markdown import code, plain, table

PAGE = "reference/configuration.md"
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

HEAD = """# Configuration

Generated from the schema that configurations are checked with (`earthsr config schema` prints it as JSON). A file has
up to five sections and may name a `backend`; a section or key that is absent takes its default, and an unknown key is
an error that names the nearest known one. `model.name` chooses the workload: keys under a heading that names one are
of that workload alone, and an error in a configuration of another. `earthsr config show CONFIG` prints a configuration
with all defaults filled in, and every verb that takes a configuration takes `--set section.key=value`.
"""


def sections() -> dict[str, type[BaseModel]]:
    """Sections by their headings: ``model (demsrnet)``, those that all workloads share, and own keys."""
    tables: dict[str, type[BaseModel]] = {}
    shared = {name: section_classes(Config, name) for name in Config.model_fields}
    workloads = installed_workloads().values()
    for workload in workloads:
        for model in section_classes(workload.config, "model"):
            tables[f"model ({_names(model)[0]})"] = model
    for name, classes in shared.items():
        for common in classes if name != "model" else ():
            tables[name] = common
            for workload in workloads:
                for own in section_classes(workload.config, name):
                    if set(own.model_fields) > set(common.model_fields):
                        tables[f"{name} ({workload.title})"] = own
    return tables


def keys(section: str, model: type[BaseModel]) -> list[str]:
    """Keys that a section's table shows: of a workload's section those that it does not share."""
    name, _, owner = section.partition(" (")
    common = section_classes(Config, name)[0].model_fields if owner and name != "model" else ()
    return [key for key in model.model_fields if key not in common]


def anchors(section: str, model: type[BaseModel]) -> dict[str, str]:
    """Anchors of a section's keys on the page."""
    prefix = section.replace(" (", ".").replace(")", "").replace(" ", "-") if section.startswith("model") else ""
    prefix = prefix or section.partition(" (")[0]
    return {name: f"{prefix}.{name}" for name in keys(section, model)}


def page() -> str:
    """Return the page."""
    backend = Config.model_fields["backend"]
    lines = [HEAD, table(COLUMNS, [_row("backend", "backend", backend)]), ""]
    for section, model in sections().items():
        places = anchors(section, model)
        rows = (_row(name, place, model.model_fields[name]) for name, place in places.items())
        lines += [f"## {section}", "", inspect.cleandoc(model.__doc__ or ""), "", table(COLUMNS, rows), ""]
    return "\n".join(lines)


COLUMNS = ("key", "type and range", "default", "meaning")


def _row(name: str, anchor: str, field: FieldInfo) -> tuple[str, str, str, str]:
    if not field.description:
        raise ValueError(f"{anchor}: its field has no description; give it one in earthsr/config")
    kind = " ".join([_type(field.annotation, _bounds(field.metadata))])
    return f'<a id="{anchor}"></a>`{name}`', kind, _default(field), plain(field.description)


def _names(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["name"].annotation)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else code(json.dumps(value))


def _bounds(metadata: Any) -> str:
    """Return the limits of a number or list, as ``>= 1, <= 10``."""
    words = []
    for constraint in _flat(metadata):
        for name, sign in SIGNS.items():
            limit = getattr(constraint, name, None)
            if limit is not None:
                words.append(f"{sign} {limit}")
        if getattr(constraint, "min_length", None):
            words.append(f"{constraint.min_length} or more")
    return ", ".join(words)


def _flat(metadata: Any) -> Iterator[Any]:
    for item in metadata:
        yield from _flat(item.metadata) if isinstance(item, FieldInfo) else (item,)


def _type(annotation: Any, bounds: str = "") -> str:
    """Return a type in words and code."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], ", ".join(filter(None, (bounds, _bounds(inner[1:])))))
    if origin is Literal:
        return " or ".join(code(json.dumps(member)) for member in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(member, "" if member is NoneType else bounds) for member in inner)
    if origin is list:
        text = f"list of {_type(inner[0])}"
    elif origin is tuple:
        text = f"list of {len(inner)}: {', '.join(_type(member) for member in inner)}"
    else:
        text = {int: "integer", float: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`"}[annotation]
    return f"{text}, {plain(bounds)}" if bounds else text
