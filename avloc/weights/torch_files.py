"""Reading PyTorch files from untrusted sources as plain data, without running code."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avloc.errors import WeightsError
from avloc.files import check_regular_file

_MAX_BYTES = 1 << 31
_KINDS = ("f8", "f4", "f2", "i8", "i4", "u1", "b1")


class _Kind:
    """Replaces `numpy.dtype`, whose `__setstate__` accepts any state and crashes the process with some."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in _KINDS:
            raise ValueError(f"NumPy type {name!r} is not supported")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise ValueError(f"byte order {state[1]!r} is not supported")


def _number(kind: _Kind, data: bytes) -> float:
    """Replaces NumPy's constructor of scalars: published checkpoints store their best score as one."""
    (value,) = np.frombuffer(data, kind.name)
    number: float = value.item()
    return number


_NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_Kind, "numpy.dtype"),
]


def load_plain(path: Path) -> dict[str, Any]:
    """Load a `.pth` file as plain data: tensors, numbers, strings and containers of them, on the CPU.

    Raises:
        WeightsError: the file is unreadable, would run code, declares more data than it has, or holds no dictionary.
    """
    with reading(path, "plain weights"):
        if zipfile.is_zipfile(path):  # files from before PyTorch 1.6 are not archives
            with zipfile.ZipFile(path) as archive:
                check_entries(archive, path.stat().st_size)
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Convert any error to a WeightsError: a damaged file can raise nearly every kind."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path} cannot be read as {kind}: {reason}") from error


def check_size(path: Path) -> None:
    """Raise an error unless the file is a regular one of at most 2 GiB: it is held in memory."""
    check_regular_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes; at most {_MAX_BYTES} are read")


def check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError if an archive of `size` bytes unpacks to more; PyTorch stores entries uncompressed and once."""
    entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    if claimed > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(f"its archive claims {claimed} bytes, compressed or more than once")
