"""An extension of griffe, which reads the sources for mkdocstrings: the package's own public names, and roles.

``earthsr`` loads its public names when they are first used, which a reader of sources cannot see; and docstrings name
other objects in the roles that editors and ``help()`` readers know, :class:`earthsr.Model`, which become links here.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

import earthsr

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([^`]+)`")


class PublicNames(griffe.Extension):
    """Adds the names of ``earthsr.__all__`` to the package, and turns roles into cross references."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Add the public names."""
        if pkg.path != "earthsr":
            return
        for name, module in earthsr._PUBLIC.items():
            pkg.set_member(name, griffe.Alias(name, f"{module}.{name}"))

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn the roles of a docstring into cross references, looked up from where it stands."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _reference(role, obj), obj.docstring.value)


def _reference(role: re.Match[str], obj: griffe.Object) -> str:
    """Return a link to what a role names where the site has it, else its name alone."""
    short, name = role.groups()
    shown = f"<code>{name.rpartition('.')[2] if short else name}</code>"
    place = name if name.startswith("earthsr.") else _looked_up(name, obj)
    return shown if place is None else f'<autoref optional identifier="{place}">{shown}</autoref>'


def _looked_up(name: str, obj: griffe.Object) -> str | None:
    first, dot, rest = name.partition(".")
    scope: griffe.Object | griffe.Alias | None = obj
    while scope is not None:
        if first in scope.members:
            member = scope.members[first]
            return (member.target_path if isinstance(member, griffe.Alias) else member.path) + dot + rest
        scope = scope.parent
    return None
