"""Weights and moments under canonical names, as NumPy: how they begin, what moves between backends, and their file.

A weights file is safetensors with spec, normalisation and units in its metadata. Nothing here unpickles: a file that is
a pickle, or a zip of one, is named as such and refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from earthsr.config.networks import installed_networks
from earthsr.errors import CheckpointError, InputError
from earthsr.models.demsrnet import DemSRNetSpec
from earthsr.models.spec import NetworkSpec
from earthsr.models.unet import UNetSpec
from earthsr.store import atomic_file
from earthsr.store.untrusted import parse_json

Weights = dict[str, NDArray[np.float32]]


def initial_weights(spec: NetworkSpec, seed: int, keep_zeros: bool = True) -> Weights:
    """Draw the initial weights.

    Uniform in ±1/sqrt(fan in), the bound of He et al. (2015) with a negative slope of sqrt(5), which is the default
    of convolutions in both frameworks. Each parameter has a generator of its own, keyed by seed and name, so that
    adding a layer changes no other layer's numbers.

    Parameters
    ----------
    spec : NetworkSpec
        The network.
    seed : int
        Any non-negative integer.
    keep_zeros : bool
        False draws the layers that start at zero or one too, so that every layer shows in the output.

    Returns
    -------
    dict of str to ndarray
        float32, under canonical names, in forward order.
    """
    weights: Weights = {}
    for parameter in spec.parameters:
        if parameter.initialiser == "zeros" and keep_zeros:
            weights[parameter.name] = np.zeros(parameter.shape, np.float32)
            continue
        one = parameter.initialiser == "ones"
        if not parameter.learns or (one and keep_zeros):
            weights[parameter.name] = np.full(parameter.shape, float(one), np.float32)
            continue
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(parameter.name.encode())]))
        bound = 1.0 / np.sqrt(parameter.fan_in)
        values = generator.random(parameter.shape, dtype=np.float64)
        drawn = (2 * values - 1) * (0.5 if one else bound)
        weights[parameter.name] = (drawn + one).astype(np.float32)
    return weights


@dataclass(frozen=True)
class State:
    """Everything that an engine holds and a run must not lose.

    ``weights`` are the float32 masters, whatever precision computes. ``first_moments`` and ``second_moments`` are
    Adam's, for the parameters that learn; both are empty where no step was taken.
    """

    weights: Weights
    first_moments: Weights = field(default_factory=dict)
    second_moments: Weights = field(default_factory=dict)
    step: int = 0
    """Updates that the optimiser has made; skipped steps do not count (bias correction needs it)."""
    loss_scale: float | None = None
    """Of float16 training; None where there is none."""
    loss_scale_good_steps: int = 0
    """Steps since the loss scale last changed."""
    skipped_steps: int = 0
    """Steps that overflowed and changed nothing."""

    def require(self, spec: NetworkSpec, source: str = "state") -> None:
        """Check names and shapes against ``spec``; messages name ``source``.

        Raises
        ------
        CheckpointError
            If a parameter is missing, left over, or of another shape; moments are checked where there are any.
        """
        expected = {parameter.name: parameter.shape for parameter in spec.parameters}
        check_names(self.weights, expected, source, complete=True)
        check_names(self.first_moments, expected, f"{source} (first moments)", complete=False)
        check_names(self.second_moments, expected, f"{source} (second moments)", complete=False)
        if set(self.first_moments) != set(self.second_moments):
            raise CheckpointError(f"{source}: first and second moments name different parameters")


def check_names(arrays: Weights, expected: dict[str, tuple[int, ...]], source: str, complete: bool) -> None:
    """Raise a :class:`CheckpointError` that names what is missing, left over or of the wrong shape."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    missing = [name for name in expected if name not in arrays] if complete else []
    extra = [name for name in arrays if name not in expected]
    if missing or extra:
        parts = [f"missing {some(missing)}"] * bool(missing) + [f"left over {some(extra)}"] * bool(extra)
        raise CheckpointError(f"{source}: not a state of this model: {'; '.join(parts)}")
    for name, array in arrays.items():
        if tuple(array.shape) != expected[name]:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(array.shape)}, this model expects {expected[name]}"
            )


KINDS: Final[dict[str, type[NetworkSpec]]] = {DemSRNetSpec.kind: DemSRNetSpec, UNetSpec.kind: UNetSpec}


def spec_from_dict(values: Mapping[str, Any]) -> NetworkSpec:
    """Read a spec written by :meth:`NetworkSpec.to_dict`.

    Parameters
    ----------
    values : mapping
        The fields, and ``kind``.

    Raises
    ------
    CheckpointError
        If the kind or a field is unknown.
    """
    rest = dict(values)
    kind = rest.pop("kind", None)
    known = {**installed_networks(), **KINDS}
    if kind not in known:
        raise CheckpointError(
            f"unknown kind of network {kind!r}; known are {', '.join(sorted(known))}; a newer version brings it, or a "
            "package that is not installed"
        )
    try:
        spec: NetworkSpec = known[kind].from_fields(rest)
        return spec
    except TypeError as error:
        raise CheckpointError(f"spec of kind {kind!r} is damaged: {error}") from None


SCHEMA_VERSION = 1

#: The one key of the safetensors metadata; its value is JSON.
KEY = "earthsr"


@dataclass(frozen=True)
class WeightsFile:
    """The contents of a weights file: enough to predict."""

    spec: NetworkSpec
    """The network that the weights belong to."""
    weights: Weights
    metadata: dict[str, Any] = field(default_factory=dict)
    """``normalisation``, ``task``, ``units``, ``cell_size_deg`` and whatever else the writer added."""
    path: Path | None = None
    """The file; None where it was not read from one."""


def require_same_spec(given: NetworkSpec, expected: NetworkSpec, source: str) -> None:
    """Raise a :class:`CheckpointError` that names the differing fields where two specs are not equal.

    Parameters
    ----------
    given, expected : NetworkSpec
        Of the checkpoint, and of what is to load it.
    source : str
        Where the first one is from, for messages.

    Raises
    ------
    CheckpointError
        If they differ.
    """
    if given == expected:
        return
    # Of the fields themselves: descriptions leave out options that are off.
    theirs, ours = ({"kind": spec.kind, **asdict(spec)} for spec in (given, expected))
    keys = [k for k in {**ours, **theirs} if theirs.get(k) != ours.get(k)]
    differing = [f"{k} {theirs.get(k)} there, {ours.get(k)} here" for k in keys]
    raise CheckpointError(f"{source}: is a checkpoint of another model: {'; '.join(differing)}")


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged or of another format; a pickle is never opened.
    """
    try:
        with path.open("rb") as handle:
            magic = handle.read(9)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    # A safetensors file begins with the header's length (8 bytes, any value) and an opening brace.
    pickled = magic[:1] == b"\x80" or magic[:4] == b"PK\x03\x04" or path.suffix in (".pt", ".pth", ".ckpt", ".pkl")
    if pickled and magic[8:] != b"{":
        raise CheckpointError(
            f"{path}: is a pickle or another framework's checkpoint, expected safetensors; "
            "make one of it with earthsr convert"
        )
    try:
        with safe_open(path, framework="numpy") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
            return tensors, dict(handle.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is not a whole safetensors file ({error}); restore it or use another checkpoint"
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically.

    Raises
    ------
    InputError
        If the disk does not take it.
    """
    plain = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic_file(path) as temporary:
        try:
            # Without tensors, empty metadata would give a header that is no JSON (safetensors 0.8).
            save_file(plain, temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:
            # Its own kind of error, whatever the system said.
            reason = str(error).rpartition("I/O error: ")[2]
            raise InputError(f"cannot write {path}: {reason}; free some space or choose another place") from None


def write_weights(path: str | Path, spec: NetworkSpec, weights: Weights, metadata: Mapping[str, Any]) -> Path:
    """Write weights with everything that prediction needs.

    Parameters
    ----------
    path : str or Path
        Destination, ``.safetensors``.
    spec : NetworkSpec
        The network that the weights belong to.
    weights : dict of str to ndarray
        float32 arrays under canonical names.
    metadata : mapping
        JSON-able values: ``normalisation``, ``task``, ``units`` and others.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    write_tensors(path, weights, pack_metadata(spec, metadata))
    return path


def pack_metadata(spec: NetworkSpec, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what a weights file carries beside its arrays, in any framework's format.

    One key: safetensors keeps its metadata in a hash map, whose order would make equal files differ in their bytes.
    """
    return {KEY: json.dumps({"schema_version": SCHEMA_VERSION, "spec": spec.to_dict(), "metadata": dict(metadata)})}


def unpack_metadata(packed: Mapping[str, str], source: str) -> tuple[NetworkSpec, dict[str, Any]]:
    """Read what :func:`pack_metadata` wrote.

    Raises
    ------
    CheckpointError
        If it is not there, damaged, or of a newer schema.
    """
    if KEY not in packed:
        raise CheckpointError(
            f"{source}: holds no earthsr spec in its metadata; it was written by another program (earthsr convert "
            "reads the weights of some)"
        )
    try:
        values = parse_json(packed[KEY])
        version = int(values["schema_version"])
        spec_values, metadata = values["spec"], values["metadata"]
        if not isinstance(spec_values, dict) or not isinstance(metadata, dict):
            raise ValueError("expected objects")
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{source}: its metadata is damaged ({error!r})") from None
    if version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{source}: has schema version {version}, this one reads up to {SCHEMA_VERSION}; install a newer earthsr"
        )
    return spec_from_dict(spec_values), metadata


def read_weights(path: str | Path) -> WeightsFile:
    """Read a weights file and check it against its own spec.

    Parameters
    ----------
    path : str or Path
        A safetensors file.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, not written by earthsr, of a newer schema, or does not fit its spec.
    """
    path = Path(path)
    tensors, packed = read_tensors(path)
    spec, metadata = unpack_metadata(packed, str(path))
    check_names(tensors, {p.name: p.shape for p in spec.parameters}, str(path), complete=True)
    for name, array in tensors.items():
        if array.dtype != np.float32:
            raise CheckpointError(f"{path}: {name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values; use an earlier checkpoint")
    return WeightsFile(spec, tensors, metadata, path)
