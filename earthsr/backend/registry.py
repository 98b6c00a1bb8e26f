"""Finding backends through the entry points ``earthsr.backends``."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points

from earthsr.backend.interface import Backend
from earthsr.errors import BackendError, EarthsrWarning

GROUP = "earthsr.backends"


@cache
def available_backends() -> dict[str, type[Backend]]:
    """All registered backends by name, whether or not their framework is installed.

    A plug-in that cannot be loaded warns and is left out; the others go on.
    """
    found: dict[str, type[Backend]] = {}
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
        found[entry.name] = loaded
    return found


def _listing() -> str:
    known = available_backends()
    installed = [name for name, backend in known.items() if backend.installed()]
    absent = [f"{name} (pip install 'earthsr[{name}]')" for name in known if name not in installed]
    parts = [f"installed: {', '.join(installed) or 'none'}"]
    if absent:
        parts.append(f"not installed: {', '.join(absent)}")
    return "; ".join(parts)


def get_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises
    ------
    BackendError
        If it is unknown or its framework is not installed; the message lists what is and which extra to install.
    """
    known = available_backends()
    if name not in known:
        raise BackendError(f"unknown backend {name!r}; {_listing()}")
    if not known[name].installed():
        raise BackendError(
            f"backend {name} is not installed: pip install 'earthsr[{name}]' (in a clone: pip install -e '.[{name}]'); "
            f"{_listing()}"
        )
    return known[name]()


def choose_backend(*wishes: str | None) -> Backend:
    """Return the first backend that is wished for, else the only one installed.

    Parameters
    ----------
    *wishes : str or None
        In order of rank, such as the command line's and the configuration's.

    Raises
    ------
    BackendError
        If none is wished for and none or several are installed; the message lists them.
    """
    for wish in wishes:
        if wish:
            return get_backend(wish)
    installed = [name for name, backend in available_backends().items() if backend.installed()]
    if len(installed) == 1:
        return get_backend(installed[0])
    problem = "several backends are installed" if installed else "no backend is installed"
    raise BackendError(f"{problem}; choose with --backend or the key backend; {_listing()}")
