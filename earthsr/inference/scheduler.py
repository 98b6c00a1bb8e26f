"""Who does which piece of long work, and when: in this process, or on the workers of Dask.

Work is described without a framework. A :class:`Piece` names what is done and which pieces have to be done before; a
:class:`Recipe` opens, once in each process that works, the :class:`Stages` that read, compute and write a piece. What
is done lies in a :class:`Journal`, so that the same call carries on after a kill. The files of the pieces that one
depends on are held to their records before it reads them, and made again where they are not what was written.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from tqdm import tqdm

from earthsr.errors import EarthsrError, InputError
from earthsr.inference.journal import Faults, Guard, Journal, Key, Sums, Written

#: Pieces that are looked at ahead of those that are done: memory holds so many descriptions, whatever the work.
_AHEAD: Final = 4096


@dataclass(frozen=True)
class Piece:
    """One piece of work: what is computed, written and restarted at once."""

    key: Key
    item: Any
    """What the stages take; small, and picklable where Dask is to have it."""
    after: tuple[Key, ...] = ()
    """Pieces that are done before, and whose files are as they were written when this one reads them."""


#: Pieces by their keys, in an order in which each comes after those that it depends on; may be made when asked for.
Pieces = Mapping[Key, Piece]


@dataclass(frozen=True)
class Place:
    """Where stages work."""

    number: int = 0
    """Of the worker among those of its machine, from 0 on: that of its GPU or NPU."""
    alone: bool = True
    """Whether there is no other worker: then the device is as the user says."""

    def device(self, device: str) -> str:
        """Give the workers of a machine an accelerator each.

        Parameters
        ----------
        device : str
            As the command line takes it.

        Examples
        --------
        >>> Place(2, alone=False).device("gpu")
        'gpu:2'
        """
        shared = not self.alone and self.number > 0 and ":" not in device and device != "cpu"
        return f"{device}:{self.number}" if shared else device


class Stages(Protocol):
    """What a worker does with a piece. One piece is read, one computed and one written at a time, each by a thread."""

    def read(self, item: Any) -> Any:
        """Read what a piece needs."""
        ...

    def compute(self, item: Any, values: Any) -> Any:
        """Compute; always in the same thread of a process."""
        ...

    def write(self, item: Any, made: Any) -> Written:
        """Write what was made; it is on the disk when this returns."""
        ...


class Recipe(Protocol):
    """How stages are opened; frozen and picklable where Dask is to have it."""

    def open(self, place: Place) -> Stages:
        """Open the stages, once in a process: models load here."""
        ...


@dataclass
class WorkTimes:
    """What a run of pieces took."""

    pieces: int = 0
    """That were done."""
    workers: int = 1
    seconds: float = 0.0
    """From beginning to end."""
    reading: float = 0.0
    computing: float = 0.0
    writing: float = 0.0
    """Seconds of each stage, of all workers."""


class Scheduler(Protocol):
    """Does pieces of work."""

    def run(
        self, recipe: Recipe, pieces: Pieces, journal: Journal, *, stages: Stages | None = None, label: str = ""
    ) -> WorkTimes:
        """Do the pieces that are not done yet.

        Parameters
        ----------
        recipe : Recipe
            How workers open their stages.
        pieces : mapping of Key to Piece
            What is to be done.
        journal : Journal
            What is done; each piece is added as it is.
        stages : Stages, optional
            Stages that are open in this process, which is used where the work is done here.
        label : str
            Of the progress bar, which shows on a terminal.

        Returns
        -------
        WorkTimes
            Where the time went.

        Raises
        ------
        DataError
            If a piece does not stay as it was written.
        WorkError
            If workers are lost, and none takes their place.
        EarthsrError
            What a stage says.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Frontier:
    """Which pieces may begin: those whose neighbours are done.

    Parameters
    ----------
    pieces : mapping of Key to Piece
        All of them, in an order in which each comes after those that it depends on.
    journal : Journal
        What is done.
    """

    def __init__(self, pieces: Pieces, journal: Journal) -> None:
        self._pieces, self._journal = pieces, journal
        self._source = iter(pieces)
        self._ready: deque[Piece] = deque()
        self._missing: dict[Key, set[Key]] = {}
        self._waiting: dict[Key, list[Key]] = {}
        self._begun: set[Key] = set()
        """Those that are waiting, ready or being done."""

    def next(self) -> Piece | None:
        """Take the next piece that may begin; None where none may yet."""
        while len(self._begun) < _AHEAD and (key := next(self._source, None)) is not None:
            if key not in self._journal:
                self._place(key)
        while self._ready:
            piece = self._ready.popleft()
            if all(key in self._journal for key in piece.after):
                return piece
            # One that it depends on was lost since.
            self._begun.discard(piece.key)
            self._place(piece.key)
        return None

    def __bool__(self) -> bool:
        """Whether pieces are left that :meth:`next` gave out, or will."""
        return bool(self._begun)

    def given(self, piece: Piece) -> dict[Key, Sums]:
        """What the files hold that a piece reads."""
        return {key: self._journal.sums(key) for key in piece.after}

    def done(self, piece: Piece, sums: Sums, written: Written) -> None:
        """Note that a piece is done; what waited for it may begin."""
        self._journal.add(piece.key, sums, written)
        self._begun.discard(piece.key)
        for key in self._waiting.pop(piece.key, ()):
            missing = self._missing[key]
            missing.discard(piece.key)
            if not missing:
                del self._missing[key]
                self._ready.append(self._pieces[key])

    def lost(self, piece: Piece, given: Mapping[Key, Sums], reasons: Mapping[Key, str]) -> None:
        """Have pieces made again whose files another one found to be wrong, and then that one.

        Parameters
        ----------
        piece : Piece
            The one that found it.
        given : mapping of Key to Sums
            What it was told that the files hold: where that has changed meanwhile it looks again.
        reasons : mapping of Key to str
            What is wrong.
        """
        for key, reason in reasons.items():
            if key in self._journal and self._journal.sums(key) == given[key]:
                self._journal.drop(key, reason)
                self._place(key, again=True)
        self._begun.discard(piece.key)
        self._place(piece.key)

    def _place(self, key: Key, again: bool = False) -> None:
        if key in self._begun:
            return
        self._begun.add(key)
        missing = {needed for needed in self._pieces[key].after if needed not in self._journal}
        for needed in missing:
            self._place(needed)
            self._waiting.setdefault(needed, []).append(key)
        if missing:
            self._missing[key] = missing
        elif again:
            self._ready.appendleft(self._pieces[key])
        else:
            self._ready.append(self._pieces[key])


class LocalScheduler:
    """Does the work in this process: a piece is read and another written while one is computed.

    Parameters
    ----------
    depth : int
        Pieces that may wait between two stages: memory holds so many on either side.

    Examples
    --------
    >>>     >>> from tempfile import TemporaryDirectory
    >>> class Squares:
    ...     def open(self, place):
    ...         return self
    ...     def read(self, item):
    ...         return item
    ...     def compute(self, item, values):
    ...         return values**2
    ...     def write(self, item, made):
    ...         return Written(counts={"square": made})
    >>> pieces = {Key("all", str(i)): Piece(Key("all", str(i)), i) for i in range(4)}
    >>> with TemporaryDirectory() as folder, LocalScheduler() as scheduler:
    ...     journal = Journal(Path(folder) / "done", Path(folder))
    ...     _ = scheduler.run(Squares(), pieces, journal)
    ...     [counts["square"] for counts in journal.counts("all")]
    [0, 1, 4, 9]
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth

    def run(
        self, recipe: Recipe, pieces: Pieces, journal: Journal, *, stages: Stages | None = None, label: str = ""
    ) -> WorkTimes:
        """Do the pieces that are not done yet (see :class:`Scheduler`)."""
        times, began = WorkTimes(), time.perf_counter()
        frontier, guard = Frontier(pieces, journal), Guard(journal.root)
        hands = stages or recipe.open(Place())
        reads: deque[tuple[Piece, dict[Key, Sums], Future[Any]]] = deque()
        writes: deque[tuple[Piece, Future[tuple[Sums, Written]]]] = deque()

        def read(piece: Piece, given: dict[Key, Sums]) -> Any:
            guard.require(given)
            start = time.perf_counter()
            values = hands.read(piece.item)
            times.reading += time.perf_counter() - start
            return values

        def write(piece: Piece, made: Any) -> tuple[Sums, Written]:
            start = time.perf_counter()
            written = hands.write(piece.item, made)
            sums = guard.sums(written.files)
            times.writing += time.perf_counter() - start
            return sums, written

        with (
            ThreadPoolExecutor(1, thread_name_prefix="earthsr-reader") as reader,
            ThreadPoolExecutor(1, thread_name_prefix="earthsr-writer") as writer,
            progress_bar(pieces, journal, label) as bar,
        ):
            try:
                while True:
                    while len(reads) <= self._depth and (piece := frontier.next()) is not None:
                        given = frontier.given(piece)
                        reads.append((piece, given, reader.submit(read, piece, given)))
                    if writes and (not reads or writes[0][1].done() or len(writes) > self._depth):
                        piece, ended = writes.popleft()
                        frontier.done(piece, *ended.result())
                        times.pieces += 1
                        bar.update()
                        continue
                    if not reads:
                        break
                    piece, given, taken = reads.popleft()
                    try:
                        values = taken.result()
                    except Faults as faults:
                        frontier.lost(piece, given, faults.reasons)
                        continue
                    start = time.perf_counter()
                    made = hands.compute(piece.item, values)
                    times.computing += time.perf_counter() - start
                    writes.append((piece, writer.submit(write, piece, made)))
            except BaseException:
                for _, _, waiting in reads:
                    waiting.cancel()
                _keep_written(frontier, writes)
                raise
            finally:
                journal.close()
        if frontier:
            raise AssertionError("pieces are left that wait for each other")
        times.seconds = time.perf_counter() - began
        return times

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _keep_written(frontier: Frontier, writes: deque[tuple[Piece, Future[tuple[Sums, Written]]]]) -> None:
    """Note what is written after all when something else has failed."""
    with contextlib.suppress(EarthsrError):
        for piece, ended in writes:
            if ended.exception() is None:
                frontier.done(piece, *ended.result())


def progress_bar(pieces: Pieces, journal: Journal, label: str) -> tqdm[Any]:
    """Bar of a run, which shows on a terminal where it has a label."""
    total, hidden = len(pieces), None if label else True
    done = min(len(journal), total)
    return tqdm(total=total, initial=done, desc=label or None, unit="piece", disable=hidden)


def make_scheduler(kind: str | None = None, address: str | None = None, workers: int | None = None) -> Scheduler:
    """Choose who does the work.

    Parameters
    ----------
    kind : {"local", "dask"}, optional
        In this process, or on workers of Dask; ``dask`` where an address or a number of workers is given.
    address : str, optional
        Scheduler of a cluster that runs: ``tcp://HOST:PORT``, or the path of its file.
    workers : int, optional
        Worker processes that are started on this machine.

    Raises
    ------
    InputError
        If these do not go together, or Dask is not installed.

    Examples
    --------
    >>> type(make_scheduler()).__name__
    'LocalScheduler'
    """
    kind = kind or ("local" if address is None and workers is None else "dask")
    if kind not in ("local", "dask"):
        raise InputError(f"--scheduler is {kind!r}, expected local or dask")
    if kind == "local":
        if address is not None or workers is not None:
            option = "--workers" if address is None else "--scheduler-address"
            raise InputError(f"{option} is of Dask, and --scheduler is local: say --scheduler dask")
        return LocalScheduler()
    if address is not None and workers is not None:
        raise InputError("--workers starts workers here, and --scheduler-address takes those of a cluster: give one")
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}, expected 1 or more processes")
    from earthsr.inference.dask_cluster import DaskScheduler

    return DaskScheduler(address, workers)
