"""Networks that packages bring: what ``model`` takes for them in a configuration, from the fields of their specs."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from functools import cache, reduce
from importlib.metadata import entry_points
from operator import or_
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

from pydantic import BaseModel, Field, create_model

from earthsr.errors import EarthsrWarning

#: Entry points of packages that bring specs of networks.
GROUP: Final = "earthsr.networks"


@cache
def installed_networks() -> dict[str, type[Any]]:
    """Return the specs that packages bring, by their kinds; one that cannot be used warns and is left out."""
    specs: dict[str, type[Any]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        label = f"network {entry.name} ({entry.value})"
        try:
            spec = entry.load()
            if not (isinstance(spec, type) and dataclasses.is_dataclass(spec)):
                raise TypeError("it is not the class of a spec")
            kind, workload = str(getattr(spec, "kind", "")), getattr(spec, "workload", "")
            if kind != entry.name or not workload:
                raise TypeError(f"it says kind {kind!r} and workload {workload!r}, expected {entry.name!r} and a name")
            if any(field.default is dataclasses.MISSING for field in dataclasses.fields(spec)):
                raise TypeError("a field of it has no default")
            if not (hasattr(spec, "from_fields") and hasattr(spec, "parameters")):
                raise TypeError("it is no earthsr.models.NetworkSpec")
        except Exception as error:  # a plug-in may fail in any way; it must not take the others down
            warnings.warn(f"{label} cannot be loaded: {error}", EarthsrWarning, stacklevel=2)
            continue
        specs[kind] = spec
    return specs


def with_networks(config: type[BaseModel], members: Iterable[type[BaseModel]], workload: str) -> type[BaseModel]:
    """Let the ``model`` section of a workload's configuration be of the networks that packages bring for it, too.

    Parameters
    ----------
    config : type of Config
        The workload's own.
    members : iterable of type of ModelSection
        What its ``model`` section may be.
    workload : str
        Its name, as specs say it.
    """
    members = list(members)
    specs = [spec for spec in installed_networks().values() if spec.workload == workload]
    if not specs or not members:
        return config
    base = next(parent for parent in members[0].__mro__ if "section" in vars(parent))
    names = {name for member in members for name in get_args(member.model_fields["name"].annotation)}
    sections = [*members]
    for spec in specs:
        try:
            if spec.kind in names:
                raise TypeError(f"workload {workload} has a network of that name")
            sections.append(_section(spec, base))
        except Exception as error:  # such as a type that no key of a configuration can have
            warnings.warn(f"network {spec.kind} cannot be chosen: {error}", EarthsrWarning, stacklevel=2)
    if len(sections) == len(members):
        return config
    own = config.model_fields["model"]
    default: Any = {"default_factory": own.default_factory} if own.default_factory else {"default": own.default}
    field = Field(description=own.description, **default)
    annotation: Any = Annotated[reduce(or_, sections), Field(discriminator="name")]
    extended: type[BaseModel] = create_model(
        config.__name__,
        __base__=config,
        __module__=config.__module__,
        __doc__=config.__doc__,
        model=(annotation, field),
    )
    return extended


def _section(spec: type[Any], base: type[BaseModel]) -> type[BaseModel]:
    """Section of a configuration whose keys are the fields of a spec, within its bounds."""
    hints = get_type_hints(spec)
    keys: dict[str, Any] = {"name": (Literal[spec.kind], Field(description=f"which network: {spec.kind}"))}
    for field in dataclasses.fields(spec):
        least, most = getattr(spec, "bounds", {}).get(field.name, (None, None))
        limits = {key: value for key, value in (("ge", least), ("le", most)) if value is not None}
        keys[field.name] = (hints[field.name], Field(field.default, description=f"of {spec.kind}", **limits))
    made: type[BaseModel] = create_model(f"{spec.__name__}Section", __base__=base, __doc__=spec.__doc__, **keys)
    return made
