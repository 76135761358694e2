"""`avloc eval --maps-dir DIR`: maps made by other programs, one `.npy` file per clip.

Only paths and hashes are kept: each map is read once to check it and again when it is scored, since the maps of a test
set may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import InputError, Refused
from avloc.files import check_regular_file, read_input, real_path
from avloc.npy import parse_npy
from avloc.progress import Listener, Notice, Progress

if TYPE_CHECKING:
    from avloc.engine import ClipCells

EXTERNAL = "external"
"""Name of these maps in tables and JSON."""
NEEDS_MODEL = "needs a model"
"""Why scores of other sounds are not run on them."""
_MAX_BYTES = 1 << 28
_MAX_CELLS = 1 << 25
"""A map of an 8K picture has fewer."""
_EXACT = 1 << 24
"""float32 represents all integers up to this."""
_MARGIN = 4
"""A bicubic resize overshoots: neither its result nor the range of it exceeds this multiple of the largest value."""


@dataclass(frozen=True)
class _MapFile(Mapping[str, NDArray[np.float32]]):
    """The map of one clip under its name `external`, read on each access."""

    path: Path
    sha256: str

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name != EXTERNAL:
            raise KeyError(name)
        try:
            data = _read(self.path)
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise InputError("has other contents now")
        except InputError as error:
            reason = f"{self.path} changed while it was scored: it {error}"
            raise Refused(reason, hint="Run the command again.") from error
        return parse_map(data)

    def __iter__(self) -> Iterator[str]:
        return iter((EXTERNAL,))

    def __len__(self) -> int:
        return 1


def with_external_maps(folder: Path, clips: Sequence[ClipCells], listener: Listener) -> tuple[list[ClipCells], str]:
    """The clips with their maps `folder/ID.npy`, or with the reason why there is no valid map.

    Args:
        folder: no file outside it is read. An id with a `/` is a path below it.
        clips: with annotations; one that has a `reason` already is returned as it is.
        listener: receives progress, and a notice of files without a clip if maps are missing.

    Returns:
        The clips in the same order, and a hash of the valid maps: the SHA-256 of what `sha256sum ID.npy ...` prints in
        the folder, in the byte order of the names.
    """
    root = real_path(folder)
    found: dict[str, _MapFile] = {}
    out = []
    for number, clip in enumerate(clips, start=1):
        name = f"{clip.id}.npy"
        try:
            if not clip.reason:
                found[name] = _checked(_inside(root, name))
            out.append(replace(clip, maps=found.get(name, {})))
        except InputError as error:
            out.append(replace(clip, reason=f"{name} {error}"))
        listener(Progress(task="reading maps", done=number, total=len(clips)))
    if len(found) < len(clips):
        names = {f"{clip.id}.npy" for clip in clips}
        if spare := sorted(path.name for path in root.glob("*.npy") if path.name not in names):
            listener(Notice(f"{folder}: {len(spare)} .npy not named after a clip of the test set, such as {spare[0]}"))
    lines = sorted((os.fsencode(name), file.sha256.encode()) for name, file in found.items())
    return out, hashlib.sha256(b"".join(b"%s  %s\n" % (digest, name) for name, digest in lines)).hexdigest()


def _checked(path: Path) -> _MapFile:
    data = _read(path)
    parse_map(data)
    return _MapFile(path, hashlib.sha256(data).hexdigest())


def _inside(root: Path, name: str) -> Path:
    """The path of a file below `root`. Names come from stores and lists, so that they may be anything."""
    try:
        path = real_path(root / name)
        exists = path.exists()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"is not a file name ({error})") from error
    if not path.is_relative_to(root):
        raise InputError("is outside the folder")
    if not exists:
        raise InputError("does not exist")
    return path


def _read(path: Path) -> bytes:
    check_regular_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"is larger than {_MAX_BYTES >> 20} MiB")
    return read_input(path)


def parse_map(data: bytes) -> NDArray[np.float32]:
    """Decode a `.npy` file to a map [h, w]; one that float32 cannot represent exactly is scaled to [0, 1].

    Raises:
        InputError: not a `.npy` of real numbers [h, w], more than 2^25 values, or values that are not finite or
            too large for float32.
    """
    try:
        values = parse_npy(data)
    except ValueError as error:
        raise InputError(f"is not a readable .npy array ({error})") from error
    if values.ndim != 2 or not values.size:
        raise InputError(f"has shape {list(values.shape)}; valid: [h, w]")
    if values.size > _MAX_CELLS:
        raise InputError(f"has {values.size} values; at most {_MAX_CELLS} are read")
    if values.dtype.kind not in "biuf":
        raise InputError(f"has type {values.dtype}; valid: integers, floats or bool")
    if not np.isfinite(values).all():
        raise InputError("has a NaN or infinite value")
    with np.errstate(over="ignore"):
        cells = np.array(values, np.float32, order="C")
        if not np.isfinite(_MARGIN * cells).all():
            raise InputError("has values too large for float32")
    return cells if _equal(cells, values) else _scaled(values)


def _equal(cells: NDArray[np.float32], values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iu":  # NumPy compares large integers with floats inexactly
        return bool(values.min() >= -_EXACT and values.max() <= _EXACT)
    return bool((cells == values).all())


def _scaled(values: NDArray[Any]) -> NDArray[np.float32]:
    """Integers or floats to [0, 1] by their minimum and maximum; constant ones to zeros.

    The protocols do this with float32, in which values that differ little, such as 1e9 and 1e9 + 1, are equal.
    """
    # The difference of two integers may not fit into their type; modulo 2^64 it is exact.
    shifted = values.astype(np.uint64 if values.dtype.kind in "iu" else np.promote_types(values.dtype, np.float64))
    shifted -= shifted.flat[values.argmin()]
    return np.ascontiguousarray(shifted / (shifted.max() or 1), np.float32)
