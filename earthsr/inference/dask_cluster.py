"""Pieces of work on the workers of Dask: those of this machine, of a cluster that runs, or of a SLURM job.

A worker opens its stages once, in this module, and keeps them: models load once. It has threads for a piece that is
read, one that is computed and one that is written. Dask starts another worker in the place of one that dies, and gives
its pieces to others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from earthsr.errors import InputError, WorkError, install_hint
from earthsr.inference.journal import Faults, Guard, Journal, Key, Sums, Written
from earthsr.inference.pieces import Frontier, Piece, Pieces, Place, Recipe, Stages, Take, WorkTimes, progress_bar

_logger = logging.getLogger("earthsr")

#: Threads of a worker: a piece that is read, one that is computed, one that is written.
_THREADS: Final = 3
#: Seconds to wait for the first worker.
_START_S: Final = 300
#: Seconds between looks at which workers there are, and remarks where there is none.
_LOOK_S: Final = 30
#: Variables with the accelerators that a process may see.
_VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
#: Settings of the clusters that are started here. A machine that is full of work answers late, and has not died for it;
#: a piece whose worker was killed is not to blame for that; memory follows the piece, and is the system's to limit.
_SETTINGS: Final = {
    "distributed.scheduler.allowed-failures": 10,
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.comm.timeouts.connect": "60 s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


class Unnumbered(Exception):
    """A worker that came late has no number yet among those of its machine, by which it takes an accelerator."""


class Outcome(NamedTuple):
    """What a worker says of a piece that it has done."""

    sums: Sums
    written: Written
    seconds: tuple[float, float, float]
    """Reading, computing, writing."""


class _Hands:
    """Stages of this worker, and who may use them."""

    def __init__(self, recipe: Recipe, root: Path, place: Place) -> None:
        # What is to be said of the inputs is said once, by the process that gives out the work.
        logging.getLogger("earthsr").setLevel(logging.ERROR)
        self.guard = Guard(root)
        self.reading, self.writing = threading.Lock(), threading.Lock()
        # Frameworks keep state by thread: one opens the model and computes.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="earthsr-compute")
        self.stages: Stages = self._thread.submit(recipe.open, place).result()

    def compute(self, item: Any, values: Any) -> tuple[Any, float]:
        return self._thread.submit(self._compute, item, values).result()

    def _compute(self, item: Any, values: Any) -> tuple[Any, float]:
        began = time.perf_counter()
        return self.stages.compute(item, values), time.perf_counter() - began


_hands: dict[str, _Hands] = {}
_opening = threading.Lock()


def _hands_of(token: str, recipe: Recipe, root: Path, numbers: Mapping[str, int]) -> _Hands:
    with _opening:
        if token not in _hands:
            place = _place(numbers)
            _hands.clear()  # of a run before this one
            _hands[token] = _Hands(recipe, root, place)
        return _hands[token]


def run_piece(
    token: str, recipe: Recipe, root: str, piece: Piece, given: Mapping[Key, Sums], numbers: Mapping[str, int]
) -> Outcome:
    """Do one piece, on a worker.

    Parameters
    ----------
    token : str
        Of the run: stages are opened once for each.
    recipe : Recipe
        How they are opened.
    root : str
        Folder below which files lie.
    piece : Piece
        What is done.
    given : mapping of Key to Sums
        What the files hold that it reads.
    numbers : mapping of str to int
        Number of each worker among those of its machine, by its name.

    Raises
    ------
    Faults
        If files are not what was written.
    Unnumbered
        If the worker came after the numbers were given.
    """
    hands = _hands_of(token, recipe, Path(root), numbers)
    with hands.reading:
        hands.guard.require(given)
        began = time.perf_counter()
        values = hands.stages.read(piece.item)
        reading = time.perf_counter() - began
    made, computing = hands.compute(piece.item, values)
    with hands.writing:
        began = time.perf_counter()
        written = hands.stages.write(piece.item, made)
        sums = hands.guard.sums(written.files)
        return Outcome(sums, written, (reading, computing, time.perf_counter() - began))


def _place(numbers: Mapping[str, int]) -> Place:
    """Where this worker works: an accelerator each, of those that it sees."""
    from distributed import get_worker

    name = str(get_worker().name)
    if name not in numbers:
        raise Unnumbered(name)
    number = numbers[name]
    for variable in _VISIBLE:
        if variable in os.environ:
            number %= max(1, len(os.environ[variable].split(",")))
    return Place(number, alone=False)


class _Numbers:
    """Numbers the workers of each machine, and lets those that are started again keep theirs."""

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}
        self._hosts: dict[str, set[int]] = {}
        self._addresses: dict[str, str] = {}

    def look(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        for address, worker in sorted(workers.items(), key=lambda item: _order(item[1]["name"])):
            name = str(worker["name"])
            if self._addresses.setdefault(name, address) != address:
                _logger.warning("worker %s of Dask has died and was replaced; its pieces are done again", name)
                self._addresses[name] = address
            if name not in self.by_name:
                taken = self._hosts.setdefault(worker["host"], set())
                self.by_name[name] = next(i for i in range(len(taken) + 1) if i not in taken)
                taken.add(self.by_name[name])


def _order(name: Any) -> tuple[int, str]:
    text = str(name)
    return (int(text), "") if text.isdigit() else (0, text)


class DaskScheduler:
    """Gives pieces of work to workers of Dask.

    Parameters
    ----------
    address : str, optional
        Scheduler of a cluster that runs: ``tcp://HOST:PORT``, or the path of its file. Its workers have earthsr, and
        see the same files under the same names.
    workers : int, optional
        Processes to start on this machine; another takes the place of one that dies. Where neither is given the tasks
        of a SLURM step are the workers, but for the first two.

    Raises
    ------
    InputError
        If Dask is not installed, or there is no SLURM step where one is needed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise InputError(f"--scheduler dask needs the package distributed: {install_hint('dask')}") from None
        self._address, self._workers = address, workers
        self._slurm = address is None and workers is None
        if self._slurm and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 3:
            raise InputError(
                "--scheduler dask does not say which workers: add --workers N for N processes on this machine, "
                "--scheduler-address tcp://HOST:PORT for a cluster that runs, or start it with srun and 3 tasks or more"
            )
        self._stack = contextlib.ExitStack()
        self._client: Any = None

    def __enter__(self) -> Self:
        if self._slurm:
            # Tasks that are to work do so here, and end when the work does.
            self._connected()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        self._stack.close()

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
        """Do the pieces that are not done yet (see :class:`earthsr.inference.pieces.Scheduler`)."""
        from distributed import CancelledError, wait

        frontier, times, began = Frontier(pieces, journal, take), WorkTimes(), time.perf_counter()
        first = frontier.next()
        if first is None:
            return times
        if recipe is None:
            raise ValueError("workers of Dask need a recipe by which they open their stages")
        client, numbers, token = self._connected(), _Numbers(), uuid.uuid4().hex
        running: dict[Any, tuple[Piece, dict[Key, Sums]]] = {}
        looked = -float(_LOOK_S)
        with progress_bar(pieces, journal, label) as bar, contextlib.closing(journal):
            try:
                while first is not None or frontier:
                    if time.monotonic() - looked >= _LOOK_S:
                        looked = time.monotonic()
                        workers = self._look(client)
                        numbers.look(workers)
                        times.workers = max(times.workers, len(workers))
                        threads = sum(worker["nthreads"] for worker in workers.values())
                    while len(running) < max(2 * threads, 1):
                        piece = first or frontier.next()
                        first = None
                        if piece is None:
                            break
                        given = frontier.given(piece)
                        future = client.submit(
                            run_piece,
                            token,
                            recipe,
                            str(journal.root),
                            piece,
                            given,
                            dict(numbers.by_name),
                            key=f"{label or 'piece'}-{piece.key}-{uuid.uuid4().hex[:8]}",
                            pure=False,
                        )
                        running[future] = piece, given
                    if not running:
                        raise AssertionError("pieces are left that wait for each other")
                    try:
                        ended = wait(list(running), timeout=_LOOK_S, return_when="FIRST_COMPLETED").done
                    except TimeoutError:
                        continue
                    for future in ended:
                        piece, given = running.pop(future)
                        try:
                            outcome: Outcome = future.result()
                        except Faults as faults:
                            frontier.lost(piece, given, faults.reasons)
                            continue
                        except Unnumbered:
                            frontier.lost(piece, given, {})
                            looked = -float(_LOOK_S)
                            continue
                        frontier.done(piece, outcome.sums, outcome.written)
                        times.pieces += 1
                        times.reading += outcome.seconds[0]
                        times.computing += outcome.seconds[1]
                        times.writing += outcome.seconds[2]
                        bar.update()
            except CancelledError:
                raise WorkError("the scheduler of Dask is gone; give the same command again: it carries on") from None
            except _dask_errors() as error:
                raise WorkError(
                    f"workers of Dask die or cannot be reached ({' '.join(str(error).split())[:200]}); see their log "
                    "for the reason (out of memory: start fewer on a machine), and give the same command again: it "
                    "carries on"
                ) from error
            finally:
                with contextlib.suppress(Exception):
                    client.cancel(list(running))
        with contextlib.suppress(OSError, *_dask_errors()):
            numbers.look(self._look(client))
        times.seconds = time.perf_counter() - began
        return times

    def _look(self, client: Any) -> Mapping[str, Mapping[str, Any]]:
        workers: Mapping[str, Mapping[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            _logger.warning("there is no worker of Dask now; waits for one")
        return workers

    def _connected(self) -> Any:
        """Client of the cluster, which is started or found the first time."""
        if self._client is not None:
            return self._client
        import dask
        from distributed import Client, LocalCluster

        # What becomes of workers is told here, and what ends the work is an error.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._stack.enter_context(dask.config.set(_SETTINGS))
        try:
            if self._slurm:
                threads = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
                self._stack.enter_context(dask.config.set(_threads_of_numerics(threads)))
                self._client = self._stack.enter_context(Client(self._stack.enter_context(_slurm_runner())))
            elif self._address is not None:
                file = self._address.endswith(".json")
                where = {"scheduler_file": self._address} if file else {"address": self._address}
                if file and not Path(self._address).is_file():
                    raise InputError(
                        f"--scheduler-address {self._address}: no such file; a running scheduler writes it"
                    )
                self._client = self._stack.enter_context(Client(**where, timeout=60))
            else:
                threads = max(1, (os.cpu_count() or 1) // (self._workers or 1))
                self._stack.enter_context(dask.config.set(_threads_of_numerics(threads)))
                cluster = LocalCluster(
                    n_workers=self._workers,
                    threads_per_worker=_THREADS,
                    memory_limit=0,
                    dashboard_address=":0",
                    silence_logs=logging.CRITICAL,
                )
                self._client = self._stack.enter_context(Client(self._stack.enter_context(cluster)))
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"--scheduler-address {self._address}: no scheduler of Dask answers there ({error}); expected "
                "tcp://HOST:PORT, or the file that it wrote"
            ) from None
        try:
            expected = self._workers or (int(os.environ["SLURM_NTASKS"]) - 2 if self._slurm else 1)
            self._client.wait_for_workers(expected, timeout=_START_S)
        except TimeoutError:
            if not self._look(self._client):
                raise WorkError(f"no worker of Dask came within {_START_S} s; see their log for the reason") from None
        _logger.info("Dask: %s", self._client.dashboard_link)
        return self._client


def _dask_errors() -> tuple[type[Exception], ...]:
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return KilledWorker, CommClosedError


def _threads_of_numerics(count: int) -> dict[str, int]:
    """Settings by which workers compute with so many threads: Dask's own is one."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {f"distributed.nanny.pre-spawn-environ.{name}": int(os.environ.get(name, count)) for name in names}


def _slurm_runner() -> Any:
    """Join the cluster of a SLURM step: its first task schedules, the second goes on from here, the others work."""
    try:
        from dask_jobqueue.slurm import SLURMRunner
    except ImportError:
        raise InputError(f"--scheduler dask under srun needs dask-jobqueue: {install_hint('dask')}") from None
    # A nanny starts another worker in the place of one that dies.
    step = "-".join(os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "SLURM_STEP_ID"))
    return SLURMRunner(
        scheduler_file=f"dask-{{job_id}}-{step}.json",
        worker_class="distributed.Nanny",
        worker_options={"nthreads": _THREADS, "memory_limit": 0, "death_timeout": _START_S},
    )
