"""Hints of teachers: one folder per teacher in the store, stamped with its weights and settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avloc.errors import Refused
from avloc.files import read_json_lines, read_json_object, write_json
from avloc.sharding import UNSHARDED, JobShard
from avloc.store.shards import IDS, ROWS, Column, ShardFolder, put_texts, write_next_shard

SCHEMA = 2
STAMP = "stamp.json"
FAILED = "failed.jsonl"


def hint_folder(store: Path, teacher: str) -> Path:
    """Folder of a teacher's hints in a store."""
    return store / f"hints-{teacher}"


@dataclass(frozen=True, kw_only=True)
class HintStamp:
    """Teacher, weights and settings of hints. Adding hints with another stamp is refused."""

    teacher: str
    shape: tuple[int, ...]
    """Shape of one hint."""
    weights: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256."""
    settings: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data of `stamp.json`."""
        return json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))  # type: ignore[no-any-return]


class Hints:
    """Reader of one teacher's hints.

    Raises:
        Refused: there are none, or they are invalid.
    """

    def __init__(self, store: Path, teacher: str) -> None:
        self.folder = hint_folder(store, teacher)
        path = self.folder / STAMP
        if not path.is_file():
            hint = f"Create them: avloc distill-cache {store} --teacher {teacher}"
            raise Refused(f"{store} has no hints of {teacher}", hint=hint)
        self.stamp = read_json_object(path)
        if self.stamp.get("teacher") != teacher:
            raise Refused(f"{path} is not of {teacher}", hint="Delete the folder to recreate them.")
        shape = self.stamp.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
            raise Refused(f"{path} lacks the shape of the hints", hint="Delete the folder to recreate them.")
        self.shards = ShardFolder(self.folder, {**IDS, "present": Column("u1"), "value": Column("f2", (ROWS, *shape))})

    @property
    def imported(self) -> bool:
        """Whether they were imported from arrays, which may not cover all clips."""
        settings = self.stamp.get("settings")
        return isinstance(settings, dict) and "imported" in settings

    @property
    def failed(self) -> set[str]:
        """Ids of the clips that failed (`failed.jsonl`)."""
        return {str(line["id"]) for line in read_json_lines(self.folder / FAILED) if "id" in line}

    def read(self, clip_id: str) -> NDArray[np.float16] | None:
        """Read the hint of one clip; None for "no hint" (no confident output).

        Raises:
            KeyError: the teacher has not been run on this clip.
        """
        file, row = self.shards.locate(clip_id)
        if not file.numbers("present", row):
            return None
        value: NDArray[np.float16] = file.numbers("value", row)
        return value


class HintWriter:
    """Adds hints, shard by shard; a context manager, to be used under the folder's lock.

    Leaving the context, even by an interrupt, writes the buffered hints.

    Args:
        store: the store.
        stamp: teacher, weights and settings.
        shard_clips: hints per full shard.
        shard: the shard locked by this process; enter the context under `lock_shared_files`.

    Raises:
        Refused: the folder contains hints with another stamp.
    """

    def __init__(self, store: Path, stamp: HintStamp, *, shard_clips: int = 512, shard: JobShard = UNSHARDED) -> None:
        self.folder = hint_folder(store, stamp.teacher)
        self.stamp = stamp
        self.shard_clips = shard_clips
        self.shard = shard
        self._buffer: list[tuple[str, NDArray[Any] | None]] = []

    def __enter__(self) -> HintWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / STAMP
        if path.is_file():
            old, new = read_json_object(path), self.stamp.as_json()
            if old != new:
                names = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
                reason = f"{self.folder} contains hints with other settings: {', '.join(names)} differ"
                raise Refused(reason, hint=f"Delete {self.folder} to recreate them, or use the old settings.")
        write_json(path, self.stamp.as_json())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, clip_id: str, value: NDArray[Any] | None) -> None:
        """Buffer a hint of the stamp's shape; None is "no hint"."""
        if value is not None and value.shape != self.stamp.shape:
            raise ValueError(f"hint of {clip_id}: shape {value.shape}, expected {self.stamp.shape}")
        self._buffer.append((clip_id, value))
        if len(self._buffer) >= self.shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write the buffered hints to a shard."""
        write_next_shard(self.folder, self._buffer, self._fill, self.shard)

    def _fill(self, file: Any, hints: list[tuple[str, NDArray[Any] | None]]) -> None:
        put_texts(file, "id", [clip_id for clip_id, _ in hints])
        file["present"] = np.array([value is not None for _, value in hints], "u1")
        blank = np.zeros(self.stamp.shape, np.float16)
        values = [blank if value is None else value.astype(np.float16) for _, value in hints]
        file["value"] = np.stack(values)
