"""Reading the names and values that a protocol buffer carries beside a model, without knowing the rest of it.

ONNX and MindIR files are protocol buffers: a sequence of fields, each with its number, its kind and its length. So what
a file says of itself can be read in no time, whatever its size, and with no framework at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

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
