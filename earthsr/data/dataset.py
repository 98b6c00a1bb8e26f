"""Batches in order, prepared ahead by threads.

Threads, not processes: reading releases nothing worth a process (one thread serves thousands of patches per second,
see tools/benchmark_layouts.py), and a script without a main guard, a notebook and a killed run all behave.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from earthsr.data.batch import Batch, make_batch
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import PADDING, Patches, Sampler, augmented, shifted
from earthsr.errors import DataError
from earthsr.ranks import ALONE, Rank

T = TypeVar("T")

#: Makes a rank's batch of the indices of a whole batch and of the rank's own.
Prepare = Callable[[NDArray[np.int64], NDArray[np.int64]], Batch]


class Generator(Protocol):
    """What a data set is made of: an indexable source of (coarse, fine) pairs, as MindEarth's ``DemData`` is."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


def read_patches(source: Generator, indices: NDArray[np.int64]) -> Patches:
    """Read patches from ``source``: by its own ``read`` where it has one, else item by item, NaN as the mask."""
    if hasattr(source, "read"):
        patches = source.read(indices)
        assert isinstance(patches, Patches)
        return patches
    pairs = [source[int(max(index, 0))] for index in indices]
    coarse = np.stack([np.asarray(pair[0], np.float32) for pair in pairs])
    fine = np.stack([np.asarray(pair[1], np.float32) for pair in pairs])
    if coarse.ndim != 4 or fine.ndim != 4:
        raise DataError(f"a generator gave items of shapes {coarse.shape[1:]} and {fine.shape[1:]}, expected (C, H, W)")
    mask = np.isfinite(fine).all(axis=1, keepdims=True).astype(np.uint8)
    mask[np.asarray(indices) == PADDING] = 0
    return Patches(coarse, np.where(mask.astype(bool), fine, 0).astype(np.float32), mask, indices)


def ahead(work: Sequence[Callable[[], T]], workers: int, depth: int) -> Iterator[T]:
    """Results of ``work`` in order, computed by ``workers`` threads at most ``depth`` items ahead."""
    if workers == 0:
        for item in work:
            yield item()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="earthsr-loader") as pool:
        pending: deque[Future[T]] = deque()
        queue = iter(work)
        try:
            for item in queue:
                pending.append(pool.submit(item))
                if len(pending) >= depth:
                    break
            while pending:
                result = pending.popleft().result()
                for item in queue:
                    pending.append(pool.submit(item))
                    break
                yield result
        finally:
            for future in pending:
                future.cancel()


class SplitFile(ABC):
    """One split on disk, of whichever workload: what training asks of it beside its samples."""

    split: str
    """``train``, ``valid`` or ``test``."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file."""

    @abstractmethod
    def scan(self, share: Rank = ALONE) -> None:
        """Read every value once.

        Parameters
        ----------
        share : Rank
            Of several processes that call this together each reads every n-th piece, and all know what was found.

        Raises
        ------
        DataError
            If one cannot be; the message names where it is.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Short hash by which a resumed run knows its data again."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Where samples come from, as far as the file says: for the record of a training."""


class SampleSet(ABC):
    """A source of samples and the way its batches are made: what training takes, of whichever workload.

    Parameters
    ----------
    generator : Any
        Where samples come from: a :class:`SplitFile`, or a generator of one's own.
    num_workers : int
        Threads that read and prepare; 0 reads in the loop.
    shuffle : bool
        A new order in every epoch.
    augment : bool
        The eight symmetries of the square.
    seed : int
        Seed of order and augmentation.
    prefetch : int
        Batches prepared ahead.
    """

    def __init__(
        self, generator: Any, num_workers: int, shuffle: bool, *, augment: bool, seed: int, prefetch: int
    ) -> None:
        self.generator = generator
        self.num_workers = num_workers
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.prefetch = prefetch
        self.batch_size = 1

    def create_dataset(self, batch_size: int) -> Self:
        """Set the global batch size; returns itself, as MindEarth's does.

        Raises
        ------
        DataError
            If ``batch_size`` is below 1.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected 1 or more")
        self.batch_size = batch_size
        return self

    @abstractmethod
    def __len__(self) -> int:
        """Samples of an epoch."""

    @property
    def sampler(self) -> Sampler:
        """The order of samples."""
        return Sampler(len(self), self.batch_size, self.seed, self.shuffle)

    @property
    def order(self) -> dict[str, Any]:
        """What samples and their order depend on beside seed and batch size: a run that goes on must not change it."""
        return {}

    def get_dataset_size(self) -> int:
        """Batches per epoch, the last partial one counted."""
        return self.sampler.steps_per_epoch

    def training_batches(
        self, epoch: int, normalisation: Any, *, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """Return batches of one epoch from step ``start`` on, all of one shape, normalised and augmented.

        Parameters
        ----------
        epoch : int
            Sets order and augmentation, together with the seed.
        normalisation : Normalisation or ChannelNormalisation
            Makes fields into what the network sees.
        start : int
            First step of the epoch.
        rank, world_size : int
            Which slice of each global batch.
        """
        prepare = self.preparation(epoch, normalisation, rank)
        table = self.sampler.batches(epoch)[start:]
        own = self.sampler.batches(epoch, rank, world_size)[start:] if world_size > 1 else table
        work = [partial(prepare, whole, indices) for whole, indices in zip(table, own, strict=True)]
        return ahead(work, self.num_workers, max(self.prefetch, self.num_workers))

    @abstractmethod
    def preparation(self, epoch: int, normalisation: Any, rank: int) -> Prepare:
        """Return what makes batches of one ``epoch``, normalised by ``normalisation``, for one ``rank``.

        It takes the indices of a whole global batch and those of this rank's share of it, ``PADDING`` where there is no
        sample, and gives the share as a batch.
        """

    @property
    def _file(self) -> SplitFile | None:
        return self.generator if isinstance(self.generator, SplitFile) else None

    @property
    def source(self) -> str:
        """Where samples come from, in words."""
        return "a generator of one's own" if self._file is None else str(self._file.path)

    def scan(self, share: Rank = ALONE) -> None:
        """Read every value once, where samples come from a file.

        Parameters
        ----------
        share : Rank
            Of several processes that call this together each reads every n-th piece, and all know what was found.

        Raises
        ------
        DataError
            If one cannot be; the message names where it is.
        """
        if self._file is not None:
            self._file.scan(share)

    def fingerprint(self) -> str | None:
        """Short hash of the file; None where samples come from a generator of one's own."""
        return None if self._file is None else self._file.fingerprint()

    def about(self) -> dict[str, Any]:
        """Where samples come from, for the record of a training."""
        return {"source": self.source} if self._file is None else self._file.about()


class PatchDraw(Protocol):
    """Makes patches anew by chance, each time that they are seen."""

    @property
    def draws(self) -> int:
        """Random numbers that it takes for every patch."""

    def __call__(self, patches: Patches, shares: NDArray[np.floating]) -> Patches:
        """Make patches of ``shares``, (N, draws) in [0, 1); all of one shape, whatever the shares."""


class Dataset(SampleSet):
    """A source of patches and the way its batches are made.

    Parameters
    ----------
    generator : DemData or any indexable source of (coarse, fine) pairs
        In metres.
    distribute : bool
        Accepted for MindEarth's scripts: a data set knows the whole split, and the engine's rank takes its share.
    num_workers : int
        Threads that read and prepare; 0 reads in the loop.
    shuffle : bool
        A new order in every epoch.
    augment : bool
        The eight symmetries of the square.
    shift : bool
        Coarse cells that lie elsewhere on the same terrain; for coarse cells that are block means of the truth.
    redraw : callable, optional
        Makes patches anew by random numbers, before they are augmented: see :class:`PatchDraw`.
    by_relief : bool
        Weigh every sample by one over its relief.
    seed : int
        Seed of order and augmentation.
    prefetch : int
        Batches prepared ahead.

    Examples
    --------
    >>> import earthsr
    >>> data = earthsr.DemData({"root_dir": "runs/demo-data", "patch_size": 16}, "valid")
    >>> dataset = earthsr.Dataset(data, shuffle=False).create_dataset(4)
    >>> next(dataset.create_dict_iterator())["labels"].shape
    (4, 1, 80, 80)
    """

    def __init__(
        self,
        generator: Generator,
        distribute: bool = False,
        num_workers: int = 1,
        shuffle: bool = True,
        *,
        augment: bool = False,
        shift: bool = False,
        redraw: PatchDraw | None = None,
        by_relief: bool = False,
        seed: int = 0,
        prefetch: int = 4,
    ) -> None:
        super().__init__(generator, num_workers, shuffle, augment=augment, seed=seed, prefetch=prefetch)
        self.distribute = distribute
        self.shift = shift
        self.redraw = redraw
        self.by_relief = by_relief

    def __len__(self) -> int:
        return len(self.generator)

    @property
    def order(self) -> dict[str, Any]:
        """See the base class; what older runs did not know is left out where it is off."""
        redraw = {} if self.redraw is None else {"redraw": repr(self.redraw)}
        return {**redraw, **({"by_relief": True} if self.by_relief else {})}

    def preparation(self, epoch: int, normalisation: Normalisation, rank: int) -> Prepare:
        """See the base class; ``normalisation`` is that of one field."""
        sampler = self.sampler
        symmetries = sampler.symmetries(epoch) if self.augment else None
        shifts = sampler.shifts(epoch) if self.shift else None
        redraw = self.redraw
        draws = None if redraw is None else sampler.redraws(epoch, redraw.draws)

        def prepare(_: NDArray[np.int64], indices: NDArray[np.int64]) -> Batch:
            patches = read_patches(self.generator, indices)
            if shifts is not None:
                patches = shifted(patches, shifts[np.maximum(indices, 0)])
            if symmetries is not None:
                patches = augmented(patches, symmetries[np.maximum(indices, 0)])
            # Terrain is turned, and not the product: a bell is wider along columns whichever way a valley runs.
            if redraw is not None and draws is not None:
                patches = redraw(patches, draws[np.maximum(indices, 0)])
            return make_batch(patches, normalisation, by_relief=self.by_relief)

        return prepare

    def patches(self, epoch: int = 0, share: Rank = ALONE) -> Iterator[Patches]:
        """Batches in metres, in this data set's order, the last one as short as it is; of several ranks every n-th.

        Parameters
        ----------
        epoch : int
            Which order, where the data set is shuffled.
        share : Rank
            Every n-th batch alone, for the n-th of several ranks.
        """
        table = self.sampler.batches(epoch)[share.number :: share.of]
        work = [partial(read_patches, self.generator, indices[indices != PADDING]) for indices in table]
        return ahead(work, self.num_workers, max(self.prefetch, self.num_workers))

    def create_dict_iterator(self) -> Iterator[dict[str, Any]]:
        """Batches as ``inputs`` (N, C, p, p) and ``labels`` (N, C, q, q), NumPy, in metres; NaN where masked."""
        for patches in self.patches():
            labels = np.where(patches.mask.astype(bool), patches.fine, np.nan).astype(np.float32)
            yield {"inputs": patches.coarse, "labels": labels}
