"""A section of the configuration: read and set like a dictionary, checked when set; and the kinds of numbers in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earthsr.config.messages import config_error, unknown_key
from earthsr.errors import ConfigError


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
