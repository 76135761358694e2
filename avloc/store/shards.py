"""Numbered HDF5 shards in a folder, with one row per clip and a text column `id`.

Texts and arrays of varying length are concatenated, with a data set of offsets. HDF5's variable-length strings are not
used: their heap can make the library loop on a damaged file.

A shard is written under a temporary name, flushed and renamed, and then never changed. Files are opened lazily in the
reading process and dropped by fork and pickle, which h5py handles do not survive.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import RECREATE, write_buffer
from avloc.hdf5 import local_data_set
from avloc.sharding import JobShard

_MAX_OPEN = 256
"""Limit on open shards: processes may open about a thousand files, and large stores have more shards."""
ROWS, EDGES, ANY = "rows", "edges", "any"
"""Lengths of an axis: number of clips; that plus one; any."""


@dataclass(frozen=True)
class Column:
    """Expected type (NumPy type string without byte order) and shape of a data set in a shard."""

    kind: str
    shape: tuple[str | int, ...] = (ROWS,)


Row = TypeVar("Row")


def ragged_columns(name: str, kind: str, *shape: int) -> dict[str, Column]:
    """The two data sets of a column of varying length: concatenated values, and offsets."""
    return {name: Column(kind, (ANY, *shape)), f"{name}_offset": Column("i8", (EDGES,))}


IDS: Mapping[str, Column] = ragged_columns("id", "u1")
"""Texts are ragged columns of UTF-8 bytes."""


class Shard:
    """An open shard. Files are untrusted: every data set is validated, once, against `columns` and the file's size.

    Args:
        path: the file.
        columns: the data sets that can be read.

    Raises:
        Refused: it cannot be read; also from every method.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column] = IDS) -> None:
        self.path = path
        self._columns = columns
        self._found: dict[str, Any] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        with self._errors_refused():
            self._bytes = path.stat().st_size
            # No chunk cache: a chunk is one clip, and the default is 8 MB per open shard.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0)

    @contextmanager
    def _errors_refused(self) -> Iterator[None]:
        """Convert the various exceptions of h5py to Refused."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
            raise Refused(f"shard {self.path} cannot be read: {error}", hint=RECREATE) from error

    def _data_set(self, name: str) -> Any:
        if name not in self._found:
            with self._errors_refused():
                self._found[name] = self._checked(name)
        return self._found[name]

    def _checked(self, name: str) -> Any:
        """The data set. Raises ValueError if it does not match its column or exceeds the file."""
        values, column = local_data_set(self._file, name), self._columns[name]
        edges = values if name == "id_offset" else self._data_set("id_offset")
        rows = len(edges) - 1 if edges.ndim else 0
        lengths = {ROWS: rows, EDGES: rows + 1}
        fits = len(values.shape) == len(column.shape) and all(
            axis == ANY or size == lengths.get(str(axis), axis)
            for size, axis in zip(values.shape, column.shape, strict=True)
        )
        if not fits or rows < 0 or values.dtype.str[1:] != column.kind:
            raise ValueError(f"{name} has shape {values.shape} and type {values.dtype}")
        if values.id.get_create_plist().get_nfilters():
            raise ValueError(f"{name} is compressed")
        if values.nbytes > self._bytes:
            raise ValueError(f"{name} claims {values.nbytes} bytes of a file of {self._bytes}")
        return values

    def numbers(self, name: str, where: int | slice = slice(None)) -> Any:
        """Values of a column: of one row, of a slice, or all."""
        values = self._data_set(name)
        with self._errors_refused():
            return values[where]

    def text(self, name: str, row: int) -> str:
        """Text of one row."""
        self._data_set(f"{name}_offset")  # unlike other ragged columns, texts are required
        with self._errors_refused():
            return self.ragged(name, row).tobytes().decode()

    def texts(self, name: str) -> list[str]:
        """Texts of all rows."""
        self._data_set(f"{name}_offset")
        data, edges = self.numbers(name).tobytes(), self.offsets(name).tolist()
        with self._errors_refused():
            return [data[start:stop].decode() for start, stop in pairwise(edges)]

    def ragged(self, name: str, row: int) -> NDArray[Any]:
        """Values of one row of a ragged column; empty if the shard lacks the column."""
        offsets = self.offsets(name)
        if not len(offsets):
            return np.zeros(0, np.uint8)
        start, stop = offsets[row : row + 2]
        values: NDArray[Any] = self.numbers(name, slice(start, stop))
        return values

    def offsets(self, name: str) -> NDArray[np.int64]:
        """Offsets [rows + 1] of a ragged column; empty if the shard lacks the column."""
        if name not in self._offsets:
            edges = f"{name}_offset"
            with self._errors_refused():
                exists = edges in self._file
            offsets = self.numbers(edges) if exists else np.zeros(0, np.int64)
            steps = np.diff(offsets, prepend=0)
            if len(offsets) and ((steps < 0).any() or offsets[-1] > len(self._data_set(name))):
                raise Refused(f"shard {self.path} cannot be read: {edges} exceeds {name}", hint=RECREATE)
            self._offsets[name] = offsets
        return self._offsets[name]

    def close(self) -> None:
        """Close the file."""
        self._found = {}
        self._file.close()


class ShardFolder:
    """Index of the ids in a folder of shards; opens shards on demand.

    Args:
        folder: contains `shard-00000.h5` and so on, or no shards.
        columns: the data sets of a shard.

    Raises:
        Refused: a shard cannot be read, or two contain the same id.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Column] = IDS) -> None:
        self._columns = columns
        self._open: dict[Path, Shard] = {}
        self._pid = os.getpid()
        self._where: dict[str, tuple[Path, int]] = {}
        for path in shard_paths(folder):
            for row, clip_id in enumerate(self.shard(path).texts("id")):
                if clip_id in self._where:
                    raise Refused(f"{path} and {self._where[clip_id][0]} both contain clip {clip_id!r}")
                self._where[clip_id] = (path, row)
        for shard in self._open.values():
            shard.close()
        self._open = {}

    @property
    def ids(self) -> list[str]:
        """All ids, sorted, so that the order does not depend on the shards."""
        return sorted(self._where)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def locate(self, clip_id: str) -> tuple[Shard, int]:
        """Open shard and row of an id."""
        path, row = self._where[clip_id]
        return self.shard(path), row

    def place(self, clip_id: str) -> tuple[Path, int]:
        """Path of the shard and row of an id; sort by it to read each shard once, in order."""
        return self._where[clip_id]

    def shard(self, path: Path) -> Shard:
        """The shard at `path`, opened in this process; may close the least recently used one."""
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        shard = self._open.pop(path, None) or Shard(path, self._columns)
        if len(self._open) >= _MAX_OPEN:
            self._open.pop(next(iter(self._open))).close()
        self._open[path] = shard
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def shard_paths(folder: Path) -> list[Path]:
    """Complete shards in `folder`, sorted by name."""
    return sorted(folder.glob("shard-*.h5"))


class ShardWriter(ABC, Generic[Row]):
    """Buffers rows and writes them to new shards; a context manager, to be used under the folder's lock.

    Leaving the context, even by an interrupt, writes the buffered rows. After an interrupt each row is either in a
    shard or in the buffer. Files are numbered per shard of the job: `shard-00000.h5` if unsharded, else
    `shard-2-of-4-00000.h5`.

    Args:
        folder: the shards; created if absent.
        shard_clips: rows per full shard.
        shard: the shard locked by this process; enter the context under `lock_shared_files`.
    """

    def __init__(self, folder: Path, shard_clips: int, shard: JobShard) -> None:
        self.folder = folder
        self.shard_clips = shard_clips
        self.shard = shard
        self._buffer: list[Row] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_header()
        return self

    def __exit__(self, *_error: object) -> None:
        self.flush()

    @abstractmethod
    def write_header(self) -> None:
        """Write the JSON file that describes the shards."""

    @abstractmethod
    def fill(self, file: Any, rows: list[Row]) -> None:
        """Write rows to an open HDF5 file."""

    def append(self, row: Row) -> None:
        """Buffer a row; a full buffer is written as a shard."""
        self._buffer.append(row)
        if len(self._buffer) >= self.shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows, if any, to a new shard."""
        if not self._buffer:
            return
        names = [path.stem.rpartition("-") for path in shard_paths(self.folder)]
        stem = f"shard{self.shard.suffix}"
        last = max((int(number) for start, _, number in names if start == stem), default=-1)
        path = self.folder / f"{stem}-{last + 1:05d}.h5"
        taken = self._buffer.copy()
        self._buffer.clear()
        try:
            write_shard(path, lambda file: self.fill(file, taken))
        except BaseException:
            if not path.exists():  # an interrupt may come after the rename
                self._buffer[:0] = taken
            raise


def put_ragged(file: Any, name: str, rows: list[NDArray[Any]]) -> None:
    """Write a column of varying length: concatenated arrays, and offsets."""
    file[name] = np.concatenate(rows)
    file[f"{name}_offset"] = np.cumsum([0, *map(len, rows)]).astype("i8")


def put_texts(file: Any, name: str, texts: list[str]) -> None:
    """Write one text per clip."""
    put_ragged(file, name, [np.frombuffer(text.encode(), np.uint8) for text in texts])


def write_shard(path: Path, fill: Callable[[Any], None]) -> None:
    """Write a shard atomically; `fill` writes to the open HDF5 file."""
    # Built in memory: on a full disk HDF5 cannot close its file and crashes the process at exit.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        fill(file)
    write_buffer(path, image)
