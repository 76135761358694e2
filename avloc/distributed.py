"""Processes that share a batch (`torchrun`): what each has to know of the others.

Every process runs the same steps on its part of each batch. A loss term is made so that the mean over the processes of
what each has is the term of the whole batch; `DistributedDataParallel` takes the mean of the gradients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from avloc.errors import Refused, UsageError
from avloc.sharding import launcher_shard

T = TypeVar("T")
_LOST = re.compile(r"Connection (closed|reset) by|Broken pipe|Connection refused")
"""What gloo says when a process that it talks to is gone."""
_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others: the first one scores held-out clips while they do."""


@dataclass(frozen=True)
class Peers:
    """The processes that share a batch, and which of them this is. One alone needs no process group."""

    rank: int = 0
    size: int = 1
    counts: tuple[int, ...] = ()
    """Rows of the batch that each of them has; see `with_rows`."""

    @property
    def is_first(self) -> bool:
        """The one that prints, scores and writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` rows; the parts follow each other and differ by one row at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def with_rows(self, count: int) -> Peers:
        """The same processes, knowing how many rows of a batch each of them has."""
        return replace(self, counts=tuple(self.objects(count)))

    @property
    def rows(self) -> slice:
        """Where the rows of this process stand in the batch."""
        if self.size == 1:
            return slice(None)
        first = sum(self.counts[: self.rank])
        return slice(first, first + self.counts[self.rank])

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is up in one of the processes."""
        return flag if self.size == 1 else bool(self.total(torch.tensor(float(flag), device=device)))

    def objects(self, value: T) -> list[T]:
        """What every process gives, in the order of their ranks."""
        if self.size == 1:
            return [value]
        out: list[Any] = [None] * self.size
        dist.all_gather_object(out, value)
        return out

    def first_says(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all; the others wait."""
        box = [make() if self.is_first else None]
        if self.size > 1:
            dist.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes below each other, in the order of their ranks, with gradient.

        Args:
            rows: [n, ...], n as `counts` says.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, with gradient."""
        if self.size == 1:
            return values
        summed: Tensor = _Total.apply(values)
        return summed

    def mean(self, values: Tensor) -> Tensor | None:
        """The mean of the `values` of all processes together; None if nobody has any.

        What one process gets is its part of it, times their number, so that the mean over the processes is that mean.
        """
        if self.size == 1:
            return values.mean() if values.numel() else None
        count = self.total(torch.tensor(values.numel(), device=values.device))
        return values.sum() * (self.size / count) if count else None


ALONE = Peers()


class _Gather(torch.autograd.Function):
    """Rows of unequal number travel padded: the collectives want tensors of one shape."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, peers: Peers) -> Tensor:
        ctx.mine = peers.rows
        most = max(peers.counts)
        padded = F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, most - len(rows))).contiguous()
        parts = [torch.empty_like(padded) for _ in peers.counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, peers.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[ctx.mine], None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by the statistics of all processes together; torch's own one runs on accelerators only."""

    peers: Peers = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """As torch's; in training mode every process must take part."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = (0, *range(2, values.dim()))
        count = self.peers.total(torch.tensor(values.numel() / values.shape[1]))
        mean = self.peers.total(values.sum(others)) / count
        along = (-1, *(1 for _ in others[1:]))
        centred = values - mean.view(along)
        variance = self.peers.total(centred.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return (centred * scale.view(along)).to(input.dtype)
        return (centred * (self.weight * scale).view(along) + self.bias.view(along)).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None, "trunks keep running statistics"
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


class SharedBatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    """Of vectors [n, C]."""


class SharedBatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    """Of maps [n, C, H, W]."""


_SHARED: dict[type[nn.Module], type[_SharedBatchNorm]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
}


def share_statistics(module: nn.Module, peers: Peers, device: torch.device) -> nn.Module:
    """The module with batch statistics taken over all processes; parameters and their names stay."""
    if device.type == "cuda":
        shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return shared
    for part in module.modules():
        if type(part) in _SHARED:
            part.__class__ = _SHARED[type(part)]
            assert isinstance(part, _SharedBatchNorm)
            part.peers = peers
    return module


def own_gpu() -> torch.device | None:
    """The GPU that a launcher's LOCAL_RANK means; a launcher may show each process one alone. None without either.

    Raises:
        UsageError: LOCAL_RANK is no number.
    """
    local_rank = os.environ.get("LOCAL_RANK", "")
    if not local_rank or not torch.cuda.is_available():
        return None
    if not local_rank.isdecimal():
        raise UsageError(f"LOCAL_RANK is {local_rank!r}; valid: the number of a process on this machine, from 0")
    return torch.device("cuda", int(local_rank) % torch.cuda.device_count())


@contextmanager
def joined() -> Iterator[Peers]:
    """The processes that `torchrun` started with this one; alone where none of its variables are set.

    They talk through NCCL about what lies on GPUs, else through gloo.

    Raises:
        UsageError: the variables name no process, or not where the others are to be found.
        Refused: another process has ended on the way.
    """
    part = launcher_shard()
    if part.is_unsharded:
        yield ALONE
        return
    if "MASTER_ADDR" not in os.environ:
        reason = f"RANK and WORLD_SIZE say process {part} of a group, but MASTER_ADDR does not say where it meets"
        raise UsageError(reason, hint="Start it with torchrun, or unset RANK and WORLD_SIZE.")
    if gpu := own_gpu():
        torch.cuda.set_device(gpu)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield Peers(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) or _LOST.search(str(error)):
            reason = "another process of this run has ended; what it says is the reason"
            raise Refused(reason, hint="Start all of them again: the run goes on where it was saved.") from error
        raise
    finally:
        dist.destroy_process_group()
