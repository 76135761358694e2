"""One HDF5 shard, read without HDF5 once its data sets are found.

Finding a data set by HDF5 takes longer than reading a clip, and an HDF5 file takes megabytes while it is open and does
not survive a fork. So the offsets of all values are read once, and the values by `os.preadv`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import RECREATE
from avloc.hdf5 import local_data_set

ROWS, EDGES, ANY = "rows", "edges", "any"
"""Lengths of an axis: number of clips; that plus one; any."""


@dataclass(frozen=True)
class Column:
    """Expected type (NumPy type string without byte order) and shape of a data set in a shard."""

    kind: str
    shape: tuple[str | int, ...] = (ROWS,)


def ragged_columns(name: str, kind: str, *shape: int) -> dict[str, Column]:
    """The two data sets of a column of varying length: concatenated values, and offsets."""
    return {name: Column(kind, (ANY, *shape)), f"{name}_offset": Column("i8", (EDGES,))}


IDS: Mapping[str, Column] = ragged_columns("id", "u1")
"""Texts are ragged columns of UTF-8 bytes."""


_ERRORS = (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError)
"""Exceptions of h5py for damaged files."""
P = ParamSpec("P")
T = TypeVar("T")


def _refusing(read: Callable[Concatenate[Shard, P], T]) -> Callable[Concatenate[Shard, P], T]:
    """Convert the various exceptions of h5py to Refused."""

    @wraps(read)
    def refusing(shard: Shard, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(shard, *args, **kwargs)
        except _ERRORS as error:
            raise Refused(f"shard {shard.path} cannot be read: {error}", hint=RECREATE) from error

    return cast("Callable[Concatenate[Shard, P], T]", refusing)


@dataclass(frozen=True, slots=True)
class _Extent:
    """Type, shape and place of a data set; a large store has some 80 000 in memory."""

    kind: np.dtype[Any]
    shape: tuple[int, ...]
    starts: NDArray[np.unsignedinteger[Any]]
    """Position of its first byte in the file; if every row is a chunk, of each row."""
    row_bytes: int


class Shard:
    """A shard. Files are untrusted: every data set is validated, once, against `columns` and the file's size.

    It may be used after a fork and after `close`; a read opens the file if necessary.

    Args:
        path: the file.
        columns: the data sets that can be read.

    Raises:
        Refused: the file cannot be read; from every method.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column] = IDS) -> None:
        self.path = path
        self._columns = columns
        self._descriptor = -1
        self._state: tuple[int, ...] = ()
        self._extents: dict[str, _Extent | str] = {}
        self._offsets: dict[str, NDArray[np.unsignedinteger[Any]]] = {}

    def _opened(self) -> int:
        """Descriptor of the file. Raises ValueError if it is not the file whose data sets were found."""
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            found = os.fstat(self._descriptor)
            state = found.st_size, found.st_ino, found.st_mtime_ns
            if self._state not in ((), state):
                self.close()
                raise ValueError("it has been replaced since it was first read")
            self._state = state
        return self._descriptor

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = close

    def _found(self) -> dict[str, _Extent | str]:
        """The data sets of the file: where they are, or why they cannot be read."""
        if not self._extents:
            self._opened()
            with h5py.File(self.path, "r", locking=False) as file:
                edges = local_data_set(file, "id_offset")
                rows = len(edges) - 1 if edges.ndim else 0
                self._extents = {
                    name: self._extent_or_reason(file, name, column, rows)
                    for name, column in self._columns.items()
                    if file.get(name, getlink=True) is not None
                }
        return self._extents

    def _extent_or_reason(self, file: Any, name: str, column: Column, rows: int) -> _Extent | str:
        size = self._state[0]
        try:
            values = local_data_set(file, name)
            _check(name, values, column, rows)
            if values.nbytes > size:
                raise ValueError(f"{name} claims {values.nbytes} bytes of a file of {size}")
            starts = _starts(name, values)
            if file.userblock_size or max(starts) + values.nbytes // len(starts) > size:
                raise ValueError(f"{name} has values outside of the file")
            row_bytes = values.dtype.itemsize * math.prod(values.shape[1:])
            return _Extent(values.dtype, values.shape, _compact(np.array(starts, np.int64)), row_bytes)
        except _ERRORS as error:
            return str(error)

    def _extent(self, name: str) -> _Extent:
        extent = self._found().get(name, f"{name} is missing")
        if isinstance(extent, str):
            raise ValueError(extent)
        return extent

    @_refusing
    def numbers(self, name: str, where: int | slice = slice(None)) -> Any:
        """Values of a column: of one row, of a slice, or all."""
        extent = self._extent(name)
        rows = where if isinstance(where, slice) else slice(where, where + 1)
        start, stop, _ = rows.indices(extent.shape[0])
        values = np.empty((stop - start, *extent.shape[1:]), extent.kind)
        if len(extent.starts) == extent.shape[0]:
            for row, position in enumerate(extent.starts[start:stop].tolist()):
                self._fill(values[row : row + 1], position)
        else:
            self._fill(values, int(extent.starts[0]) + start * extent.row_bytes)
        return values if isinstance(where, slice) else values[0]

    def _fill(self, values: NDArray[Any], position: int) -> None:
        """Read `values` from a position in the file."""
        if not values.nbytes:
            return
        left = values.data.cast("B")
        while left and (count := self._read(left, position)):  # file systems may give less than was asked for
            left, position = left[count:], position + count
        if left:
            raise ValueError(f"it ends {len(left)} bytes early")

    def _read(self, target: memoryview, position: int) -> int:
        if sys.platform == "win32":
            os.lseek(self._opened(), position, os.SEEK_SET)
            data = os.read(self._opened(), len(target))
            target[: len(data)] = data
            return len(data)
        return os.preadv(self._opened(), [target], position)

    @_refusing
    def text(self, name: str, row: int) -> str:
        """Text of one row."""
        self._extent(f"{name}_offset")  # unlike other ragged columns, texts are required
        return self.ragged(name, row).tobytes().decode()

    @_refusing
    def texts(self, name: str) -> list[str]:
        """Texts of all rows."""
        self._extent(f"{name}_offset")
        data, edges = self.numbers(name).tobytes(), self.offsets(name).tolist()
        return [data[start:stop].decode() for start, stop in pairwise(edges)]

    def ragged(self, name: str, row: int) -> NDArray[Any]:
        """Values of one row of a ragged column; empty if the shard lacks the column."""
        offsets = self.offsets(name)
        if not len(offsets):
            return np.zeros(0, np.uint8)
        start, stop = offsets[row : row + 2].tolist()
        values: NDArray[Any] = self.numbers(name, slice(start, stop))
        return values

    @_refusing
    def offsets(self, name: str) -> NDArray[np.unsignedinteger[Any]]:
        """Offsets [rows + 1] of a ragged column; empty if the shard lacks the column."""
        if name not in self._offsets:
            edges = f"{name}_offset"
            offsets = self.numbers(edges) if edges in self._found() else np.zeros(0, np.int64)
            steps = np.diff(offsets, prepend=0)
            if len(offsets) and ((steps < 0).any() or offsets[-1] > self._extent(name).shape[0]):
                raise ValueError(f"{edges} exceeds {name}")
            self._offsets[name] = _compact(offsets)
        return self._offsets[name]


def _compact(positions: NDArray[np.int64]) -> NDArray[np.unsignedinteger[Any]]:
    """The same positions in the smallest type that holds them."""
    return positions.astype(np.min_scalar_type(positions.max(initial=0)))


def _check(name: str, values: Any, column: Column, rows: int) -> None:
    """Raise ValueError if a data set does not match its column."""
    lengths = {ROWS: rows, EDGES: rows + 1}
    fits = len(values.shape) == len(column.shape) and all(
        axis == ANY or size == lengths.get(str(axis), axis)
        for size, axis in zip(values.shape, column.shape, strict=True)
    )
    if not fits or rows < 0 or values.dtype.str[1:] != column.kind:
        raise ValueError(f"{name} has shape {values.shape} and type {values.dtype}")
    if values.id.get_create_plist().get_nfilters():
        raise ValueError(f"{name} is compressed")


def _starts(name: str, values: Any) -> list[int]:
    """`_Extent.starts` of a data set. Raises ValueError if it is neither contiguous nor has one chunk per row."""
    starts: list[int | None] = [None]
    if values.chunks is None:
        starts = [values.id.get_offset() if values.nbytes else 0]
    elif values.chunks == (1, *values.shape[1:]):
        found: dict[tuple[int, ...], int] = {}
        values.id.chunk_iter(lambda chunk: found.update({chunk.chunk_offset: chunk.byte_offset}))
        starts = [found.get((row, *(0 for _ in values.shape[1:]))) for row in range(len(values))]
    known = [start for start in starts if start is not None]
    if not known or len(known) < len(starts):
        raise ValueError(f"{name} is incomplete, or neither contiguous nor in one chunk per row")
    return known
