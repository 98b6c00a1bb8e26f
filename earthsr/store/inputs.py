"""What is read: its checksum, and outputs that would replace it while, or after, it is read."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from earthsr.errors import InputError
from earthsr.store.whole import is_zarr

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
