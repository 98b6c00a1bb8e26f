"""How processes share a reconstruction: the folder in which it grows, whose a chunk is, and what is done.

``NAME.work`` beside the output holds ``manifest.json`` (what is made, from what), the store of maps, static fields,
markers and locks. Whoever comes first makes it; a process that finds another manifest there refuses. What is done one
small file says for each chunk and year, with what was counted.

A marker is written after the chunk's values, so what is marked is there; that it still is, and can be read, is checked
before anything is computed from it. Processes see each other's work by the markers alone, and wait for those they need.
They need no connection: whatever starts several copies of one command will do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from earthsr.errors import DataError, InputError, WorkError
from earthsr.geo.grid import Window
from earthsr.landuse.maps import Maps, Scratch
from earthsr.ranks import Rank
from earthsr.store import Lock, WorkFolder, write_json

_MANIFEST: Final = "manifest"

_POLL_S: Final = 0.1
#: Seconds between remarks on what is waited for.
_REMARK_S: Final = 60.0
#: Markers that a message names, at most.
_MOST_MARKERS: Final = 8

_logger = logging.getLogger("earthsr")


class SharedFolder(WorkFolder):
    """Places of a reconstruction.

    Parameters
    ----------
    target : Path
        The output that was asked for.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target.with_name(f"{target.name}.work"))
        self.target = target

    @property
    def manifest(self) -> Path:
        """What is made."""
        return self.path / f"{_MANIFEST}.json"

    @property
    def maps(self) -> Path:
        """The store of maps."""
        return self.path / "maps.zarr"

    @property
    def scratch(self) -> Path:
        """Static fields."""
        return self.path / "static"

    @property
    def land(self) -> Path:
        """Share of land of each coarse cell, where the scenario has to have a value; written before the manifest."""
        return self.path / "land_share.npy"

    @property
    def done(self) -> Path:
        """Markers."""
        return self.path / "done"

    @property
    def exporting(self) -> Path:
        """A file that is there once maps are being brought to their place: what lies there then is this run's own.

        It names the GeoTIFFs that are finished, or the number of the store that is moved (:attr:`moved`).
        """
        return self.path / "exporting"

    @property
    def moved(self) -> bool:
        """Whether the store of maps is in its place: it may have changed places with what was there before."""
        if not self.maps.exists():
            return True
        try:
            return self.exporting.read_text(encoding="utf-8").strip() == str(self.target.stat().st_ino)
        except OSError:
            return False

    @property
    def report(self) -> Path:
        """Folder of report and figures, beside the output."""
        return self.target.with_name(f"{self.target.stem}_report")

    @contextlib.contextmanager
    def own(self, rank: Rank) -> Iterator[None]:
        """Keep a second process of the same rank away.

        Raises
        ------
        InputError
            If there is one.
        """
        lock = Lock(self.path / f"rank-{rank.number}-of-{rank.of}.lock", self.target)
        try:
            yield
        finally:
            lock.release()

    def read_manifest(self) -> dict[str, Any] | None:
        """Return what is being made here; None where nothing is."""
        return self.read(_MANIFEST)

    def require_same(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of what is being made here, if it is what is asked for; None where nothing is.

        Raises
        ------
        InputError
            If something else is being made; the message names what differs.
        """
        manifest = self.read_manifest()
        if manifest is None:
            return None
        asked = json.loads(json.dumps(identity))
        differs = [key for key in asked if manifest["identity"].get(key) != asked[key]]
        if differs:
            raise InputError(
                f"{self.path}: was begun with another {', '.join(differs)}; give the same, or remove the folder (or "
                "--overwrite) to begin anew"
            )
        return manifest

    def require_current(self, manifest: Mapping[str, Any]) -> None:
        """Check that nobody has begun anew since this process began or joined.

        Raises
        ------
        WorkError
            If somebody has: what this process would write is of another reconstruction.
        """
        present = self.read_manifest()
        if present is None or present["begun"] != manifest["begun"]:
            raise WorkError(
                f"{self.path}: another process has begun anew there, or removed it; this one stops, and has changed "
                "nothing of that"
            )

    def finished(self, identity: Mapping[str, Any], names: Sequence[str], since: float = -math.inf) -> dict[str, Any]:
        """Return the report of the output, if that is there and is what is asked for; else nothing.

        Parameters
        ----------
        identity : Mapping
            Of what is asked for.
        names : sequence of str
            Files or folders of the output. Another output of this name (``maps.nc``) has the same report.
        since : float
            Seconds since the epoch before which the report was not written.
        """
        path = self.report / "reconstruct.json"
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            late = path.stat().st_mtime >= since
        except (FileNotFoundError, ValueError):
            return {}
        same = report.get("identity") == json.loads(json.dumps(identity)) and report.get("files") == list(names)
        complete = all((self.target.parent / name).exists() for name in names)
        return report if late and same and complete else {}

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: everything else that is shared is there."""
        self.write(_MANIFEST, manifest)

    def clear(self, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
        """Remove what was begun; the manifest first, without which nothing is carried on."""
        super().clear((self.manifest.name, *first), last)


class Chunk(NamedTuple):
    """Row and column of a chunk on the lattice of chunks."""

    i: int
    j: int


class ChunkProgress:
    """Markers of finished chunks.

    Parameters
    ----------
    folder : Path
        Where they lie.
    owner : callable
        Names who computes a chunk, for remarks on waiting.
    patience_s : float
        Seconds to wait for a chunk of another process.
    anchor_year : int
        Year in which every chunk has something to do: keeping its static fields.
    empty : set of Chunk
        Chunks without a cell that has a class, of which other years need nothing.
    """

    def __init__(
        self,
        folder: Path,
        owner: Callable[[Chunk], str],
        patience_s: float,
        anchor_year: int,
        empty: frozenset[Chunk] = frozenset(),
    ) -> None:
        self._folder, self._owner, self._patience_s = folder, owner, patience_s
        self._anchor_year, self._empty = anchor_year, empty
        self._seen: set[tuple[int, Chunk]] = set()
        self._failure: BaseException | None = None

    def path(self, year: int, chunk: Chunk) -> Path:
        """File of a marker."""
        return self._folder / str(year) / f"{chunk.i:03d}-{chunk.j:03d}.json"

    def done(self, year: int, chunk: Chunk) -> bool:
        """Whether a chunk is finished, or has nothing to do."""
        if chunk in self._empty and year != self._anchor_year:
            return True
        if (year, chunk) not in self._seen and self.path(year, chunk).is_file():
            self._seen.add((year, chunk))
        return (year, chunk) in self._seen

    def mark(self, year: int, chunk: Chunk, record: dict[str, Any]) -> None:
        """Say that a chunk is finished, and what was counted in it."""
        write_json(self.path(year, chunk), record)
        self._seen.add((year, chunk))

    def read(self, year: int, chunk: Chunk) -> dict[str, Any] | None:
        """Return what was counted in a finished chunk; None where it had nothing to do."""
        if chunk in self._empty and year != self._anchor_year:
            return None
        record: dict[str, Any] = json.loads(self.path(year, chunk).read_text(encoding="utf-8"))
        return record

    def layers(self, year: int, chunk: Chunk, more: bool) -> tuple[str, ...]:
        """Layers of which a finished chunk holds a value, so that it has a file; ``more`` than classes or not."""
        if chunk in self._empty:
            return ()
        record = self.read(year, chunk) if more else None
        return ("land_use", *(record or {}).get("files", ()))

    def is_anchor(self, year: int) -> bool:
        """Whether static fields are kept in this year."""
        return year == self._anchor_year

    def records(self, year: int, chunks: Iterable[Chunk]) -> Iterator[dict[str, Any]]:
        """What was counted in those of a year's chunks that had something to do, one after the other."""
        for chunk in chunks:
            record = self.read(year, chunk)
            if record is not None:
                yield record

    @contextlib.contextmanager
    def ends_waiting(self) -> Iterator[None]:
        """Let an error in the block end what this process waits for: its own chunks will not come any more."""
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise

    def wait(self, year: int, chunks: Iterable[Chunk]) -> None:
        """Wait until chunks are finished.

        Raises
        ------
        WorkError
            If one is not within the patience: its process has died, or is far behind.
        BaseException
            What failed inside :meth:`ends_waiting`, in whichever thread.
        """
        began = last_remark = time.monotonic()
        for chunk in chunks:
            while not self.done(year, chunk):
                if self._failure is not None:
                    raise self._failure
                now = time.monotonic()
                if now - began > self._patience_s:
                    raise WorkError(
                        f"waited {now - began:.0f} s for chunk {chunk.i}-{chunk.j} of {year}, which "
                        f"{self._owner(chunk)} computes; see whether it still runs, and start the same command "
                        "again: it carries on"
                    )
                if now - last_remark > _REMARK_S:
                    last_remark = now
                    _logger.info("waits for chunk %d-%d of %d, of %s", chunk.i, chunk.j, year, self._owner(chunk))
                time.sleep(_POLL_S)


def shares(costs: Sequence[float], of: int) -> list[int]:
    """Rank of each chunk: the dearest first, each to whom has least (Graham, 1969).

    Chunks that cost nothing are given out in turn.
    """
    loads = [0.0] * of
    held = [0] * of
    ranks = [0] * len(costs)
    for chunk in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(of), key=partial(_burden, loads, held, costs[chunk]))
        ranks[chunk] = rank
        loads[rank] += costs[chunk]
        held[rank] += 1
    return ranks


def _burden(loads: Sequence[float], held: Sequence[int], cost: float, rank: int) -> tuple[float, int, int]:
    return loads[rank] if cost else 0.0, held[rank], rank


class Present:
    """Looks at what markers say is there.

    Parameters
    ----------
    progress : ChunkProgress
        The markers.
    maps : Maps
        Where maps lie.
    scratch : Scratch or None
        Where static fields lie; None where they are not needed any more.
    window : callable
        Gives the cells of a chunk.
    """

    def __init__(
        self, progress: ChunkProgress, maps: Maps, scratch: Scratch | None, window: Callable[[Chunk], Window]
    ) -> None:
        self._progress, self._maps, self._scratch, self._window = progress, maps, scratch, window

    def require(self, years: Iterable[int], chunks: Iterable[Chunk], readable: bool = False) -> None:
        """Check chunks that are marked as done.

        Parameters
        ----------
        years, chunks : iterable
            Which ones; those without a marker are passed over.
        readable : bool
            Read them too.

        Raises
        ------
        DataError
            If a file is missing, or cannot be read; the message names year and chunk, and how it is computed again.
        """
        wrong: dict[Path, str] = {}
        chosen = list(chunks)
        for year in years:
            for chunk in chosen:
                if self._progress.done(year, chunk):
                    reason = self._reason(year, chunk, readable)
                    if reason:
                        wrong[self._progress.path(year, chunk)] = f"{reason} of {year}, chunk {chunk.i}-{chunk.j},"
        if wrong:
            raise self._error(wrong)

    def _reason(self, year: int, chunk: Chunk, readable: bool) -> str:
        """What is missing or damaged; empty where nothing is."""
        for layer in self._progress.layers(year, chunk, len(self._maps.spec.layers) > 1):
            if not self._maps.has(layer, year, chunk.i, chunk.j):
                return f"{layer} (not there)"
            if readable:
                try:
                    self._maps.read(layer, year, self._window(chunk))
                except DataError:
                    return f"{layer} (cannot be read)"
        if self._scratch is not None and self._progress.is_anchor(year):
            if not self._scratch.has(chunk.i, chunk.j):
                return "static fields (not there)"
            if readable:
                try:
                    self._scratch.read(self._window(chunk))
                except DataError:
                    return "static fields (cannot be read)"
        return ""

    def _error(self, wrong: dict[Path, str]) -> DataError:
        folder = self._maps.path.parent
        first, count = next(iter(wrong.values())), len(wrong)
        more = f" and {count - 1} more" if count > 1 else ""
        if count <= _MOST_MARKERS:
            paths = " ".join(shlex.quote(str(path)) for path in wrong)
            remedy = f"the same command computes it again after: rm {paths}"
        else:
            remedy = f"the same command begins anew after: rm -r {shlex.quote(str(folder))}"
        return DataError(f"{self._maps.path}: {first} is marked as done and is lost or damaged{more}; {remedy}")
