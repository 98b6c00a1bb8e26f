"""Exported models, files that hold a graph and its weights, and reading a CHECKPOINT of any kind.

ONNX and MindIR files are protocol buffers: a sequence of fields, each with its number, its kind and its length. So what
a file says of itself can be read in no time, whatever its size, with no framework at hand and without knowing the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend.interface import Engine
from earthsr.backend.registry import exported_backends, exported_suffixes
from earthsr.errors import BackendError, CheckpointError
from earthsr.models import (
    NetworkSpec,
    Precision,
    WeightsFile,
    read_weights,
    resolve_checkpoint,
)
from earthsr.models.weights import KEY, pack_metadata, unpack_metadata

#: Key of the metadata under which an exported model says how it was made.
EXPORTED = "exported"


def exported_metadata(file: WeightsFile, how: Mapping[str, Any]) -> dict[str, str]:
    """Return what an exported model carries: all that the weights file says, and how it was exported.

    Parameters
    ----------
    file : WeightsFile
        What is exported.
    how : mapping
        ``exporter``, ``opset`` (None where the format has none) and ``output``, the output's name.
    """
    return pack_metadata(file.spec, {**file.metadata, EXPORTED: {**file.metadata.get(EXPORTED, {}), **how}})


def read_exported(path: Path, kind: str) -> tuple[NetworkSpec, dict[str, Any]]:
    """Read spec and metadata of an ONNX or MindIR file.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Name of its format, for messages.

    Raises
    ------
    CheckpointError
        If it is missing or damaged, or earthsr did not write it.
    """
    try:
        packed = read_entries(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: is not a whole {kind} file ({error}); export it again") from None
    if KEY not in packed:
        raise CheckpointError(
            f"{path}: is {kind} of another program: it does not say which network it is, nor its normalisation; make "
            "one with earthsr export CHECKPOINT OUT"
        )
    return unpack_metadata(packed, str(path))


def output_name(file: WeightsFile) -> str:
    """Name of an exported model's output: probabilities, the field that is predicted, or the input on finer cells."""
    if file.spec.softmax:
        return "probabilities"
    field = file.metadata.get("field")
    if field:
        return f"{field}_normalised"
    return f"fine_{file.spec.inputs[0].name}" if file.spec.scale > 1 else "values"


def require_float32(precision: Precision | None, path: Path) -> None:
    """Check that nobody wants an exported model in another precision than its own.

    Raises
    ------
    BackendError
        If somebody does.
    """
    if precision is not None and precision.level != "O0":
        raise BackendError(
            f"{path}: computes in float32, as it was exported; amp_level {precision.level} is for checkpoints: leave "
            "--amp-level out, or set it to O0"
        )


class ExportedEngine(Engine):
    """An engine that holds an exported model."""

    path: Path

    def require_arrays(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Inputs by name in graph order, checked for their shapes, (N, …), and types.

        Raises
        ------
        BackendError
            If a field is missing, left over, or of the wrong shape or type.
        """
        arrays = dict(zip((field.name for field in self.spec.inputs), self.require_inputs(inputs), strict=True))
        for field in self.spec.inputs:
            dtype = arrays[field.name].dtype
            if dtype != np.dtype(field.dtype):
                raise BackendError(f"input {field.name} is {dtype}, expected {field.dtype}")
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def is_exported(path: str | Path) -> bool:
    """Whether a path has the suffix of exported models.

    Parameters
    ----------
    path : str or Path
        The path; nothing has to be there.
    """
    return Path(path).suffix.lower() in exported_suffixes()


def read_model(path: str | Path) -> WeightsFile:
    """Read what CHECKPOINT means.

    Parameters
    ----------
    path : str or Path
        A run folder (its best), a checkpoint folder, a weights file, or an exported model.

    Returns
    -------
    WeightsFile
        Without weights where it is an exported model, which nothing but a backend reads them from.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    file = resolve_checkpoint(path)
    if not is_exported(file):
        return read_weights(file)
    name = exported_suffixes()[file.suffix.lower()][0]
    spec, metadata = exported_backends()[name]().read_model(file)
    return WeightsFile(spec, {}, metadata, file)


_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5

#: Of both formats: where the graph is, and the pairs of names and values (``metadata_props``, ``user_info``).
GRAPH: Final = 7
ENTRIES: Final = 14


def _varint(handle: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = handle.read(1)
        if not byte or shift > 63:
            raise ValueError("it ends in the middle of a number" if not byte else "a number has more than 64 bits")
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value


def _fields(handle: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field up to ``end``; the handle stands where its bytes begin, and may be moved."""
    while handle.tell() < end:
        tag = _varint(handle)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH:
            length = _varint(handle)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        elif kind == _VARINT:
            _varint(handle)
            length = 0
        else:
            raise ValueError(f"a field has the unknown kind {kind}")
        start = handle.tell()
        if number == 0 or start + length > end:
            raise ValueError("a field has the number 0" if number == 0 else "it ends in the middle of a field")
        yield number, length
        handle.seek(start + length)


def read_entries(path: Path) -> dict[str, str]:
    """Read the names and values that an ONNX or MindIR file carries.

    Raises
    ------
    ValueError
        If the file is not whole, or no protocol buffer with a graph; the message says what is wrong.
    OSError
        If it cannot be read.
    """
    entries: dict[str, str] = {}
    graph = False
    with path.open("rb") as handle:
        for number, length in _fields(handle, os.fstat(handle.fileno()).st_size):
            graph = graph or number == GRAPH
            if number == ENTRIES:
                pair = {}
                for key, size in _fields(handle, handle.tell() + length):
                    pair[key] = handle.read(size).decode("utf-8")
                entries[pair.get(1, "")] = pair.get(2, "")
    if not graph:
        raise ValueError("it holds no graph")
    return entries
