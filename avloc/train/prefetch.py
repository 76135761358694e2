"""Copies of batches to a GPU beside its computation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from avloc.dataset import Batch
from avloc.transforms import on_device

_ON_CPU = ("sizes", "visual_present")
"""Tensors that a step needs on the CPU."""


def prefetched(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on a CUDA device, but for small tensors that a step needs on the CPU.

    The host launches a step and asks for the next batch while the GPU computes. The batch is taken from `batches` then,
    and copied on a stream of its own; the host does not wait for copies from pinned memory. So a single batch is in
    advance, and errors of the loader are raised in place of their batch.
    """
    computing = torch.cuda.current_stream(device)
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copied(tensor: Tensor) -> Tensor:
        there = on_device(tensor, device)
        there.record_stream(computing)  # its memory is not reused before the step is done
        return there

    for batch in batches:
        with torch.cuda.stream(copying):
            there = batch.mapped(copied, but=_ON_CPU)
        computing.wait_stream(copying)
        yield there
