"""Reading PyTorch files that others made, without running what they may carry."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avloc.errors import WeightsError

# Published checkpoints keep their best score as a numpy scalar. Both spellings of its rebuilder are harmless: it makes
# a number from a dtype and bytes.
_NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
    type(np.dtype(np.int64)),
]


def load_plain(path: Path) -> dict[str, Any]:
    """A `.pth` file as plain data: tensors, numbers, texts and containers of them, on the CPU.

    Raises:
        WeightsError: it cannot be read, asks for code to be run, or does not hold a dictionary.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as plain weights: {reason}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content
