"""Long work in pieces: what is done, after what, and by whom, whatever does it.

Work is described without a framework. A :class:`Piece` names what is done and which pieces have to be done before; a
:class:`Recipe` opens, once in each process that works, the :class:`Stages` that read, compute and write a piece. What
is done lies in a :class:`Journal`, so that the same call carries on after a kill. The files of the pieces that one
depends on are held to their records before it reads them, and made again where they are not what was written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, Final, Protocol, Self

from tqdm import tqdm

from earthsr.backend import Model
from earthsr.errors import InputError
from earthsr.inference.journal import Journal, Key, Sums, Written
from earthsr.models import Precision

#: Pieces that are looked at ahead of those that are done: memory holds so many descriptions, whatever the work.
_AHEAD: Final = 4096


@dataclass(frozen=True)
class Piece:
    """One piece of work: what is computed, written and restarted at once."""

    key: Key
    """Its name."""
    item: Any
    """What the stages take; small, and picklable where Dask is to have it."""
    after: tuple[Key, ...] = ()
    """Pieces that are done before, and whose files are as they were written when this one reads them."""
    reads: tuple[str, ...] = ()
    """Beginnings of the names of those of their files that it reads; all of them where it says none."""


#: Takes the value that a piece hands back, by its key.
Take = Callable[[Key, Any], None]

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


@dataclass(frozen=True)
class ModelFile:
    """Where a worker opens a model, and how."""

    path: str
    backend: str
    device: str
    precision: Precision

    @classmethod
    def of(cls, model: Model) -> ModelFile:
        """Describe a model that lies in a file.

        Raises
        ------
        InputError
            If it lies in none.
        """
        path = str(model.metadata.get("source", ""))
        if not os.path.exists(path):
            raise InputError("workers of Dask open the model from its file, and this one has none; save it first")
        return cls(os.path.abspath(path), model.backend.name, model.device, model.precision)

    def open(self, place: Place) -> Model:
        """Open it on the device of a place."""
        device = place.device(self.device)
        return Model.from_checkpoint(self.path, backend=self.backend, device=device, precision=self.precision)


class Stages(Protocol):
    """What a worker does with a piece. One piece is read, one computed and one written at a time, each by a thread."""

    def read(self, item: Any) -> Any:
        """Read what the piece of an ``item`` needs."""
        ...

    def compute(self, item: Any, values: Any) -> Any:
        """Compute from the ``values`` that were read for an ``item``; always in the same thread of a process."""
        ...

    def write(self, item: Any, made: Any) -> Written:
        """Write what was ``made`` for an ``item``; it is on the disk when this returns."""
        ...


class Recipe(Protocol):
    """How stages are opened; frozen and picklable where Dask is to have it."""

    def open(self, place: Place) -> Stages:
        """Open the stages for a ``place``, once in a process: models load here."""
        ...


@dataclass
class WorkTimes:
    """What a run of pieces took."""

    pieces: int = 0
    """That were done."""
    workers: int = 1
    """At once, at most."""
    seconds: float = 0.0
    """From beginning to end."""
    reading: float = 0.0
    """Seconds of reading, of all workers."""
    computing: float = 0.0
    """Seconds of computing, of all workers."""
    writing: float = 0.0
    """Seconds of writing, of all workers."""

    def __add__(self, other: WorkTimes) -> WorkTimes:
        """Of one run after another."""
        added = [getattr(self, field.name) + getattr(other, field.name) for field in fields(self)]
        return replace(WorkTimes(*added), workers=max(self.workers, other.workers))


class Scheduler(Protocol):
    """Does pieces of work."""

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
        """Do the pieces that are not done yet.

        Parameters
        ----------
        recipe : Recipe, optional
            How workers open their stages; the stages are enough where the work is done here.
        pieces : mapping of Key to Piece
            What is to be done.
        journal : Journal
            What is done; each piece is added as it is.
        stages : Stages, optional
            Stages that are open in this process, which is used where the work is done here.
        label : str
            Of the progress bar, which shows on a terminal.
        take : callable, optional
            Is given what each piece hands back as it is done, in any order.

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
    take : callable, optional
        Is given what each piece hands back.
    """

    def __init__(self, pieces: Pieces, journal: Journal, take: Take | None = None) -> None:
        self._pieces, self._journal, self._take = pieces, journal, take
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
        return {key: self._read_of(key, piece) for key in piece.after}

    def _read_of(self, key: Key, piece: Piece) -> Sums:
        sums = self._journal.sums(key)
        return tuple(held for held in sums if held[0].startswith(piece.reads)) if piece.reads else sums

    def done(self, piece: Piece, sums: Sums, written: Written) -> None:
        """Note that a piece is done; what waited for it may begin."""
        self._journal.add(piece.key, sums, written)
        if self._take is not None:
            self._take(piece.key, written.value)
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
            if key in self._journal and self._read_of(key, piece) == given[key]:
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


def progress_bar(pieces: Pieces, journal: Journal, label: str) -> tqdm[Any]:
    """Bar of a run, which shows on a terminal where it has a label."""
    if not label:
        return tqdm(disable=True)
    missing = sum(key not in journal for key in pieces)
    return tqdm(total=missing, desc=label, unit="piece", disable=None)
