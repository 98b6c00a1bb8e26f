"""What is done of long work, and what its files hold: a record that cannot lie.

One file of lines a shard (a year, a row of pieces) says for each finished piece which files it wrote, with their bytes
and a checksum, and what was counted in it. Whoever reads a piece's files holds them to that first, so that one that is
absent, short or altered is made again in place of being read. One process writes the records.

A line that a kill cut off, or that was altered, is of a piece that is not done: records can only say too little.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from earthsr.errors import DataError
from earthsr.store import disk_errors, make_folder

_logger = logging.getLogger("earthsr")

#: Bytes that are read at once for a checksum.
_BLOCK: Final = 2**22
#: Times that a piece is made again in one run: a disk that alters what it was given would keep it busy for ever.
_MOST_AGAIN: Final = 3
#: Files of records that are open at once.
_MOST_OPEN: Final = 8

#: Bytes and CRC-32 of a file; None where there is none, which says something too.
Sum = tuple[int, int] | None
#: What a piece's files hold, by their paths below the root.
Sums = tuple[tuple[str, Sum], ...]


class Key(NamedTuple):
    """Name of a piece of work: the shard whose file has its record, and its own name there."""

    shard: str
    name: str

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"


@dataclass(frozen=True)
class Written:
    """What a piece of work wrote.

    Examples
    --------
    >>> Written(("maps/3",), {"windows": 12}).counts["windows"]
    12
    """

    files: tuple[str, ...] = ()
    """Paths below the root; those that are not there, because they would hold nothing, are named too."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """What was counted, JSON-able; small."""
    engine: str = ""
    """What computed it, for the provenance."""
    value: Any = None
    """What is handed to whoever asked for the work (:func:`earthsr.inference.scheduler.make_all`), and not recorded."""


class Faults(Exception):
    """Files are not as they were written; ``reasons`` by the pieces that wrote them."""

    def __init__(self, reasons: dict[Key, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


def sum_of(path: Path) -> Sum:
    """Bytes and CRC-32 of a file; None where there is none."""
    size, crc = 0, 0
    try:
        with path.open("rb", buffering=0) as handle:
            while block := handle.read(_BLOCK):
                size, crc = size + len(block), zlib.crc32(block, crc)
    except FileNotFoundError:
        return None
    return size, crc


class Guard:
    """Holds files to their records.

    What was read whole once and has not changed since, by its number, size and times, is not read again.

    Parameters
    ----------
    root : Path
        Folder below which the files lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[str, tuple[tuple[int, ...], Sum]] = {}

    def sums(self, files: Iterable[str]) -> Sums:
        """Return what files hold that were written just now."""
        return tuple((name, sum_of(self._root / name)) for name in files)

    def fault(self, sums: Sums, whole: bool = True) -> str:
        """Say what is wrong with files; nothing where they are as they were written.

        Parameters
        ----------
        sums : Sums
            What they are to hold.
        whole : bool
            Read them, in place of looking at their sizes alone.
        """
        for name, expected in sums:
            path = self._root / name
            try:
                status = os.stat(path)
            except FileNotFoundError:
                if expected is not None:
                    return f"{name} is not there any more"
                continue
            if expected is None:
                return f"{name} is there, and none was written"
            if status.st_size != expected[0]:
                return f"{name} has {status.st_size} bytes, and {expected[0]} were written"
            mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if whole and self._seen.get(name) != (mark, expected):
                if sum_of(path) != expected:
                    return f"{name} holds something else than was written"
                self._seen[name] = mark, expected
        return ""

    def require(self, sums: Mapping[Key, Sums]) -> None:
        """Hold the files of several pieces to their records.

        Raises
        ------
        Faults
            If some are not as they were written.
        """
        reasons = {key: fault for key, files in sums.items() if (fault := self.fault(files))}
        if reasons:
            raise Faults(reasons)


class Journal:
    """Records of what is done.

    Parameters
    ----------
    folder : Path
        Where the files of records lie; made when the first one is written.
    root : Path
        Folder below which the pieces' files lie.
    assumed : callable, optional
        What a piece's files hold that has nothing to do and no record; None where it has.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     journal = Journal(Path(folder) / "done", Path(folder))
    ...     _ = (Path(folder) / "map").write_bytes(b"values")
    ...     journal.add(Key("1990", "0"), Guard(Path(folder)).sums(["map"]), Written(counts={"cells": 6}))
    ...     journal.close()
    ...     (Path(folder) / "map").unlink()
    ...     Journal(Path(folder) / "done", Path(folder)).faults([Key("1990", "0")])
    {Key(shard='1990', name='0'): 'map is not there any more'}
    """

    def __init__(self, folder: Path, root: Path, assumed: Callable[[Key], Sums | None] | None = None) -> None:
        self.folder, self.root = folder, root
        self._assumed = assumed or (lambda _: None)
        self._sums: dict[Key, Sums] = {}
        self._again: dict[Key, int] = {}
        self._open: dict[str, BinaryIO] = {}
        self.engines: set[str] = set()
        """What computed the pieces that are done."""
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
            for name, record in _records(path).items():
                self._sums[Key(path.stem, name)] = _sums_of(record)
                self.engines |= {record["engine"]} - {""}

    def __contains__(self, key: Key) -> bool:
        return key in self._sums or self._assumed(key) is not None

    def __len__(self) -> int:
        return len(self._sums)

    def sums(self, key: Key) -> Sums:
        """Return what the files of the finished piece ``key`` hold."""
        sums = self._sums.get(key)
        return sums if sums is not None else self._assumed(key) or ()

    def add(self, key: Key, sums: Sums, written: Written) -> None:
        """Say that a piece is done; its files are on the disk by then.

        Parameters
        ----------
        key : Key
            Which one.
        sums : Sums
            What its files hold.
        written : Written
            What else is known of it.

        Raises
        ------
        InputError
            If the disk does not take it.
        """
        record = {"name": key.name, "files": dict(sums), "counts": dict(written.counts), "engine": written.engine}
        self._append(key.shard, record)
        self._sums[key] = sums
        self.engines |= {written.engine} - {""}

    def drop(self, key: Key, reason: str) -> None:
        """Say that a piece has to be made again.

        Parameters
        ----------
        key : Key
            Which one.
        reason : str
            What is wrong with its files.

        Raises
        ------
        DataError
            If it was made again several times in this run already.
        """
        self._again[key] = self._again.get(key, 0) + 1
        if self._again[key] > _MOST_AGAIN:
            raise DataError(
                f"{self.root}: piece {key} was made {self._again[key]} times and does not stay as it was written "
                f"({reason}); see whether the disk is sound and nothing else writes there, and give the same command "
                "again"
            )
        _logger.warning("%s: piece %s is made again: %s", self.root, key, reason)
        if self._sums.pop(key, None) is not None:
            self._append(key.shard, {"name": key.name, "files": None, "counts": {}, "engine": ""})

    def faults(self, keys: Iterable[Key], whole: bool = True) -> dict[Key, str]:
        """Find finished pieces whose files are not as they were written.

        Parameters
        ----------
        keys : iterable of Key
            Which ones; those that are not done are passed over.
        whole : bool
            Read the files, in place of looking at their sizes alone.

        Returns
        -------
        dict of Key to str
            What is wrong with them.
        """
        guard = Guard(self.root)
        chosen = [key for key in keys if key in self]
        with ThreadPoolExecutor(4, thread_name_prefix="earthsr-journal") as pool:
            faults = pool.map(lambda key: guard.fault(self.sums(key), whole), chosen, chunksize=64)
            return {key: fault for key, fault in zip(chosen, faults, strict=True) if fault}

    def counts(self, shard: str) -> Iterator[dict[str, Any]]:
        """What was counted in the finished pieces of a shard, one after the other, by name."""
        if shard in self._open:
            self._open[shard].flush()
        path = self._path(shard)
        records = _records(path) if path.exists() else {}
        for name in sorted(records):
            yield records[name]["counts"]

    def close(self) -> None:
        """Bring all records to the disk."""
        for handle in self._open.values():
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
        self._open.clear()

    def _path(self, shard: str) -> Path:
        return self.folder / f"{shard}.jsonl"

    def _append(self, shard: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
        with disk_errors(self.folder):
            handle = self._open.get(shard)
            if handle is None:
                if len(self._open) >= _MOST_OPEN:
                    self.close()
                make_folder(self.folder)
                handle = self._open[shard] = self._path(shard).open("ab")
                if handle.tell():
                    handle.write(b"\n")  # what a kill cut off ends there
            handle.write(b"%08x %s\n" % (zlib.crc32(text), text))
            handle.flush()


def _records(path: Path) -> dict[str, dict[str, Any]]:
    """Last record of each piece in a file of records; lines that are not whole say nothing."""
    records: dict[str, dict[str, Any]] = {}
    with path.open("rb") as handle:
        for line in handle:
            crc, _, text = line.rstrip(b"\n").partition(b" ")
            if crc == b"%08x" % zlib.crc32(text):
                record = json.loads(text)
                if record["files"] is None:
                    records.pop(record["name"], None)
                else:
                    records[record["name"]] = record
    return records


def _sums_of(record: Mapping[str, Any]) -> Sums:
    return tuple((name, None if held is None else (held[0], held[1])) for name, held in record["files"].items())
