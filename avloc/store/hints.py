"""Teachers' outputs, one folder per teacher beside the clips, stamped with who made them and how."""

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
    """Where the hints of `teacher` lie in a store."""
    return store / f"hints-{teacher}"


@dataclass(frozen=True, kw_only=True)
class HintStamp:
    """Who made the hints, with which weights and settings. Hints under another stamp are refused."""

    teacher: str
    shape: tuple[int, ...]
    """Shape of one hint."""
    weights: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256."""
    settings: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data, as it stands in `stamp.json`."""
        return json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}))  # type: ignore[no-any-return]


class Hints:
    """The hints of one teacher, read clip by clip.

    Raises:
        Refused: there are none, or they cannot be read.
    """

    def __init__(self, store: Path, teacher: str) -> None:
        self.folder = hint_folder(store, teacher)
        path = self.folder / STAMP
        if not path.is_file():
            hint = f"Make them: avloc distill-cache {store} --teacher {teacher}"
            raise Refused(f"{store} has no hints of {teacher}", hint=hint)
        self.stamp = read_json_object(path)
        if self.stamp.get("teacher") != teacher:
            raise Refused(f"{path} is not of {teacher}", hint="Delete the folder to make them anew.")
        shape = self.stamp.get("shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
            raise Refused(f"{path} says no shape of the hints", hint="Delete the folder to make them anew.")
        self.shards = ShardFolder(self.folder, {**IDS, "present": Column("u1"), "value": Column("f2", (ROWS, *shape))})

    @property
    def imported(self) -> bool:
        """Whether they came from somebody's arrays, which need not cover every clip."""
        settings = self.stamp.get("settings")
        return isinstance(settings, dict) and "imported" in settings

    @property
    def failed(self) -> set[str]:
        """Ids on which the teacher was run in vain (`failed.jsonl`)."""
        return {str(line["id"]) for line in read_json_lines(self.folder / FAILED) if "id" in line}

    def read(self, clip_id: str) -> NDArray[np.float16] | None:
        """The hint of one clip; None where the teacher had nothing to say ("no hint").

        Raises:
            KeyError: the teacher has not been run on this clip.
        """
        file, row = self.shards.locate(clip_id)
        if not file.numbers("present", row):
            return None
        value: NDArray[np.float16] = file.numbers("value", row)
        return value


class HintWriter:
    """Adds hints, shard by shard; use it as a context, under the folder's lock.

    Leaving the context writes what is buffered, also on an interrupt.

    Args:
        store: the store the hints lie in.
        stamp: who makes them.
        shard_clips: hints per full shard.
        shard: the shard locked by this process; enter its context under `lock_shared_files`.

    Raises:
        Refused: the folder holds hints under another stamp.
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
            there = read_json_object(path)
            if there != self.stamp.as_json():
                names = sorted(
                    k for k in {*there, *self.stamp.as_json()} if there.get(k) != self.stamp.as_json().get(k)
                )
                reason = f"{self.folder} holds hints made otherwise: {', '.join(names)} differ"
                raise Refused(reason, hint=f"Delete {self.folder} to make them anew, or use the old settings.")
        write_json(path, self.stamp.as_json())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, clip_id: str, value: NDArray[Any] | None) -> None:
        """Buffer one hint of the stamp's shape; None is "no hint"."""
        if value is not None and value.shape != self.stamp.shape:
            raise ValueError(f"hint of {clip_id}: shape {value.shape}, stamp says {self.stamp.shape}")
        self._buffer.append((clip_id, value))
        if len(self._buffer) >= self.shard_clips:
            self.flush()

    def flush(self) -> None:
        """Write the buffered hints as one shard."""
        write_next_shard(self.folder, self._buffer, self._fill, self.shard)

    def _fill(self, file: Any, hints: list[tuple[str, NDArray[Any] | None]]) -> None:
        put_texts(file, "id", [clip_id for clip_id, _ in hints])
        file["present"] = np.array([value is not None for _, value in hints], "u1")
        blank = np.zeros(self.stamp.shape, np.float16)
        values = [blank if value is None else value.astype(np.float16) for _, value in hints]
        file["value"] = np.stack(values)
