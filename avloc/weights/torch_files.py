"""Reading PyTorch files that others made, without running what they may carry."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avloc.errors import WeightsError
from avloc.files import check_ordinary

_MAX_BYTES = 1 << 31
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
        WeightsError: it cannot be read, asks for code to be run, claims more than it holds, or does not hold a
            dictionary.
    """
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as plain weights: {reason}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def check_size(path: Path) -> None:
    """Refuse what is not an ordinary file, or too large to be held in memory.

    Raises:
        OSError: it is not an ordinary file, or absent.
        ValueError: it is larger than 2 GiB.
    """
    check_ordinary(path)
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes; at most {_MAX_BYTES} are read")


def _check_archive(path: Path) -> None:
    """PyTorch writes its archives uncompressed, each byte once; one that unpacks to more is a bomb.

    Raises:
        ValueError: it is one.
        OSError: it cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return  # the form before PyTorch 1.6
    with zipfile.ZipFile(path) as archive:
        check_entries(archive, path.stat().st_size)


def check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """The same of an open archive of `size` bytes.

    Raises:
        ValueError: it is one.
    """
    entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"its archive claims {claimed} bytes, compressed or more than once")
