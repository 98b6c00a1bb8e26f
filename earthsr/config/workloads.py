"""Finding workloads through the entry points ``earthsr.tasks``, and whose a key of a configuration is."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel

from earthsr.config.networks import installed_networks, with_networks
from earthsr.errors import ConfigError, EarthsrWarning

GROUP = "earthsr.tasks"


class Workload(ABC):
    """What an entry point of the group ``earthsr.tasks`` names: a workload's configuration, and its task."""

    name: ClassVar[str]
    """Such as ``dem``."""
    title: ClassVar[str]
    """What messages call it, such as ``land use``."""
    config: ClassVar[type[Any]]
    """Its :class:`earthsr.config.Config`: the names of its model sections choose it."""
    variables: ClassVar[tuple[str, ...]] = ()
    """Variables that :func:`earthsr.plot` takes of a file that has several, the first that is there."""

    @abstractmethod
    def task(self, config: Any) -> Any:
        """Return the :class:`earthsr.tasks.Task` of a ``config`` of this workload."""

    def data_keys(self, spec: Mapping[str, Any], metadata: Mapping[str, Any], root: Path) -> dict[str, Any]:
        """Return the keys of ``data`` that evaluate a model whose configuration is lost.

        Parameters
        ----------
        spec : mapping
            Of the model's network.
        metadata : mapping
            What the weights file says.
        root : Path
            Folder of the data.

        Raises
        ------
        DataError
            If the folder holds no data of this workload.
        """
        return {}

    def draws(self, source: Any) -> bool:
        """Whether an open raster, a :class:`earthsr.geo.Source`, is one of this workload, which can :meth:`draw` it."""
        return False

    def draw(self, source: Any, request: Any) -> Any:
        """Draw a raster for :func:`earthsr.plot`.

        Parameters
        ----------
        source : Source
            Open; whoever opened it closes it.
        request : earthsr.evaluation.maps.MapRequest
            Which part of it, how large, what beside it.

        Returns
        -------
        earthsr.evaluation.maps.Drawing

        Raises
        ------
        InputError
            If something is asked for that this raster has not.
        """
        raise NotImplementedError(f"{self.name} draws no rasters")


def section_classes(config: type[BaseModel], section: str) -> list[type[BaseModel]]:
    """Return the classes that a section of a configuration may be of: several where ``model.name`` chooses."""
    annotation = config.model_fields[section].annotation if section in config.model_fields else None
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def model_names(workload: Workload | type[Workload]) -> list[str]:
    """Return the values of ``model.name`` that choose a workload."""
    classes = section_classes(workload.config, "model")
    return [name for member in classes for name in get_args(member.model_fields["name"].annotation)]


@cache
def installed_workloads() -> dict[str, Workload]:
    """Return all registered workloads by name.

    One that cannot be loaded, or answers to a ``model.name`` of another, warns and is left out; the others go on.
    """
    workloads: dict[str, Workload] = {}
    taken: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        label = f"workload {entry.name} ({entry.value})"
        try:
            loaded = entry.load()
            if not (isinstance(loaded, type) and issubclass(loaded, Workload)):
                raise TypeError("it is not a Workload")
            config = with_networks(loaded.config, section_classes(loaded.config, "model"), loaded.name)
            if config is not loaded.config:
                loaded = type(loaded.__name__, (loaded,), {"config": config})
            names = model_names(loaded)
            workload = loaded()
        except Exception as error:  # a plug-in may fail in any way; it must not take the others down
            warnings.warn(f"{label} cannot be loaded: {error}", EarthsrWarning, stacklevel=2)
            continue
        twice = [name for name in names if name in taken]
        if twice:
            other = taken[twice[0]]
            message = f"{label} is left out: model.name {twice[0]} is that of workload {other} already"
            warnings.warn(message, EarthsrWarning, stacklevel=2)
            continue
        workloads[entry.name] = workload
        taken |= dict.fromkeys(names, entry.name)
    for kind, spec in installed_networks().items():
        if spec.workload not in {workload.name for workload in workloads.values()}:
            message = f"network {kind} is left out: it is of workload {spec.workload!r}, which is not installed"
            warnings.warn(message, EarthsrWarning, stacklevel=2)
    return workloads


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def find_workload(name: Any) -> tuple[Workload, str]:
    """Return the workload that a ``model.name`` chooses, and the name as the workload spells it.

    Parameters
    ----------
    name : Any
        What ``model.name`` is.

    Raises
    ------
    ConfigError
        If none does; the message lists the names that there are.
    """
    workloads = installed_workloads()
    for workload in workloads.values():
        for known in model_names(workload):
            if isinstance(name, str) and _plain(name) == _plain(known):
                return workload, known
    if not workloads:
        raise ConfigError("no workload is installed: install earthsr with pip, which registers its own")
    listed = [name for workload in workloads.values() for name in model_names(workload)]
    raise ConfigError(
        f"model.name is {name!r}, expected one of: {', '.join(listed)} (workloads installed: {', '.join(workloads)})"
    )


def workload_of(config: BaseModel) -> Workload:
    """Return the workload whose configuration this is.

    Parameters
    ----------
    config : Config
        A whole configuration.

    Raises
    ------
    ConfigError
        If it is of none that is installed.
    """
    for workload in installed_workloads().values():
        # Of the workload's own class, where the one with networks of packages is a subclass of that.
        same = type(config).__name__ == workload.config.__name__
        if isinstance(config, workload.config) or (same and issubclass(workload.config, type(config))):
            return workload
    raise ConfigError(f"a configuration of class {type(config).__name__} is of no workload that is installed")


def owners(section: str, key: str) -> Iterator[tuple[Workload, Any]]:
    """Yield the workloads whose ``section`` has ``key`` (not of ``model``), each with the key's default."""
    for workload in installed_workloads().values() if section != "model" else ():
        for member in section_classes(workload.config, section):
            if key in member.model_fields:
                yield workload, member.model_fields[key].get_default(call_default_factory=True)


def whose(section: str, key: str) -> str | None:
    """Return a phrase on whose a key is, where it is of some workload: ``belongs to land use (model.name unet)``."""
    for workload, _ in owners(section, key):
        return f"{section}.{key} belongs to {workload.title} (model.name {' or '.join(model_names(workload))})"
    return None
