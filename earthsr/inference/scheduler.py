"""Who does which piece of long work: this process, or the workers of Dask."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from earthsr.errors import EarthsrError, InputError
from earthsr.inference.journal import Faults, Guard, Journal, Key, Sums, Written
from earthsr.inference.pieces import (
    Frontier,
    Piece,
    Pieces,
    Place,
    Recipe,
    Scheduler,
    Stages,
    Take,
    WorkTimes,
    progress_bar,
)

_logger = logging.getLogger("earthsr")


class LocalScheduler:
    """Does the work in this process: a piece is read and another written while one is computed.

    Parameters
    ----------
    depth : int
        Pieces that may wait between two stages: memory holds so many on either side.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
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
        self,
        recipe: Recipe | None,
        pieces: Pieces,
        journal: Journal,
        *,
        stages: Stages | None = None,
        label: str = "",
        take: Take | None = None,
    ) -> WorkTimes:
        """Do the pieces that are not done yet (see :class:`Scheduler`)."""
        times, began = WorkTimes(), time.perf_counter()
        frontier, guard = Frontier(pieces, journal, take), Guard(journal.root)
        hands = stages if recipe is None else stages or recipe.open(Place())
        assert hands is not None
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


def make_all(
    scheduler: Scheduler,
    recipe: Recipe | None,
    pieces: Pieces,
    journal: Journal,
    *,
    stages: Stages | None = None,
    label: str = "",
    whole: bool = True,
    take: Take | None = None,
) -> WorkTimes:
    """Do pieces until all are there and hold what was written; parameters are those of :meth:`Scheduler.run`.

    Parameters
    ----------
    scheduler : Scheduler
        Who does them.
    recipe, pieces, journal, stages, label, take
        As :meth:`Scheduler.run` takes them.
    whole : bool
        Read what earlier calls wrote before anything begins, in place of looking at its sizes alone: whatever a piece
        reads is held to its record then.

    Returns
    -------
    WorkTimes
        Where the time went.
    """
    times, begun = WorkTimes(), len(journal) > 0
    faults = journal.faults(pieces, whole) if begun else {}
    while True:
        for key, reason in faults.items():
            journal.drop(key, reason)
        if begun:
            done = sum(key in journal for key in pieces)
            _logger.info("%s carries on; %d of %d pieces are there", label, done, len(pieces))
        times += scheduler.run(recipe, pieces, journal, stages=stages, label=label, take=take)
        # Whatever was not read since it was written is looked at once more, before it is handed out.
        faults, begun = journal.faults(pieces), False
        if not faults:
            return times


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

    Returns
    -------
    Scheduler
        To be used in a ``with`` statement, at whose end workers that were started end.

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
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
        if tasks != "1":
            raise InputError(
                f"srun has started {tasks} tasks of this command, which would write one output: say --scheduler dask, "
                "or start one task"
            )
        return LocalScheduler()
    if address is not None and workers is not None:
        raise InputError("--workers starts workers here, and --scheduler-address takes those of a cluster: give one")
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}, expected 1 or more processes")
    from earthsr.inference.dask_cluster import DaskScheduler

    return DaskScheduler(address, workers)
