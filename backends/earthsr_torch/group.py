"""The processes that train together, through torch.distributed."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from earthsr.errors import BackendError
from earthsr.ranks import Rank, launched_rank
from earthsr_torch.device import module_of


@dataclass(frozen=True)
class Group:
    """One process alone, or one of several; every method is called by all of them, in the same order."""

    rank: Rank
    device: torch.device

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.rank.of == 1

    def start_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Start adding a tensor up over all ranks, in place; what is returned waits for it."""
        if self.alone:
            return lambda: tensor
        work = dist.all_reduce(tensor, async_op=True)

        def wait() -> Tensor:
            work.wait()
            return tensor

        return wait

    def sum(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place."""
        return self.start_sum(tensor)()

    def shared_sum(self, tensor: Tensor) -> Tensor:
        """Sum over all ranks whose gradient is that of this rank's share."""
        if self.alone:
            return tensor
        return tensor + (self.sum(tensor.detach().clone()) - tensor.detach())

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of every rank, in a new first axis."""
        if self.alone:
            return values[None]
        own = torch.from_numpy(np.array(values, np.float64).reshape(-1)).to(self.device)
        everyone = own.new_empty(self.rank.of * own.numel())
        dist.all_gather_into_tensor(everyone, own) if self.device.type != "cpu" else dist.all_gather(
            list(everyone.chunk(self.rank.of)), own
        )
        return everyone.cpu().numpy().reshape(self.rank.of, *np.shape(values))

    def replicate(self, network: nn.Module, accumulate: int) -> nn.Module:
        """Wrap a network so that the gradients of a step are the mean over ranks, sent while it is still computed.

        Running statistics are no gradients and stay this rank's: :meth:`mean_of` is for them.
        """
        if self.alone:
            return network
        with warnings.catch_warnings():
            # Newer releases have another word for it, which older ones do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                network,
                device_ids=[self.device.index] if self.device.type != "cpu" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                # A static graph is refused where some batches of a step are not sent (no_sync).
                static_graph=accumulate == 1,
            )

    def mean_of(self, tensors: list[Tensor]) -> None:
        """Replace float tensors by their means over ranks, in place, in one message."""
        if self.alone or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.sum(flat)
        flat /= self.rank.of
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.reshape(tensor.shape))


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks that all of them go on computing with: gradients are sums over ranks too."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        """Sum of every rank's values."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """Sum of every rank's gradient."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _over_ranks(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Forward pass (N, C, H, W) to the same; mean first and squares of departures after it, as float32 needs it."""
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    count = x.numel() / x.shape[1] * dist.get_world_size()
    mean = _SumOverRanks.apply(x.sum(axes)) / count
    departure = x - mean.view(shape)
    variance = _SumOverRanks.apply(departure.square().sum(axes)) / count
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return departure * scale.view(shape) + norm.bias.view(shape)


def share_statistics(network: nn.Module) -> None:
    """Let all batch norms take their statistics from the batches of all ranks; once done it stays.

    PyTorch's own ``SyncBatchNorm`` is for CUDA alone.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module.forward, partial):
            module.forward = partial(_over_ranks, module)  # type: ignore[method-assign]


@contextlib.contextmanager
def watched(group: Group) -> Iterator[None]:
    """Turn what the communication library says when another rank has gone into one line.

    Raises
    ------
    BackendError
        If another rank does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = isinstance(error, dist.DistError) or any(
            word in text for word in ("gloo", "NCCL", "HCCL", "peer", "Timed out")
        )
        if group.alone or not lost:
            raise
        raise BackendError(
            f"rank {group.rank.number} lost contact with another one, which has ended or hangs; its own message says "
            f"why. Checkpoints so far are whole: start the same command with --resume. ({text.splitlines()[0]})"
        ) from error


def join(device: torch.device, distribute: bool) -> Group:
    """Meet the other processes that a launcher has started.

    Raises
    ------
    BackendError
        If they cannot be met.
    """
    rank = (launched_rank() if distribute else None) or Rank()
    if rank.of > 1 and not dist.is_initialized():
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing or not dist.is_available():
            raise BackendError(
                f"{rank.of} processes cannot meet: "
                + (f"{' and '.join(missing)} not set; start them with torchrun" if missing else "torch has no gloo")
            )
        try:
            # torchrun keeps its store when it starts processes again; addresses of those that died shall not be found.
            store, _, _ = next(dist.rendezvous("env://", rank.number, rank.of))
            attempt = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            kind, options = "gloo", dict[str, Any]()
            accelerator = module_of(device)
            if accelerator is not None:
                # Else every rank takes memory on the first device too, and the library guesses which one is its own.
                kind = "nccl" if device.type == "cuda" else "hccl"
                options = {"device_id": device} if device.type == "cuda" else {}
                accelerator.set_device(device)
            dist.init_process_group(kind, store=attempt, rank=rank.number, world_size=rank.of, **options)
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{rank.of} processes did not meet: {str(error).splitlines()[0]}") from error
        atexit.register(_leave)
    return Group(rank, device)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
