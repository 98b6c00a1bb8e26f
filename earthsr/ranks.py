"""Which of several processes that work together this one is, as launchers say it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from earthsr.errors import InputError, TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Variables of rank and number of processes that ``torchrun`` and ``msrun`` set.
_LAUNCHERS: Final = (("RANK", "WORLD_SIZE"), ("RANK_ID", "MS_WORKER_NUM"), ("RANK_ID", "RANK_SIZE"))


@dataclass(frozen=True)
class Rank:
    """One of several processes that share the work."""

    number: int = 0
    """From 0 on."""
    of: int = 1
    """How many there are."""
    gather: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = field(default=None, repr=False, compare=False)
    """Values of every process in a new first axis, where they work at the same time; all of them ask together."""

    def __post_init__(self) -> None:
        if self.of < 1 or not 0 <= self.number < self.of:
            raise InputError(f"rank {self.number} of {self.of}: expected 0 to {max(self.of - 1, 0)}")

    def rows(self, items: int, width: int, row_of: Callable[[int], tuple[float, ...]]) -> NDArray[np.float64]:
        """Rows of numbers, one an item, of which each process makes every n-th; all of them ask together.

        They are the same, and in the same order, whatever the number of processes. One that cannot ask the others makes
        all rows.

        Parameters
        ----------
        items : int
            How many.
        width : int
            Numbers in a row.
        row_of : callable
            Makes the row of an item.

        Returns
        -------
        ndarray of shape (items, width)
            Of all of them, float64.

        Raises
        ------
        TrainingError
            If another process failed.
        EarthsrError
            What ``row_of`` raises here.

        Examples
        --------
        >>> ALONE.rows(3, 1, lambda item: (item**2,)).tolist()
        [[0.0], [1.0], [4.0]]
        """
        import numpy as np

        if self.gather is None:
            return np.array([row_of(item) for item in range(items)], np.float64).reshape(items, width)
        own = np.zeros((-(-items // self.of), width))
        failure: BaseException | None = None
        try:
            for place, item in enumerate(range(self.number, items, self.of)):
                own[place] = row_of(item)
        except BaseException as error:
            # Whatever it is: the others wait in a call that this one has to make too.
            failure = error
        failed = self.gather(np.array([failure is not None], np.float64)).ravel()
        if failure is not None:
            raise failure
        if failed.any():
            raise TrainingError(f"rank {int(failed.argmax())} failed; its own message says why")
        return self.gather(own).transpose(1, 0, 2).reshape(-1, width)[:items]


ALONE: Final = Rank()


def launched_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """Rank among processes that a launcher has started to compute together; None where none says so.

    Raises
    ------
    InputError
        If a variable is no number, or the rank is not below the number of processes.
    """
    known = os.environ if environment is None else environment
    for rank, size in _LAUNCHERS:
        if rank in known and size in known:
            return Rank(_whole(known, rank), _whole(known, size))
    return None


def _whole(known: Mapping[str, str], name: str) -> int:
    try:
        return int(known[name])
    except ValueError:
        raise InputError(f"{name}={known[name]}: expected a whole number, as a launcher sets it") from None


def device_of(device: str, environment: Mapping[str, str] | None = None) -> str:
    """Give the processes of one machine a GPU each, where ``torchrun`` or ``srun`` says which of them this is.

    Parameters
    ----------
    device : str
        As the command line takes it.
    environment : mapping, optional
        Variables of the launcher; those of this process where absent.

    Returns
    -------
    str
        The device with its number, such as ``gpu:1``, or ``device`` as it is.
    """
    known = os.environ if environment is None else environment
    local = known.get("LOCAL_RANK", known.get("SLURM_LOCALID", "0"))
    shared = local.isdigit() and int(local) > 0 and device in ("auto", "gpu", "cuda", "ascend")
    return f"{device}:{local}" if shared else device
