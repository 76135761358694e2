"""Numbered HDF5 shards in one folder, each with the texts `id`.

Texts are bytes end to end, with a data set of where each begins: HDF5's own strings lie in a heap, which a damaged file
can make it search without end.

A shard is written under a temporary name, flushed and renamed, and never changed afterwards. Handles are opened lazily
in the process that reads and never cross a fork or a pickle (h5py handles survive neither).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import write_image
from avloc.hdf5 import own_data_set
from avloc.sharding import WHOLE, Part

_OPEN_AT_MOST = 256
"""Shards that one process holds open: systems allow a process a thousand files or so, large stores have more."""


_ANEW = "Delete it and run the command that made it again."
ROWS, EDGES, ANY = "rows", "edges", "any"
"""Lengths of an axis: one entry a clip; one more than that; whatever it is."""


@dataclass(frozen=True)
class Column:
    """What a data set of a shard has to be."""

    kind: str
    """NumPy's name of the type."""
    shape: tuple[str | int, ...] = (ROWS,)


Row = TypeVar("Row")


def ragged_columns(name: str, kind: str, *shape: int) -> dict[str, Column]:
    """The data sets of something of which clips have unequal amounts: the values, and where each clip's begin."""
    return {name: Column(kind, (ANY, *shape)), f"{name}_offset": Column("i8", (EDGES,))}


IDS: Mapping[str, Column] = ragged_columns("id", "u1")
"""A text is a ragged column of bytes, UTF-8."""


class Shard:
    """One open shard. A data set is looked up once: in small reads the look-up takes longer than the reading.

    Nothing is taken from it that is not what `columns` say, and nothing that lies outside of the file.

    Args:
        path: the file.
        columns: its data sets; those that are not named here cannot be read.

    Raises:
        Refused: it cannot be read; also from every method.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column] = IDS) -> None:
        self.path = path
        self._columns = columns
        self._found: dict[str, Any] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        with self._legible():
            self._bytes = path.stat().st_size
            # Without a chunk cache: a chunk is one clip, and the default of 8 MB would be held for every open shard.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=0)

    @contextmanager
    def _legible(self) -> Iterator[None]:
        """HDF5's errors in our words, whichever of Python's kinds they are."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError) as error:
            raise Refused(f"shard {self.path} cannot be read: {error}", hint=_ANEW) from error

    def _data_set(self, name: str) -> Any:
        if name not in self._found:
            with self._legible():
                self._found[name] = self._checked(name)
        return self._found[name]

    def _checked(self, name: str) -> Any:
        """The data set, if it is what it has to be and its values lie in this file.

        Raises:
            ValueError: it is not.
        """
        values, column = own_data_set(self._file, name), self._columns[name]
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
        """Values of a data set: of one clip, or of all."""
        values = self._data_set(name)
        with self._legible():
            return values[where]

    def text(self, name: str, row: int) -> str:
        """A text of one clip."""
        start, stop = self._text_edges(name)[row : row + 2]
        with self._legible():
            text: str = self.numbers(name, slice(start, stop)).tobytes().decode()
            return text

    def texts(self, name: str) -> list[str]:
        """The texts of all clips."""
        data, edges = self.numbers(name).tobytes(), self._text_edges(name).tolist()
        with self._legible():
            return [data[start:stop].decode() for start, stop in pairwise(edges)]

    def _text_edges(self, name: str) -> NDArray[np.int64]:
        edges = self.offsets(name)
        if not len(edges):
            raise Refused(f"shard {self.path} cannot be read: {name}_offset is not there", hint=_ANEW)
        return edges

    def ragged(self, name: str, row: int) -> NDArray[Any]:
        """What one clip has of `name`, of which clips have unequal amounts; nothing if no clip of the shard has any.

        Source: `name` holds the values of all clips, `name_offset` where each clip's begin, and the end.
        """
        offsets = self.offsets(name)
        if not len(offsets):
            return np.zeros(0, np.uint8)
        start, stop = offsets[row : row + 2]
        values: NDArray[Any] = self.numbers(name, slice(start, stop))
        return values

    def offsets(self, name: str) -> NDArray[np.int64]:
        """Where each clip's values of `name` begin, and the end; nothing if no clip of the shard has any."""
        if name not in self._offsets:
            edges = f"{name}_offset"
            with self._legible():
                there = edges in self._file
            offsets = self.numbers(edges) if there else np.zeros(0, np.int64)
            steps = np.diff(offsets, prepend=0)
            if len(offsets) and ((steps < 0).any() or offsets[-1] > len(self._data_set(name))):
                raise Refused(f"shard {self.path} cannot be read: {edges} points outside of {name}", hint=_ANEW)
            self._offsets[name] = offsets
        return self._offsets[name]

    def close(self) -> None:
        """Close the file."""
        self._found = {}
        self._file.close()


class ShardFolder:
    """Where each id lies; opens shards on demand.

    Args:
        folder: holds `shard-00000.h5` and so on. A folder without shards is an empty one.
        columns: what each shard holds.

    Raises:
        Refused: a shard cannot be read, or two shards hold the same id.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Column] = IDS) -> None:
        self.folder = folder
        self._columns = columns
        self._open: dict[Path, Shard] = {}
        self._pid = os.getpid()
        self._where: dict[str, tuple[Path, int]] = {}
        for path in shard_paths(folder):
            self._index(path)
        self.close()

    def _index(self, path: Path) -> None:
        for row, clip_id in enumerate(self.shard(path).texts("id")):
            if clip_id in self._where:
                raise Refused(f"{path} and {self._where[clip_id][0]} both hold clip {clip_id!r}")
            self._where[str(clip_id)] = (path, row)

    @property
    def ids(self) -> list[str]:
        """All ids, sorted: the order does not depend on how the shards were filled."""
        return sorted(self._where)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def locate(self, clip_id: str) -> tuple[Shard, int]:
        """The open shard and the row of one id."""
        path, row = self._where[clip_id]
        return self.shard(path), row

    def place(self, clip_id: str) -> tuple[Path, int]:
        """Path of the shard and row of one id: sorting by it reads each shard once, in order."""
        return self._where[clip_id]

    def shard(self, path: Path) -> Shard:
        """The shard at `path`, opened read-only in this process; the one used longest ago is closed for it."""
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        shard = self._open.pop(path, None) or Shard(path, self._columns)
        if len(self._open) >= _OPEN_AT_MOST:
            self._open.pop(next(iter(self._open))).close()
        self._open[path] = shard
        return shard

    def close(self) -> None:
        """Close every open shard."""
        for shard in self._open.values():
            shard.close()
        self._open = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of `folder`, whoever wrote them, in the order of their names."""
    return sorted(folder.glob("shard-*.h5"))


def write_next_shard(
    folder: Path, buffer: list[Row], fill: Callable[[Any, list[Row]], None], part: Part = WHOLE
) -> None:
    """Write one more shard of what is buffered, and empty the buffer; without anything in it, nothing.

    Each part of a job counts its own: `shard-00000.h5` is the whole's, `shard-2-of-4-00000.h5` a part's. Whatever
    interrupts it, a row is afterwards either in the shard or in the buffer.

    Args:
        folder: where the shards lie.
        buffer: one entry a clip.
        fill: gets the open HDF5 file and the entries.
        part: whose shard it is.
    """
    if not buffer:
        return
    names = [path.stem.rpartition("-") for path in shard_paths(folder)]
    stem = f"shard{part.suffix}"
    last = max((int(number) for start, _, number in names if start == stem), default=-1)
    path = folder / f"{stem}-{last + 1:05d}.h5"
    taken = buffer.copy()
    buffer.clear()
    try:
        write_shard(path, lambda file: fill(file, taken))
    except BaseException:
        if not path.exists():  # an interrupt may come when the shard has its name already
            buffer[:0] = taken
        raise


def put_ragged(file: Any, name: str, rows: list[NDArray[Any]]) -> None:
    """Write what clips have unequal amounts of: the arrays below each other, and where each begins."""
    file[name] = np.concatenate(rows)
    file[f"{name}_offset"] = np.cumsum([0, *map(len, rows)]).astype("i8")


def put_texts(file: Any, name: str, texts: list[str]) -> None:
    """Write one text a clip."""
    put_ragged(file, name, [np.frombuffer(text.encode(), np.uint8) for text in texts])


def write_shard(path: Path, fill: Callable[[Any], None]) -> None:
    """Write a shard: `fill` gets the open HDF5 file. Atomic."""
    # Built in memory: HDF5 that runs into a full disk itself cannot close its file and takes the process down at exit.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        fill(file)
    write_image(path, image)
