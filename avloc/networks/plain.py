"""Reading PyTorch files that others made, without running what they may carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avloc.errors import WeightsError

_KINDS = ("f8", "f4", "f2", "i8", "i4", "u1", "b1")


class _Kind:
    """Stands where a file says `numpy.dtype`: NumPy's own takes any state and brings the process down with some."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in _KINDS:
            raise ValueError(f"numbers of the kind {name!r} are not read")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise ValueError(f"numbers of the byte order {state[1]!r} are not read")


def _number(kind: _Kind, data: bytes) -> float:
    """Stands for NumPy's rebuilder of scalars: published checkpoints keep their best score as one."""
    (value,) = np.frombuffer(data, kind.name)
    number: float = value.item()
    return number


_NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_Kind, "numpy.dtype"),
]


def load_plain(path: Path) -> dict[str, Any]:
    """A `.pth` file as plain data: tensors, numbers, texts and containers of them, on the CPU.

    Raises:
        WeightsError: it cannot be read, asks for code to be run, or does not hold a dictionary.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as plain weights: {reason}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content
