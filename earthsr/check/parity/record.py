"""A record: what one backend computed, as named arrays, and the file that carries it to another machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import CheckpointError, InputError
from earthsr.models.weights_file import read_tensors, write_tensors

SCHEMA_VERSION = 1
KEY = "earthsr_parity"
#: Larger arrays are thinned to about as many evenly spaced values, on both sides alike.
LIMIT = 65536

Arrays = dict[str, dict[str, NDArray[np.floating]]]


def thin(array: NDArray) -> NDArray:
    """Evenly spaced values of an array, all of them where it has no more than :data:`LIMIT`."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[:: -(-flat.size // LIMIT)].copy() if flat.size > LIMIT else flat.copy()


@dataclass(frozen=True)
class Record:
    """What one backend computed."""

    about: dict[str, Any]
    """Backend, version, device, machine, spec, optimiser, inputs: JSON-able."""
    arrays: Arrays
    """Thinned arrays by quantity and name; ``inputs`` holds weights and batches, which have to be the same."""
    noise: Arrays = field(default_factory=dict)
    """The same quantities on the other side of the symmetries, where they were measured."""

    @property
    def title(self) -> str:
        """Backend, version and device in one line."""
        return f"{self.about['backend']} {self.about['version']} on {self.about['device']}"


def write_record(path: str | Path, record: Record) -> Path:
    """Write a record; a safetensors file.

    Parameters
    ----------
    path : str or Path
        Where to; ``.safetensors``.
    record : Record
        What one backend computed.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    tensors = {f"arrays/{quantity}/{name}": v for quantity, by in record.arrays.items() for name, v in by.items()}
    tensors |= {f"noise/{quantity}/{name}": v for quantity, by in record.noise.items() for name, v in by.items()}
    write_tensors(path, tensors, {KEY: json.dumps({"schema_version": SCHEMA_VERSION, "about": record.about})})
    return path


def read_record(path: str | Path) -> Record:
    """Read a record.

    Parameters
    ----------
    path : str or Path
        A file that :func:`write_record` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or no record.
    """
    path = Path(path)
    try:
        tensors, packed = read_tensors(path)
    except CheckpointError as error:
        raise InputError(f"{error}; a record is what earthsr parity --record writes") from None
    if KEY not in packed:
        raise InputError(f"{path}: is no parity record; make one with earthsr parity CONFIG --record FILE")
    try:
        values = json.loads(packed[KEY])
        version, about = int(values["schema_version"]), dict(values["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its description is damaged ({error!r}); record it again") from None
    if version > SCHEMA_VERSION:
        raise InputError(f"{path}: was recorded by a newer earthsr (schema {version}); record it again with this one")
    kinds: dict[str, Arrays] = {"arrays": {}, "noise": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        quantity, _, name = rest.partition("/")
        kinds.setdefault(kind, {}).setdefault(quantity, {})[name] = value
    return Record(about, kinds["arrays"], kinds["noise"])
