"""Long work that is carried on after a kill: what it reads, known by checksums, and the folder in which it grows.

An output that would replace an input while, or after, it is read is refused.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError
from earthsr.store.disk import make_folder, missing_folders, remove_empty
from earthsr.store.lock import Lock
from earthsr.store.whole import is_zarr, write_json

_VRT_SOURCE = re.compile(r"<SourceFilename[^>]*>([^<]+)</SourceFilename>")


def fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file, or of all files of a Zarr store; where it lies is nobody's business."""
    if not path.is_dir():
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
    whole, size = hashlib.sha256(), 0
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        part = fingerprint(file)
        whole.update(f"{file.relative_to(path).as_posix()} {part['sha256']}\n".encode())
        size += part["bytes"]
    return {"name": path.name, "bytes": size, "sha256": whole.hexdigest()}


#: Blocks of a file that a glance reads, and bytes of each.
_GLANCES: Final = 16
_GLANCE_BYTES: Final = 65_536


def glance(text: str | Path, whole: bool = False) -> dict[str, Any]:
    """Name, size, time and a checksum of some blocks of what a text of the command line means.

    Enough to tell that an input was replaced, in milliseconds however large it is.

    Parameters
    ----------
    text : str or Path
        ``PATH`` of a file or of a Zarr store, or ``FILE.nc:VARIABLE``; files of a VRT count with it.
    whole : bool
        Read all of it, for disks on which times and sizes do not tell.
    """
    digest, size, newest = hashlib.sha256(), 0, 0
    for path in _files(text):
        for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if not file.is_file():
                continue
            status = file.stat()
            size, newest = size + status.st_size, max(newest, status.st_mtime_ns)
            digest.update(f"{file.name} {status.st_size} {'' if whole else status.st_mtime_ns}\n".encode())
            if path.is_dir() and not whole:
                continue  # of a store's thousands of chunks size and time have to do
            step = 0 if whole else max((status.st_size - _GLANCE_BYTES) // (_GLANCES - 1), 1)
            with file.open("rb") as handle:
                for place in range(0, status.st_size, max(step, _GLANCE_BYTES)):
                    handle.seek(place)
                    digest.update(handle.read(_GLANCE_BYTES))
    name = Path(str(text)).name
    if whole:
        return {"name": name, "bytes": size, "all": digest.hexdigest()[:32]}
    return {"name": name, "bytes": size, "time_ns": newest, "blocks": digest.hexdigest()[:32]}


def absolute(text: str | Path) -> str:
    """Return a text of the command line with a whole path, for a process that works in another folder.

    Parameters
    ----------
    text : str or Path
        ``PATH``, ``FILE.nc:VARIABLE``, or ``NAME=PATH``; what names no file, such as ``latitude``, stays.

    Examples
    --------
    >>> absolute("alps=/data/alps.tif"), absolute("latitude")
    ('alps=/data/alps.tif', 'latitude')
    """
    name, equals, path = str(text).partition("=")
    if Path(str(text)).exists() or not equals:
        known = any(part.exists() for part in _files(text))
        return os.path.abspath(text) if known else str(text)
    return f"{name}={os.path.abspath(path)}"


def require_other(outputs: Iterable[str | Path], inputs: Iterable[str | Path | None]) -> None:
    """Check that nothing that is read is written: links, hard links and files inside a folder count too.

    Parameters
    ----------
    outputs : iterable of str or Path
        Files and folders that will be written; what is not there yet can be no input, unless it lies in one.
    inputs : iterable of str or Path
        As the command line names them: ``PATH``, ``NAME=PATH``, ``FILE.nc:VARIABLE``; None is passed over. Files of a
        VRT are looked at too.

    Raises
    ------
    InputError
        If one is, whatever may be overwritten.
    """
    wanted = [Path(output) for output in outputs]
    for text in inputs:
        for source in _files(text):
            for output in wanted:
                if _same(output, source):
                    raise InputError(
                        f"{output}: is the input {text} too, and is not replaced by what is made of it; choose another "
                        "name for the output"
                    )


def _files(text: str | Path | None) -> Iterator[Path]:
    """Files and folders that a text of the command line may mean."""
    if text is None:
        return
    for word in dict.fromkeys((str(text), str(text).partition("=")[2])):
        head = word
        while head:
            path = Path(head)
            if os.path.lexists(path):
                yield path
                if path.suffix.lower() == ".vrt" and path.is_file():
                    listed = path.read_text(encoding="utf-8", errors="replace")
                    yield from (path.parent / name.strip() for name in _VRT_SOURCE.findall(listed))
                break
            head = head.rpartition(":")[0]
        if any(sign in word for sign in "*?["):
            yield from map(Path, glob.glob(word))


def _same(output: Path, source: Path) -> bool:
    try:
        if output.exists() and os.path.samefile(output, source):
            return True
    except OSError:
        return False
    written, read = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    inside_output = written.is_dir() and written in read.parents
    return inside_output or (read in written.parents and is_zarr(read))


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
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(f"{path}: is damaged ({error}); remove {self.path} to begin anew") from None
        return values

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write the JSON file ``NAME.json``."""
        write_json(self.path / f"{name}.json", values)

    @contextlib.contextmanager
    def owned(self, target: Path) -> Iterator[None]:
        """Keep other processes away; the folder is made for it, and is gone afterwards where nothing came into it.

        Parameters
        ----------
        target : Path
            What is made, for messages.

        Raises
        ------
        InputError
            If one is at work.
        """
        lock = Lock(self.path / _LOCK, target)
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
