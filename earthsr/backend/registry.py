"""Finding backends through the entry points ``earthsr.backends``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from earthsr.backend.framework import Backend, ExportedBackend, WeightsBackend
from earthsr.config.networks import GROUP as NETWORKS
from earthsr.errors import BackendError, EarthsrWarning, install_hint
from earthsr.models import NetworkSpec

GROUP = "earthsr.backends"
#: Variable of the environment that names the backend where neither command line nor configuration does.
ENVIRONMENT = "EARTHSR_BACKEND"


@cache
def available_backends() -> dict[str, type[Backend]]:
    """Return all registered backends by name, whether or not their framework is installed.

    A plug-in that cannot be loaded warns and is left out; the others go on.
    """
    loaded_kinds: dict[str, type[Backend]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            loaded = entry.load()
        except Exception as error:  # a plug-in may fail in any way; it must not take the others down
            warnings.warn(
                f"backend {entry.name} ({entry.value}) cannot be loaded: {error}", EarthsrWarning, stacklevel=2
            )
            continue
        if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
            warnings.warn(f"backend {entry.name} ({entry.value}) is not a Backend", EarthsrWarning, stacklevel=2)
            continue
        loaded_kinds[entry.name] = loaded
    return loaded_kinds


def packaged_network(backend: str, spec: NetworkSpec) -> Any:
    """Build the network of a spec that a package brings.

    Parameters
    ----------
    backend : str
        Name of the backend: the entry point is of the group ``earthsr.networks.BACKEND``, has the name of the spec's
        kind, and is called with the spec.
    spec : NetworkSpec
        Of the network.

    Raises
    ------
    BackendError
        If no package brings one of that kind for the backend, or it cannot be loaded.
    """
    group = f"{NETWORKS}.{backend}"
    for entry in entry_points(group=group, name=spec.kind):
        try:
            build = entry.load()
        except Exception as error:  # a plug-in may fail in any way
            raise BackendError(f"network {spec.kind} ({entry.value}) cannot be loaded: {error}") from error
        return build(spec)
    raise BackendError(
        f"backend {backend} has no network of kind {spec.kind!r}; a package brings one under the entry points {group}"
    )


def weights_backends() -> dict[str, type[WeightsBackend]]:
    """Return the registered backends that build networks of weights, whether or not their framework is installed."""
    return {name: kind for name, kind in available_backends().items() if issubclass(kind, WeightsBackend)}


def exported_backends() -> dict[str, type[ExportedBackend]]:
    """Return the registered backends that run exported models, whether or not their framework is installed."""
    return {name: kind for name, kind in available_backends().items() if issubclass(kind, ExportedBackend)}


def training_backends(installed: bool = False) -> list[str]:
    """Return the names of the backends that make engines from weights, and so train.

    Parameters
    ----------
    installed : bool
        Leave out those whose framework is not there.
    """
    known = weights_backends()
    return [name for name, kind in known.items() if kind.installed() or not installed]


def exported_suffixes() -> dict[str, list[str]]:
    """Return the suffixes of exported models, each with the names of the backends that run them."""
    runners: dict[str, list[str]] = {}
    for name, kind in exported_backends().items():
        for suffix in kind.model_suffixes:
            runners.setdefault(suffix, []).append(name)
    return runners


def _listing(among: Iterable[str] | None = None) -> str:
    known = available_backends() if among is None else {name: available_backends()[name] for name in among}
    installed = [name for name, backend in known.items() if backend.installed()]
    absent = [f"{name} ({install_hint(name)})" for name in known if name not in installed]
    parts = [f"installed: {', '.join(installed) or 'none'}"]
    if absent:
        parts.append(f"not installed: {', '.join(absent)}")
    return "; ".join(parts)


def get_backend(name: str) -> Backend:
    """Return the backend of that name.

    Parameters
    ----------
    name : str
        Such as ``torch`` or ``mindspore``.

    Raises
    ------
    BackendError
        If it is unknown or its framework is not installed; the message lists what is and which extra to install.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.get_backend("torch").name
    'torch'
    """
    known = available_backends()
    if name not in known:
        raise BackendError(f"unknown backend {name!r}; {_listing()}")
    if not known[name].installed():
        raise BackendError(f"backend {name} is not installed: {install_hint(name)}; {_listing()}")
    return known[name]()


def choose_backend(*wishes: str | Backend | None) -> WeightsBackend:
    """Return the first backend that is wished for, else the only one installed that runs and trains weights.

    Parameters
    ----------
    *wishes : str, Backend or None
        In order of rank, such as the command line's and the configuration's; where there is none, the environment's
        ``EARTHSR_BACKEND`` counts.

    Raises
    ------
    BackendError
        If none is wished for and none or several are installed, or the one wished for runs exported models alone; the
        message lists them.
    """
    for wish in wishes:
        if wish:
            chosen = get_backend(wish) if isinstance(wish, str) else wish
            if not isinstance(chosen, WeightsBackend):
                raise _needs_an_export(chosen)
            return chosen
    named = os.environ.get(ENVIRONMENT, "").strip()
    if named:
        kind = weights_backends().get(named)
        if kind is None or not kind.installed():
            raise BackendError(f"{ENVIRONMENT} is {named!r}, expected one that trains; {_listing(weights_backends())}")
        return kind()
    return weights_backends()[_only(training_backends(), "")]()


def choose_runner(path: str | Path, *wishes: str | Backend | None) -> ExportedBackend:
    """Return the backend that runs an exported model: the first that is wished for, else the only one installed.

    Parameters
    ----------
    path : str or Path
        The model; its suffix says which backends run it.
    *wishes : str, Backend or None
        In order of rank.

    Raises
    ------
    BackendError
        If the one wished for does not run it, or it is not installed; the message says which do.
    """
    path = Path(path)
    runners = exported_suffixes().get(path.suffix.lower(), [])
    for wish in wishes:
        if wish:
            name = wish if isinstance(wish, str) else wish.name
            if name in available_backends() and name not in runners:
                raise BackendError(
                    f"{path}: backend {name} does not run {path.suffix} files"
                    + (", it reads weights (.safetensors)" if name in weights_backends() else "")
                    + f"; use --backend {' or '.join(runners)}, or name the checkpoint that the file was exported from"
                )
            chosen = get_backend(wish) if isinstance(wish, str) else wish
            break
    else:
        chosen = get_backend(runners[0] if len(runners) == 1 else _only(runners, f" that runs {path.suffix} files"))
    assert isinstance(chosen, ExportedBackend)
    return chosen


def _needs_an_export(backend: Backend) -> BackendError:
    """Return the error of a backend that was asked for more than running exported models."""
    suffixes = backend.model_suffixes if isinstance(backend, ExportedBackend) else ()
    return BackendError(
        f"backend {backend.name} runs exported models ({', '.join(suffixes)}) alone: it does not train, and reads no "
        f"weights; run earthsr export CHECKPOINT model{''.join(suffixes[:1])} first, or choose a backend that trains "
        f"({', '.join(training_backends())})"
    )


def _only(names: list[str], what: str) -> str:
    """Name of the one of several backends that is installed."""
    installed = [name for name in names if available_backends()[name].installed()]
    if len(installed) == 1:
        return installed[0]
    problem = f"several backends{what} are installed" if installed else f"no backend{what} is installed"
    raise BackendError(f"{problem}; choose with --backend, the key backend or {ENVIRONMENT}; {_listing(names)}")
