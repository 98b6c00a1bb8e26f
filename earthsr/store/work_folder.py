"""A folder in which long work grows, so that a kill costs little: finished pieces, and what they are pieces of."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError
from earthsr.store.disk import make_folder, missing_folders, remove_empty
from earthsr.store.lock import Lock
from earthsr.store.whole import write_json

_LOCK: Final = "lock"


class WorkFolder:
    """Finished pieces of something; each is written whole, so what has its name is done.

    Parameters
    ----------
    path : Path
        The folder; :meth:`make` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []

    def make(self) -> None:
        """Make the folder, and remember what was made for it.

        Raises
        ------
        InputError
            If it cannot be made.
        """
        self._made = missing_folders(self.path)
        make_folder(self.path)

    def read(self, name: str) -> dict[str, Any] | None:
        """Read the JSON file ``NAME.json``; None where it is not there.

        Raises
        ------
        InputError
            If it is damaged.
        """
        path = self.path / f"{name}.json"
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{path}: is damaged ({error}); remove {self.path} to begin anew") from None
        return values

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write the JSON file ``NAME.json``."""
        write_json(self.path / f"{name}.json", values)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone, among processes that share it; others wait."""
        lock = Lock(self.path / _LOCK, self.path, wait=True)
        try:
            yield
        finally:
            lock.release()

    def clear(self, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
        """Empty the folder, but for its lock.

        Parameters
        ----------
        first : sequence of str
            Names of what goes before the rest: without it nothing is carried on after a kill meanwhile.
        last : sequence of str
            Names of what goes after the rest: it says that all is done.
        """
        entries = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        middle = [name for name in entries if name not in (*first, *last, _LOCK)]
        for name in (*first, *middle, *last):
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def remove(self, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
        """Remove the folder; ``first`` and ``last`` are those of :meth:`clear`."""
        self.clear(first, last)
        shutil.rmtree(self.path, ignore_errors=True)

    def forget(self) -> None:
        """Remove what :meth:`make` made, and what lies in the folder then."""
        if self.path.absolute() in self._made:
            shutil.rmtree(self.path, ignore_errors=True)
        remove_empty(self._made)
