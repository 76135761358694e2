"""A GPU without hardware, to find what a training step copies to it and where it would wait for it.

Tensors on the CPU are real. Those on the GPU are FakeTensors: they have a shape, a type and a device, but no values, so
an operation that needs values on the host raises an error, and so does one that mixes devices. Forward only, because
autograd's backward half needs a driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avloc import transforms

_INDEXED_ASSIGNMENTS = ("aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


@dataclass
class Copies:
    """Shapes of the tensors that were copied between CPU and GPU, in order."""

    blocking: list[tuple[int, ...]] = field(default_factory=list)
    """The host waits for these."""
    pageable: list[tuple[int, ...]] = field(default_factory=list)
    """Not blocking, but staged: the host waits while they are copied within its own memory."""
    pinned: list[tuple[int, ...]] = field(default_factory=list)
    """The host does not wait for these."""
    operators: set[str] = field(default_factory=set)
    """Operators that ran on the GPU."""
    doubles: list[str] = field(default_factory=list)
    """Operators that put float64 on the GPU, which mps cannot hold."""

    def clear(self) -> None:
        for shapes in (self.blocking, self.pageable, self.pinned):
            shapes.clear()


class _Recorder(TorchDispatchMode):
    def __init__(self, copies: Copies, pinned: set[int], *, zeros: bool) -> None:
        super().__init__()
        self._copies, self._pinned, self._zeros = copies, pinned, zeros

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: C901
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func is not torch.ops.prim.device.default:
            with self:  # operations that are made of others arrive whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = kwargs.get("device")
        if not any(tensor.is_cuda for tensor in given) and (device is None or torch.device(device).type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self._zeros and func.name() == "aten::_local_scalar_dense":
            return 0.0 if given[0].is_floating_point() else 0
        is_copy = func.name() in ("aten::_to_copy", "aten::copy_")
        out = func(*args, **kwargs)
        if func.name() in _INDEXED_ASSIGNMENTS and any(index.dtype == torch.bool for index in tree_leaves(args[1])):
            raise AssertionError("assignment by a mask waits for its number of elements")
        if is_copy and len({tensor.device.type for tensor in (*given, out)}) > 1:
            self._record(given[-1], non_blocking=kwargs.get("non_blocking", len(args) > 2 and args[2]))
        elif not is_copy:  # indices on the CPU, for instance; 0-dimensional tensors are passed to kernels by value
            for tensor in given:
                if not tensor.is_cuda and tensor.dim():
                    self._record(tensor, non_blocking=False)
        if func.namespace == "aten":
            self._copies.operators.add(func.name())
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if any(each.is_cuda and each.dtype in (torch.float64, torch.complex128) for each in results):
            self._copies.doubles.append(func.name())
        if self._zeros and is_copy and not out.is_cuda:
            with unset_fake_temporarily():
                return torch.zeros(out.shape, dtype=out.dtype)
        return out

    def _record(self, source: Tensor, *, non_blocking: bool) -> None:
        on_cpu_and_pageable = not source.is_cuda and source.untyped_storage().data_ptr() not in self._pinned
        kind = self._copies.blocking if not non_blocking else self._copies.pinned
        (self._copies.pageable if non_blocking and on_cpu_and_pageable else kind).append(tuple(source.shape))


@contextmanager
def fake_gpu(*, zeros: bool = False) -> Iterator[Copies]:
    """Context in which the device `cuda` can be computed on; yields the copies so far, which may be cleared.

    With `zeros`, values that the host reads back are 0, where they would raise an error otherwise.
    """
    copies, pinned, kept = Copies(), set(), []

    def pin_memory(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() in pinned:
            return tensor
        kept.append(tensor.clone())
        pinned.add(kept[-1].untyped_storage().data_ptr())
        return kept[-1]

    with (
        patch.object(torch.Tensor, "pin_memory", pin_memory),
        patch.object(transforms, "_computed", cache(transforms._computed)),
        patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        patch.object(torch.cuda, "is_bf16_supported", lambda: True),
        FakeTensorMode(allow_non_fake_inputs=True),
        _Recorder(copies, pinned, zeros=zeros),
    ):
        yield copies


def on_gpu(module: nn.Module) -> None:
    """Move a module to the fake GPU; `Module.to` cannot, because the tensors change their class."""
    for part in module.modules():
        for name, weight in [*part._parameters.items()]:
            if weight is not None:
                setattr(part, name, nn.Parameter(weight.detach().to("cuda"), requires_grad=weight.requires_grad))
        for name, values in [*part._buffers.items()]:
            if values is not None:
                setattr(part, name, values.to("cuda"))
