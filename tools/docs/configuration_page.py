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

from earthsr.config import Config
from tools.docs.markdown import code, plain, table

PAGE = "reference/configuration.md"
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}

HEAD = """# Configuration

Generated from the schema that configurations are checked with (`earthsr config schema` prints it as JSON). A file has
up to five sections and may name a `backend`; a section or key that is absent takes its default, and an unknown key is
an error that names the nearest known one. `earthsr config show CONFIG` prints a configuration with all defaults filled
in, and every verb that takes a configuration takes `--set section.key=value`.
"""


def sections() -> dict[str, type[BaseModel]]:
    """Sections by the prefix of their keys: ``data``, …, and ``model`` once per network."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in Config.model_fields.items():
        classes = [each for each in (field.annotation, *get_args(field.annotation)) if _is_section(each)]
        for each in classes:
            found[name if len(classes) == 1 else f"{name} ({_names(each)[0]})"] = each
    return found


def anchors(section: str, model: type[BaseModel]) -> dict[str, str]:
    """Anchors of a section's keys on the page."""
    prefix = section.replace(" (", ".").replace(")", "")
    return {name: f"{prefix}.{name}" for name in model.model_fields}


def page() -> str:
    """Return the page."""
    backend = Config.model_fields["backend"]
    lines = [HEAD, table(COLUMNS, [_row("backend", "backend", backend)]), ""]
    for section, model in sections().items():
        places = anchors(section, model)
        rows = (_row(name, places[name], field) for name, field in model.model_fields.items())
        lines += [f"## {section}", "", inspect.cleandoc(model.__doc__ or ""), "", table(COLUMNS, rows), ""]
    return "\n".join(lines)


COLUMNS = ("key", "type and range", "default", "meaning")


def _row(name: str, anchor: str, field: FieldInfo) -> tuple[str, str, str, str]:
    if not field.description:
        raise ValueError(f"{anchor}: its field has no description; give it one in earthsr/config")
    kind = " ".join([_type(field.annotation, _bounds(field.metadata))])
    return f'<a id="{anchor}"></a>`{name}`', kind, _default(field), plain(field.description)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _names(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["name"].annotation)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else code(json.dumps(value))


def _bounds(metadata: Any) -> str:
    """Return the limits of a number or list, as ``>= 1, <= 10``."""
    words = []
    for each in _flat(metadata):
        for name, sign in SIGNS.items():
            limit = getattr(each, name, None)
            if limit is not None:
                words.append(f"{sign} {limit}")
        if getattr(each, "min_length", None):
            words.append(f"{each.min_length} or more")
    return ", ".join(words)


def _flat(metadata: Any) -> Iterator[Any]:
    for each in metadata:
        yield from _flat(each.metadata) if isinstance(each, FieldInfo) else (each,)


def _type(annotation: Any, bounds: str = "") -> str:
    """Return a type in words and code."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], ", ".join(filter(None, (bounds, _bounds(inner[1:])))))
    if origin is Literal:
        return " or ".join(code(json.dumps(each)) for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(each, "" if each is NoneType else bounds) for each in inner)
    if origin is list:
        text = f"list of {_type(inner[0])}"
    else:
        text = {int: "integer", float: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`"}[annotation]
    return f"{text}, {plain(bounds)}" if bounds else text
