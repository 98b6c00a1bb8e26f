"""An HDF5 file that threads of one process read in turn, and that each process opens for itself."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import h5py

from earthsr.data.hdf5 import open_h5, reading


class Params(Protocol):
    """The ``data`` section of a configuration, or a dictionary of its keys."""

    def __getitem__(self, key: str, /) -> Any:
        """Value of a key."""
        ...


class SharedFile:
    """Opens on the first read. A handle that was opened before a fork shares its file position with the parent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._handle: tuple[int, h5py.File] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @contextlib.contextmanager
    def open(self) -> Iterator[h5py.File]:
        """Give the file to this thread alone; damage becomes a :class:`earthsr.errors.DataError` that names it."""
        with self._lock, reading(self.path):
            if self._handle is None or self._handle[0] != os.getpid():
                self._handle = (os.getpid(), open_h5(self.path))
            yield self._handle[1]

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._lock:
            if self._handle is not None and self._handle[0] == os.getpid():
                self._handle[1].close()
            self._handle = None
