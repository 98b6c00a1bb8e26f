"""The processes that train together, through MindSpore's collective communication."""

from __future__ import annotations

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, communication, nn, ops
from numpy.typing import NDArray

from earthsr.errors import BackendError
from earthsr.ranks import Rank, launched_rank


@cache
def join(distribute: bool) -> Rank:
    """Meet the other processes that a launcher has started; MindSpore takes this once per process.

    Raises
    ------
    BackendError
        If they cannot be met.
    """
    rank = (launched_rank() if distribute else None) or Rank()
    if rank.of > 1:
        try:
            communication.init()
        except (RuntimeError, ValueError) as error:
            raise BackendError(
                f"{rank.of} processes did not meet, start them with msrun: {str(error).strip().splitlines()[0]}"
            ) from error
        # Losses are divided by the weight of the whole batch, so gradients are added up.
        ms.set_auto_parallel_context(
            parallel_mode=ms.ParallelMode.DATA_PARALLEL, device_num=rank.of, gradients_mean=False
        )
    return rank


class SharedSum(nn.Cell):
    """Sum of a tensor over all ranks, whose gradient is that of this rank's share."""

    def __init__(self, ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.alone = ranks == 1
        # Made where there is a group to send to.
        self.all_reduce = ops.Identity() if self.alone else ops.AllReduce()

    def construct(self, value: Tensor) -> Tensor:
        """Any shape to the same."""
        if self.alone:
            return value
        own = ops.stop_gradient(value)
        return value + (self.all_reduce(own) - own)


class AddUp(nn.Cell):
    """Gradients (or other tensors) added up over all ranks."""

    def __init__(self, learning: list[Parameter], ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.alone = ranks == 1
        self.reduce = ops.Identity() if self.alone else nn.DistributedGradReducer(learning, mean=False, degree=ranks)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Any shapes to the same."""
        return gradients if self.alone else self.reduce(gradients)


class MeanOfStatistics(nn.Cell):
    """Running statistics of norms become their means over ranks."""

    def __init__(self, statistics: list[Parameter], ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = ms.ParameterTuple(statistics)
        self.all_reduce = ops.AllReduce()
        self.ranks = ranks

    def construct(self) -> Tensor:
        """Change them; the value returned only orders the graph."""
        flat = ops.concat([ops.reshape(statistic, (-1,)) for statistic in self.statistics])
        mean = self.all_reduce(flat) / self.ranks
        start = 0
        for statistic in self.statistics:
            size = statistic.size
            ops.assign(statistic, ops.reshape(mean[start : start + size], statistic.shape))
            start += size
        return mean


class _Gather(nn.Cell):
    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.all_gather = ops.AllGather()

    def construct(self, value: Tensor) -> Tensor:
        return self.all_gather(value)


@cache
def _gatherer() -> _Gather:
    return _Gather()


def gather(values: NDArray[np.float64], ranks: int) -> NDArray[np.float64]:
    """Values of every rank, in a new first axis."""
    if ranks == 1:
        return values[None]
    # As bytes in whole numbers, which every device sends as they are: float64 is not one of them everywhere.
    own = np.array(values, np.float64).reshape(-1).view(np.int32)
    everyone = _gatherer()(Tensor(own)).asnumpy()
    return everyone.view(np.float64).reshape(ranks, *np.shape(values))
