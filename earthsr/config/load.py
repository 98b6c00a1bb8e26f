"""Reading a configuration from YAML, with overrides from the command line."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from earthsr.config.messages import config_error, unknown_key
from earthsr.config.model_sections import DemSRNetModel
from earthsr.config.schema import Config
from earthsr.errors import ConfigError, EarthsrWarning


class _Loader(yaml.SafeLoader):
    """Safe YAML in which ``1e-4`` is a number (YAML 1.1 takes it for text) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


def _resolver() -> None:
    import re

    _Loader.add_implicit_resolver("!sci", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
    _Loader.add_constructor("!sci", _number)


_resolver()


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{source}{at}: not valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def from_mapping(values: Mapping[str, Any], source: str | None = None) -> Config:
    """Validate a mapping of sections.

    Parameters
    ----------
    values : mapping
        Sections by their names, each a mapping of keys.
    source : str, optional
        Where they are from, for messages.

    Returns
    -------
    Config
        With defaults filled in.

    Raises
    ------
    ConfigError
        If a key is unknown (the nearest known one is named), out of range or of the wrong type.
    """
    plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    model = plain.get("model")
    if isinstance(model, dict):
        # The general model is the default; the discriminator has to be there before validation.
        name = model.setdefault("name", DemSRNetModel.model_fields["name"].default)
        if isinstance(name, str) and name.lower() in ("demsrnet", "dem-srnet"):
            model["name"] = "demsrnet"
    for section in ("model", "data", "optimizer", "summary", "train"):
        if section in plain and plain[section] is None:
            del plain[section]
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise config_error(error, Config, where="", source=source) from None
    given = {
        name: value
        for name, value in (
            ("optimizer.epochs", config.optimizer.epochs),
            ("data.epochs", config.data.epochs),
            ("data.epoch_size", config.data.epoch_size),
        )
        if value is not None
    }
    if len(set(given.values())) > 1:
        found = ", ".join(f"{name} = {value}" for name, value in given.items())
        warnings.warn(f"{found} disagree; {next(iter(given))} is used", EarthsrWarning, stacklevel=3)
    return config


def _override(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {assignment}: expected section.key=value, for example optimizer.learning_rate=1e-4")
    parts = key.strip().split(".")
    value = _parse(text, f"--set {key}")
    if parts == ["backend"]:
        values["backend"] = value
        return
    if len(parts) != 2:
        homes = [f"{name}.{parts[0]}" for name, section in Config().items() if parts[0] in (section or ())]
        hint = f"; did you mean {' or '.join(homes)}?" if len(parts) == 1 and homes else ""
        raise ConfigError(
            f"--set {assignment}: expected section.key=value, found {len(parts)} level(s) in {key!r}{hint}"
        )
    section, name = parts
    if section not in Config.model_fields or section == "backend":
        raise ConfigError(f"--set {assignment}: {unknown_key(section, Config.model_fields, '')}")
    inner = values.setdefault(section, {})
    if inner is None:
        inner = values[section] = {}
    if not isinstance(inner, dict):
        raise ConfigError(f"{section} is {inner!r}, expected a section of keys and values")
    inner[name] = value


def load_yaml_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Load a YAML configuration.

    Parameters
    ----------
    path : str or Path
        A file with the sections ``model``, ``data``, ``optimizer``, ``summary``, ``train``; each may be absent.
    overrides : iterable of str
        ``section.key=value`` assignments that go before the file; values are YAML.

    Returns
    -------
    Config
        Readable by attribute (``config.train.amp_level``) or as a dictionary (``config["train"]["amp_level"]``).

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or does not hold what the schema allows.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file; configs/ has examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a YAML text file ({error})") from None
    values = _parse(text, str(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as model and data, found {type(values).__name__}")
    for assignment in overrides:
        _override(values, assignment)
    return from_mapping(values, source=str(path))


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML that :func:`load_yaml_config` reads back to an equal object.

    Parameters
    ----------
    config : Config
        The configuration.
    """
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
