"""What a file that somebody else wrote may ask for: its own bytes, in their size, in good time, and nothing beside it.

Text from files that is shown somewhere goes through :func:`earthsr.errors.printable`. Data that lie elsewhere, in other
folders or behind an address, are read where ``--allow-external`` allows it: a file can name any other that its reader
may read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

from earthsr.errors import ALLOW_EXTERNAL, DataError, printable

#: Processor time that looking over one HDF5 file may take; thousands of attributes take a part of a second.
PROBE_SECONDS: Final = 10
#: Time after which a child that computes nothing is given up; the file is then read as it is.
PROBE_PATIENCE: Final = 120
#: Bytes up to which an archive may unpack to anything, and how many times its size it may unpack to beyond.
SMALL_BYTES: Final = 1 << 30
MOST_TIMES: Final = 100
#: How deep JSON of a file may be nested; ours is five deep.
MOST_NESTED: Final = 64

_VRT_NAMES: Final = re.compile(r"(Filename|Dataset|DataFile|IndexFile|ServerUrl|URL|OverviewFile)$", re.IGNORECASE)
_probed: set[tuple[str, int, int]] = set()


def _leaves(path: Path, target: str) -> bool:
    """Whether what a file names lies outside of the folder of the file, or is no plain file."""
    target = target.strip()
    if not target or target == ".":
        return False
    # GDAL's names of drivers and of virtual files, and addresses: not one of them is a path beside the file.
    if target.startswith(("/vsi", "<", "{")) or re.match(r"^[A-Za-z][\w+.-]+:", target):
        return True
    folder = path.resolve().parent
    return not (folder / target).resolve().is_relative_to(folder)


def require_inside(path: Path, target: str, what: str) -> None:
    """Refuse what leaves the folder of a file.

    Parameters
    ----------
    path : Path
        The file.
    target : str
        What it names, relative to its folder or not.
    what : str
        Which part names it, for the message.

    Raises
    ------
    DataError
        If the target lies elsewhere and ``--allow-external`` was not given.
    """
    if not os.environ.get(ALLOW_EXTERNAL) and _leaves(path, target):
        raise DataError(
            f"{path}: {what} refers to {printable(target)[:200]}, outside of the file's own folder; where that is "
            "wanted, add --allow-external"
        )


def require_own_raster(path: Path) -> None:
    """Refuse a description of a raster (VRT and what else GDAL has in XML or JSON) whose data lie elsewhere.

    Raises
    ------
    DataError
        If they do and ``--allow-external`` was not given, or it is too deep or too long to be one.
    """
    if os.environ.get(ALLOW_EXTERNAL):
        return
    with path.open("rb") as handle:
        start = handle.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
        if start[:1] not in (b"<", b"{", b"["):
            return
        text = start + handle.read(64 << 20)
    if start[:1] != b"<":
        raise DataError(f"{path}: is JSON, which says where data lie and holds none; name their files")
    # Not parsed: entities could grow, and what GDAL takes for an element is what counts.
    plain = text.decode("utf-8", "replace")
    root = re.search(r"<([A-Za-z_][\w:.-]*)", re.sub(r"<\?.*?\?>|<!--.*?-->", "", plain, flags=re.DOTALL))
    if root is None or root[1] != "VRTDataset" or "<!" in re.sub(r"<!--.*?-->", "", plain, flags=re.DOTALL):
        raise DataError(
            f"{path}: is XML and no plain VRT; it may name data anywhere: name their files, or add --allow-external"
        )
    for element, target in re.findall(r"<([A-Za-z_][\w:.-]*)[^>]*>([^<]*)(?=<)", plain):
        if _VRT_NAMES.search(element):
            target = _unescaped(target)
            require_inside(path, target, element)
            inner = path.parent / target.strip()
            if inner.is_file() and inner.suffix.lower() == ".vrt" and inner.resolve() != path.resolve():
                require_own_raster(inner)


def _unescaped(text: str) -> str:
    import html

    return html.unescape(text)


def probe_hdf5(path: Path) -> None:
    """Look an HDF5 file over in a child that can be given up: damaged ones can keep HDF5 in a loop, or end the process.

    Once per file and process; where processes cannot be forked, nothing is looked over.

    Raises
    ------
    DataError
        If reading its attributes does not end or ends the child, or it names data elsewhere and ``--allow-external``
        was not given.
    """
    try:
        status = path.stat()
    except OSError:
        return
    key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
    if key in _probed or not hasattr(os, "fork"):
        return
    # Before the fork: what another thread imports or reads just then would stay locked in the child.
    import resource  # noqa: F401

    from h5py._hl.base import phil

    reader, writer = os.pipe()
    with warnings.catch_warnings(), phil:
        # Python warns where there are threads; the child reads a file and leaves.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            _look_over_and_leave(path, writer)
    os.close(writer)
    problem, ended = _heard(reader, child)
    if problem:
        raise DataError(problem)
    if ended is not None and os.WIFSIGNALED(ended):
        out_of_time = os.WTERMSIG(ended) == signal.SIGXCPU
        how = f"did not end in {PROBE_SECONDS} s" if out_of_time else f"ended with signal {os.WTERMSIG(ended)}"
        raise DataError(f"{path}: is damaged (reading its attributes {how}); write or copy it again")
    _probed.add(key)


def _heard(reader: int, child: int) -> tuple[str, int | None]:
    """What the child said, and how it ended; None where it only waited, for a disk that does not answer."""
    pieces, end, waits = [], time.monotonic() + PROBE_PATIENCE, False
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while not waits:
            waits = not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]
            piece = b"" if waits else pipe.read(4096)
            if not piece:
                break
            pieces.append(piece)
    if waits:
        os.kill(child, signal.SIGKILL)
    _, ended = os.waitpid(child, 0)
    return b"".join(pieces).decode("utf-8", "replace"), None if waits else ended


def _look_over_and_leave(path: Path, writer: int) -> None:
    """What the child does."""
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (PROBE_SECONDS, PROBE_SECONDS + 1))
        _look_over(path)
    except DataError as error:
        os.write(writer, str(error).encode("utf-8", "replace")[:4000])
    except BaseException:
        # Who reads the file in earnest says what is wrong with it.
        pass
    finally:
        os._exit(0)


def _look_over(path: Path) -> None:
    """Read all attributes of an HDF5 file, and check where its data lie."""
    import h5py

    with h5py.File(path, "r") as handle:
        waiting: list[Any] = [handle]
        seen: set[int] = set()
        while waiting:
            item = waiting.pop()
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Dataset):
                for name, *_ in item.external or ():
                    require_inside(path, str(name), f"dataset {item.name}")
                if item.is_virtual:
                    for source in item.virtual_sources():
                        require_inside(path, source.file_name, f"dataset {item.name}")
            else:
                for name in item:
                    link = item.get(name, getlink=True)
                    if isinstance(link, h5py.ExternalLink):
                        require_inside(path, link.filename, f"link {name}")
                    else:
                        with contextlib.suppress(KeyError):
                            waiting.append(item[name])
            for name in item.attrs:
                with contextlib.suppress(OSError, KeyError, TypeError, ValueError, RuntimeError):
                    item.attrs[name]


def require_honest_archive(path: Path, stored: bool = False) -> None:
    """Refuse a zip archive that unpacks to far more than it is, before anything of it is unpacked.

    Parameters
    ----------
    path : Path
        A file; what is no zip archive passes.
    stored : bool
        Whether its format compresses nothing, as PyTorch's.

    Raises
    ------
    DataError
        If it declares more, or one of its arrays (``.npy``) another size than it has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size, declared = path.stat().st_size, sum(entry.file_size for entry in entries)
            most = 2 * size + (16 << 20) if stored else max(SMALL_BYTES, MOST_TIMES * size)
            if declared > most:
                raise DataError(
                    f"{path}: {size:,} bytes would unpack to {declared:,}, expected at most {most:,}; it is damaged "
                    "or made to fill the memory: save it again without compression"
                )
            for entry in entries:
                if entry.filename.endswith(".npy"):
                    _require_honest_array(path, archive, entry)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        # Who reads it in earnest says what is wrong with it.


def _require_honest_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    import numpy as np

    with archive.open(entry) as handle:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(handle)
        declared = dtype.itemsize
        for side in shape:
            declared *= side
        holds = entry.file_size - handle.tell()
    # Objects are pickles, of any length, and refused where they are read.
    if declared != holds and not dtype.hasobject:
        raise DataError(
            f"{path}: {printable(entry.filename)} says shape {shape} of {dtype}, {declared:,} bytes, and holds "
            f"{holds:,}; save it again"
        )


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of a file; what is nested deeper than any of ours is refused, for nobody could print it.

    Raises
    ------
    ValueError
        If it is no JSON, or nested more than 64 deep.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(f"is nested more than {MOST_NESTED} deep") from None
    level: list[Any] = [values]
    for _ in range(MOST_NESTED):
        inner = [item for item in level if isinstance(item, dict | list)]
        level = [value for item in inner for value in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return values
    raise ValueError(f"is nested more than {MOST_NESTED} deep")
