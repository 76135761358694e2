"""Data-parallel training (`torchrun`): processes that share each batch.

Every process runs the same steps on its rows of each batch. Loss terms are scaled so that their mean over the processes
is the term of the whole batch; `DistributedDataParallel` averages the gradients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from avloc.errors import AvlocError, Refused, UsageError
from avloc.sharding import launcher_shard

T = TypeVar("T")
_LOST = re.compile(r"Connection (closed|reset) by|Broken pipe|Connection refused")
"""Errors of gloo when another process has ended."""
_LATE = re.compile(r"Timed out waiting (\d+)ms")
"""Error of gloo when another process hangs."""
_TIMEOUT = timedelta(minutes=10)
"""Of the collectives of a step."""
_PATIENCE = timedelta(hours=6)
"""While the first process scores held-out clips or saves."""
_FAILURE = "avloc/failure"
"""Key in the store of the process group: which process failed first, and why."""


@dataclass(frozen=True)
class Peers:
    """The processes that share a batch, and the rank of this one. A single process needs no process group."""

    rank: int = 0
    size: int = 1
    counts: tuple[int, ...] = ()
    """Rows of the batch per process; see `with_rows`."""
    patient: dist.ProcessGroup | None = None
    """Gloo group in which the others wait for the first process for hours; None for the default group."""

    @property
    def is_first(self) -> bool:
        """Whether this process prints, scores and writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's share of `count` rows; shares are contiguous and differ by one row at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def with_rows(self, count: int) -> Peers:
        """The same processes with `counts` set; `count` is the number of rows of this process."""
        return replace(self, counts=tuple(self.objects(count)))

    @property
    def rows(self) -> slice:
        """The rows of this process within the batch."""
        if self.size == 1:
            return slice(None)
        first = sum(self.counts[: self.rank])
        return slice(first, first + self.counts[self.rank])

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set in any process: one message, in which an ended process is noticed, too."""
        return (self.total(torch.tensor(flags, dtype=torch.float32)) > 0).tolist()  # on the CPU, as in `mean`

    def objects(self, value: T, *, patient: bool = False) -> list[T]:
        """The `value` of every process, by rank; `patient` waits for hours."""
        if self.size == 1:
            return [value]
        out: list[Any] = [None] * self.size
        dist.all_gather_object(out, value, group=self.patient if patient else None)
        return out

    def from_first(self, make: Callable[[], T]) -> T:
        """The result of `make`, called in the first process only and sent to the others, which wait for hours."""
        box = [make() if self.is_first else None]
        if self.size > 1:
            dist.broadcast_object_list(box, group=self.patient)
        return box[0]  # type: ignore[return-value]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of all processes, n = `counts[rank]`, concatenated by rank, with gradient."""
        # A sum of zero-padded rows: works for uneven counts and on every backend.
        before, after = sum(self.counts[: self.rank]), sum(self.counts[self.rank + 1 :])
        return self.total(F.pad(rows, (0, 0) * (rows.dim() - 1) + (before, after)))

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, with gradient."""
        if self.size == 1:
            return values
        summed: Tensor = _AllReduce.apply(values)
        return summed

    def mean(self, values: Tensor, count: int | None = None) -> Tensor | None:
        """The mean over the `values` of all processes; None if there are none.

        Each process gets its own summands times the number of processes; the mean over processes is the true mean.
        `count`: how many of this process's values count, if it is not all of them; the others must be 0.
        """
        count = values.numel() if count is None else count
        everywhere = int(self.total(torch.tensor(count)))  # on the CPU, so that nobody waits for a GPU
        return values.sum() * self.size / everywhere if everywhere else None


ALONE = Peers()


class _AllReduce(torch.autograd.Function):
    """Sum over the processes with gradient; `torch.distributed.nn.functional` is deprecated."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return _AllReduce.forward(_ctx, grads[0])


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all processes.

    `nn.SyncBatchNorm` runs on accelerators only, and there the host waits for the device in every layer.
    """

    peers: Peers = ALONE

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [n, C] or [n, C, H, W]; in training mode every process must call it."""
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        assert self.running_mean is not None, "backbones have running statistics"
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        others = (0, *range(2, values.dim()))
        # The count is on the device, in one message with the sums, so that the host does not wait for it.
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = self.peers.total(torch.cat([values.sum(others), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        along = (-1, *(1 for _ in others[1:]))
        centred = values - mean.view(along)
        variance = self.peers.total(centred.square().sum(others)) / count
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return (centred * scale.view(along)).to(input.dtype)
        return (centred * (self.weight * scale).view(along) + self.bias.view(along)).to(input.dtype)


def share_statistics(module: nn.Module, peers: Peers) -> nn.Module:
    """Make batch normalisations use the statistics of all processes; parameters and their names stay the same."""
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d):
            part.__class__ = SharedBatchNorm
            assert isinstance(part, SharedBatchNorm)
            part.peers = peers
    return module


def share_gradients(module: nn.Module) -> nn.Module:
    """The module with gradients that are means over the processes."""
    return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)


def own_gpu() -> torch.device | None:
    """The GPU for LOCAL_RANK; None without LOCAL_RANK or GPU. A launcher may make a single GPU visible per process.

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
    """Join the process group that `torchrun` started; `ALONE` where none of its variables are set.

    Tensors on GPUs go through NCCL, others through gloo. An exception is to end the process: that closes its
    connections, so that the others fail in their next message and find the reason in the store of the group.

    Raises:
        UsageError: RANK and WORLD_SIZE are invalid, or MASTER_ADDR is missing.
        Refused: another process failed, ended or hangs; names it and its reason if it left one.
    """
    part = launcher_shard()
    if part.is_unsharded:
        yield ALONE
        return
    if "MASTER_ADDR" not in os.environ:
        reason = f"RANK and WORLD_SIZE make this process {part} of a group, but MASTER_ADDR is not set"
        raise UsageError(reason, hint="Start it with torchrun, or unset RANK and WORLD_SIZE.")
    if gpu := own_gpu():
        torch.cuda.set_device(gpu)
    store, rank, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT, store=store, rank=rank, world_size=size)
    patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(patient, dist.ProcessGroup), "this process is a member"
    try:
        yield Peers(rank, size, patient=patient)
    except Exception as error:
        reason = _failure_of_another(error, store)
        if not reason:
            known = str(error) if isinstance(error, AvlocError) else f"{type(error).__name__}: {error}"
            with suppress(dist.DistError):
                store.compare_set(_FAILURE, "", f"process {rank} of {size} failed: {known}")
        # Not `destroy_process_group`, which waits for collectives that the others may never enter.
        if (everyone := dist.group.WORLD) is not None:
            everyone.abort()  # collectives on a GPU; gloo's end with the process
        if reason:
            hint = "Start all processes again: the run resumes from its last save."
            raise Refused(reason, hint=hint) from error
        raise
    dist.destroy_process_group()


def _failure_of_another(error: Exception, store: Any) -> str:
    """What happened to another process, if that caused the error; else ''."""
    if isinstance(error, AvlocError) or not isinstance(error, RuntimeError):
        return ""
    late = _LATE.search(str(error))
    if not (late or isinstance(error, dist.DistError) or _LOST.search(str(error))):
        return ""
    with suppress(dist.DistError):  # the store has ended with its process
        if store.check([_FAILURE]):
            return str(store.get(_FAILURE), "utf-8")
    if late:
        return f"another process of this run has not answered for {int(late[1]) / 60_000:g} minutes"
    return "another process of this run has ended; its own error message has the reason"
