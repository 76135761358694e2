"""`torch.compile` of parts of a network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from avloc.errors import Refused

_BACKEND = "inductor"
"""It generates C++ for CPUs and Triton for GPUs, and needs their compilers."""


def compile_forward(modules: Iterable[nn.Module], device: torch.device) -> None:
    """Let modules run compiled, with compiled gradients, on a device; they and their state dicts stay the same.

    Each is compiled when it is first called. Random layers draw other numbers than without.

    Raises:
        Refused: the compiler does not work on this machine.
    """
    try:
        torch.compile(torch.cos, backend=_BACKEND)(torch.zeros(8, device=device))
    except RuntimeError as error:
        first = " ".join(str(error).partition("\n\n")[0].split())
        reason = f"compile = true: torch.compile does not work for {device.type} here: {first}"
        hint = "Install a C++ compiler (g++ or clang), for a GPU also triton, or leave out --set compile=true."
        raise Refused(reason, hint=hint) from error
    for module in modules:
        module.compile(backend=_BACKEND, dynamic=False)  # steps have one shape, and dynamic ones fail in PyTorch 2.14
