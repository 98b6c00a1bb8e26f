"""Reading a configuration from YAML, with overrides from the command line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from earthsr.config.sections import Config, config_error, unknown_key
from earthsr.config.workloads import (
    Workload,
    find_workload,
    installed_workloads,
    owners,
    section_classes,
    whose,
)
from earthsr.errors import ConfigError, EarthsrWarning

#: What a file without ``model.name`` is of, as MindEarth's are.
DEFAULT_MODEL: Final = "demsrnet"


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


_Loader.add_implicit_resolver("!sci", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_constructor("!sci", _number)


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
    return _validated(values, source, frozenset())


def _validated(values: Mapping[str, Any], source: str | None, typed: frozenset[str]) -> Config:
    """Validate; ``typed`` are the keys that somebody has just typed."""
    plain = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    # A run's own copy has all of them, and so had those of earlier versions, with the keys of every workload.
    saved = set(plain) >= set(Config.model_fields)
    plain = {key: value for key, value in plain.items() if value is not None or key not in Config.model_fields}
    model = plain.setdefault("model", {})
    name = model.get("name", DEFAULT_MODEL) if isinstance(model, dict) else DEFAULT_MODEL
    try:
        workload, name = find_workload(name)
        if isinstance(model, dict):
            model["name"] = name
        _settle_foreign_keys(plain, workload, name, saved, typed)
        config: Config = workload.config.model_validate(plain)
    except ValidationError as error:
        raise config_error(error, workload.config, where="", source=source) from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}" if source else str(error)) from None
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
        listed = ", ".join(f"{name} = {value}" for name, value in given.items())
        warnings.warn(f"{listed} disagree; {next(iter(given))} is used", EarthsrWarning, stacklevel=4)
    return config


def _settle_foreign_keys(
    plain: dict[str, Any], workload: Workload, name: str, saved: bool, typed: frozenset[str]
) -> None:
    """Refuse keys of other workloads; where a run saved them at their defaults, as earlier versions did, drop them."""
    for section, keys in plain.items():
        if not isinstance(keys, dict) or section not in Config.model_fields:
            continue
        own = {key for member in section_classes(workload.config, section) for key in member.model_fields}
        for key in [key for key in keys if key not in own]:
            defaults = [default for _, default in owners(section, key)]
            if not defaults:
                continue
            if saved and keys[key] in defaults and f"{section}.{key}" not in typed:
                del keys[key]
                continue
            raise ConfigError(f"{whose(section, key)}; this configuration is of {name}: remove it")


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
        homes = [f"{name}.{parts[0]}" for name in Config.model_fields if _is_key(name, parts[0])]
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


def _is_key(section: str, key: str) -> bool:
    """Whether any workload's section has a key."""
    return any(
        key in member.model_fields
        for workload in installed_workloads().values()
        for member in section_classes(workload.config, section)
    )


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

    Examples
    --------
    >>> import earthsr
    >>> config = earthsr.load_yaml_config("configs/dem_srnet.yaml", ["model.features=16"])
    >>> config["model"]["features"]
    16
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
    typed = set()
    for assignment in overrides:
        _override(values, assignment)
        typed.add(assignment.partition("=")[0].strip())
    return _validated(values, str(path), frozenset(typed))


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of configurations: those of any workload that is installed."""
    classes = [workload.config for workload in installed_workloads().values()]
    schemas, definitions = models_json_schema([(kind, "validation") for kind in classes])
    return {"title": "Configuration", "anyOf": [schemas[kind, "validation"] for kind in classes], **definitions}


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML that :func:`load_yaml_config` reads back to an equal object.

    Parameters
    ----------
    config : Config
        The configuration.
    """
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
