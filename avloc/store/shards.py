"""Numbered HDF5 shards in a folder, with one row per clip and a text column `id`.

Texts and arrays of varying length are concatenated, with a data set of offsets. HDF5's variable-length strings are not
used: their heap can make the library loop on a damaged file.

A shard is written under a temporary name, flushed and renamed, and then never changed.
"""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import write_buffer
from avloc.sharding import JobShard
from avloc.store.shard_file import IDS, Column, Shard

_MOST_OPEN = 128

Row = TypeVar("Row")


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
        self._shards: dict[Path, Shard] = {}
        self._open: dict[Path, None] = {}
        self._most_open = _most_open()
        self._where: dict[str, tuple[Path, int]] = {}
        for path in shard_paths(folder):
            for row, clip_id in enumerate(Shard(path).texts("id")):
                if clip_id in self._where:
                    raise Refused(f"{path} and {self._where[clip_id][0]} both contain clip {clip_id!r}")
                self._where[clip_id] = (path, row)

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
        """The shard at `path`; may close the file of the least recently used one, but not forget what is in it."""
        if path not in self._shards:
            self._shards[path] = Shard(path, self._columns)
        self._open.pop(path, None)
        if len(self._open) >= self._most_open:
            closed = next(iter(self._open))
            self._shards[closed].close()
            del self._open[closed]
        self._open[path] = None
        return self._shards[path]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}, "_open": {}}


def _most_open() -> int:
    """Limit on open files of a folder: an eighth of those that the system allows to a process, and 128 at most.

    Training reads six folders: clips and two hints, and those of `--val`.
    """
    if sys.platform == "win32":
        return _MOST_OPEN
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN if allowed == resource.RLIM_INFINITY else min(max(allowed // 8, 1), _MOST_OPEN)


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
